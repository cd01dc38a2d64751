"The command line: a thin door to the main job."
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from .core import InputError, MissingPackage

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode='markdown',
                  help='Match product listings by image and title: which of them are the same product?')


@app.callback()
def main():
    # with one command typer would drop its name, and `fastmatch demo` would stop working the day before a second one comes
    pass


def _fail(error):
    typer.secho(f'fastmatch: {error}', fg='red', err=True)
    raise typer.Exit(2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help='Folder for matches.csv and summary.json; made if it is not there.')] = Path('fastmatch-demo'),
    quick: Annotated[bool, typer.Option('--quick', help='Two epochs instead of eight: under two minutes, lower scores.')] = False,
    seed: Annotated[int, typer.Option(help='Of weights, batches and halvings; the same seed gives the same numbers.')] = 0,
):
    """Train on the embedded sample of 2,100 listings, search a fold that was never seen, choose the rule, and write the matches.

    Takes about five minutes on two cores. `matches.csv` holds the held-out listings (posting_id, matches: blank-separated, itself first);
    `summary.json` what each modality and their fusion are worth, beside 'every listing alone' and the untrained encoders.
    """
    # here, so that --help answers at once: torch alone takes seconds to import
    typer.echo('loading ...')
    # in a log file bars are noise; the lines about stages and epochs stay
    if not sys.stderr.isatty(): os.environ['TQDM_DISABLE'] = '1'
    # a dependency's deprecation is nothing the user can act on
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    try:
        import pandas as pd
        from transformers.utils import logging

        from .data.sample import demo_path
        from .job import run, summary_table
        logging.disable_progress_bar()
        path = demo_path()
        # so short a training keeps more of what the encoders knew at half the rate
        settings = dict(epochs=2, lr=1e-3) if quick else {}
        summary = run(pd.read_csv(path/'listings.csv'), path/'images', out, fold_col='fold', seed=seed, echo=typer.echo, **settings)
    except (InputError, MissingPackage) as e: _fail(e)
    typer.echo(f'\n{summary_table(summary)}\n\nrule: {summary["rule"]}\nwrote {out/"matches.csv"} and {out/"summary.json"}')
