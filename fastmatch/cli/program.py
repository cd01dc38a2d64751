"The program itself, and what its commands share: options of several of them, and how failures are told."
import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..core import InputError, MissingPackage

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode='markdown',
                  help='Match product listings by image and title: which of them are the same product?')
# an earlier name of an option, still understood and not shown
EARLIER_NAMES = {'token_normalize_func': lambda option: {'label-col': 'group-col'}.get(option, option)}


@app.callback()
def main():
    "Keeps the name of each command: with a single one, typer would drop it."


@contextmanager
def working():
    "Inside it, what the user can mend becomes one line on stderr and exit code 2."
    # in a log file bars are noise; the lines about stages and epochs stay
    if not sys.stderr.isatty(): os.environ['TQDM_DISABLE'] = '1'
    # a dependency's deprecation is nothing that the user can act on
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    try:
        from transformers.utils import logging
        logging.disable_progress_bar()
        yield
    except (InputError, MissingPackage) as error: _fail(error)
    except OSError as error:
        # a full disk, a folder without rights: the system's message is enough; others are this package's bugs
        if error.errno is None: raise
        _fail(error)


def _fail(error):
    typer.secho(f'fastmatch: {error}', fg='red', err=True)
    raise typer.Exit(2) from error


def option(help_text, *names, **kwargs):
    "An option of a command; its name follows from the parameter where none is given."
    return typer.Option(*names, help=help_text, **kwargs)


def column(contents):
    "An option that names a column of a table."
    return option(f'Column of {contents}; default: found by its usual name.')


Table = Annotated[Path, typer.Argument(help='Table of listings: CSV, TSV or Parquet.', show_default=False)]
MatcherFolder = Annotated[Path, typer.Argument(help='Folder of a matcher.', show_default=False)]
Images = Annotated[Path | None, option('Folder of the images. None: titles only.')]
Encoding = Annotated[str, option('Of a text table.')]
Force = Annotated[bool, option('Replace an earlier result in --out.', '--force')]
Seed = Annotated[int, option('Of weights, batches and halvings; the same seed gives the same numbers.')]
OnError = Annotated[str, option("'raise': list every unusable row and stop; 'skip': go on without them.")]
Device = Annotated[str | None, option("'cpu', 'cuda', ...; default: a GPU where there is one.")]
Batch = Annotated[int, option('Listings a batch.')]
IdCol = Annotated[str | None, column('ids')]
ImageCol = Annotated[str | None, column('image files, several with | or ; between')]
TitleCol = Annotated[list[str] | None, option(
    'Column of titles; default: found by its usual name. Given several times, the texts are put together, '
    'as --title-col title --title-col brand.')]
PhashCol = Annotated[str | None, column('perceptual hashes')]
SourceCol = Annotated[str | None, option(
    'Column of where a listing comes from: shop, seller. Those of one source never match each other. '
    'Default: none.')]
NewImages = Annotated[Path | None, option('Folder of the images; needed where the matcher reads pictures.')]
NewFields = Annotated[list[str] | None, option(
    "NAME:COLUMN where a column that the matcher compares has another name here. May be given several times.",
    '--field')]


def one_or_several(names):
    "An option that may be given several times: a single name as itself, none as None."
    return names[0] if names and len(names) == 1 else names or None
