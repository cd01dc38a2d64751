"The command line: a thin door to the main job and to saved matchers."
import os
import sys
import warnings
from contextlib import contextmanager
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


@contextmanager
def _working():
    "Inside it what the user can mend becomes one line on stderr and exit code 2; the imports of a command belong inside, so that --help stays quick."
    # in a log file bars are noise; the lines about stages and epochs stay
    if not sys.stderr.isatty(): os.environ['TQDM_DISABLE'] = '1'
    # a dependency's deprecation is nothing the user can act on
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    try:
        from transformers.utils import logging
        logging.disable_progress_bar()
        yield
    except (InputError, MissingPackage) as e: _fail(e)
    except OSError as e:
        # a full disk, a folder without rights: what the system says is enough; anything else of that kind is a bug of ours
        if e.errno is None: raise
        _fail(e)


def _fail(error):
    typer.secho(f'fastmatch: {error}', fg='red', err=True)
    raise typer.Exit(2) from error


Table = Annotated[Path, typer.Argument(help='Table of listings: CSV, TSV or Parquet.', show_default=False)]
Images = Annotated[Path | None, typer.Option(help='Folder of the images. None: titles only.')]
Encoding = Annotated[str, typer.Option(help='Of a text table.')]
Force = Annotated[bool, typer.Option('--force', help='Replace an earlier result in --out.')]
Seed = Annotated[int, typer.Option(help='Of weights, batches and halvings; the same seed gives the same numbers.')]
OnError = Annotated[str, typer.Option(help="'raise': list every unusable row and stop; 'skip': go on without them.")]
Device = Annotated[str | None, typer.Option(help="'cpu', 'cuda', ...; default: a GPU where there is one.")]
ImageArch = Annotated[str, typer.Option(help='Image encoder: timm name, folder, or weights file.')]
TextArch = Annotated[str, typer.Option(help='Title encoder: Hugging Face name, or folder.')]
Batch = Annotated[int, typer.Option(help='Listings a batch.')]
Aug = Annotated[str, typer.Option(help='Augmentation preset: none, flip, light, colour, recolour, strong, randaugment.')]
Workers = Annotated[int, typer.Option(help='Processes that read images.')]


def _column(what): return typer.Option(help=f'Column of {what}; default: found by its usual name.')


IdCol = Annotated[str | None, _column('ids')]
ImageCol = Annotated[str | None, _column('image files')]
TitleCol = Annotated[str | None, _column('titles')]
GroupCol = Annotated[str | None, _column('groups')]
FoldCol = Annotated[str | None, _column('folds')]
PhashCol = Annotated[str | None, _column('perceptual hashes')]

DEMO = Path('fastmatch-demo')


def _finish(summary, out):
    from .match.judge.heldout import summary_table
    typer.echo(f'\n{summary_table(summary)}\n\nrule: {summary["rule"]}\nwrote {out}: the matcher, matches.csv, summary.json and report.html')


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help='Folder to write; an earlier demo in the default one is replaced.')] = DEMO,
    force: Force = False,
    quick: Annotated[bool, typer.Option('--quick', help='Two epochs instead of eight: under two minutes, lower scores.')] = False,
    seed: Seed = 0,
):
    """Train on the embedded sample of 2,100 listings, search a fold that was never seen, choose the rule, and write the matches.

    Takes about five minutes on two cores. `matches.csv` holds the held-out listings (posting_id, matches: blank-separated, itself first);
    `summary.json` what each modality and their fusion are worth, beside 'every listing alone' and the untrained encoders;
    `report.html` shows it with the matches and the mistakes. The folder is a matcher of the held-out listings for `fastmatch match`.
    """
    # here, so that --help answers at once: torch alone takes seconds to import
    typer.echo('loading ...')
    with _working():
        import pandas as pd

        from .data.sample import demo_path
        from .jobs.train import run
        path = demo_path()
        # so short a training keeps more of what the encoders knew at half the rate
        settings = dict(epochs=2, lr=1e-3) if quick else {}
        _finish(run(pd.read_csv(path/'listings.csv'), path/'images', out, fold_col='fold', seed=seed, echo=typer.echo, catalogue='heldout',
                    force=force or out == DEMO,
                    **settings), out)


@app.command()
def train(
    listings: Table,
    out: Annotated[Path, typer.Option(help='Folder to write: it is there whole or not at all.', show_default=False)],
    images: Images = None,
    image_arch: ImageArch = 'tf_efficientnet_lite0',
    text_arch: TextArch = 'all-MiniLM-L6-v2',
    epochs: Annotated[int, typer.Option(help='Rounds over the training listings.')] = 8,
    lr: Annotated[str, typer.Option(help="Learning rate, spread over encoders and heads; 'auto' asks lr_find.")] = '2e-3',
    bs: Batch = 64,
    size: Annotated[int, typer.Option(help='Side of the images in pixels; on a CPU 128 trains three times as fast.')] = 224,
    aug: Aug = 'colour',
    folds: Annotated[int, typer.Option(help='Folds to make where the table has none; one of them is held out.')] = 5,
    valid_fold: Annotated[int, typer.Option(help='Fold held out for choosing and judging the rule.')] = 0,
    id_col: IdCol = None,
    image_col: ImageCol = None,
    title_col: TitleCol = None,
    group_col: GroupCol = None,
    fold_col: FoldCol = None,
    phash_col: PhashCol = None,
    encoding: Encoding = 'utf-8',
    on_error: OnError = 'raise',
    seed: Seed = 0,
    workers: Workers = 0,
    device: Device = None,
    force: Force = False,
):
    """Train on a table of listings with groups, choose and judge the rule on a fold held out, and write a matcher of all of them.

    Kaggle Shopee's `train.csv` works as it is. Without --images it trains on titles; without titles on images; listings whose
    perceptual hash (column `image_phash`) is equal match by that alone. `fastmatch match OUT NEW.csv` uses the result.
    """
    typer.echo('loading ...')
    with _working():
        rate = 'auto' if lr == 'auto' else _number('lr', lr)
        df, cols = _listings(listings, encoding, images, dict(id_col=id_col, image_col=image_col, title_col=title_col, group_col=group_col, fold_col=fold_col,
                                                              phash_col=phash_col))
        from .jobs.train import run
        _finish(run(df, images or '.', out, columns=cols, n_folds=folds, valid_fold=valid_fold, image_arch=image_arch, text_arch=text_arch, epochs=epochs, lr=rate,
                    bs=bs, size=size, aug=aug, on_error=on_error, seed=seed, num_workers=workers, device=device, echo=typer.echo, force=force), out)


@app.command()
def tune(
    listings: Table,
    study: Annotated[str, typer.Option(help='Name of the study; the same call again goes on with it.')] = 'tune',
    storage: Annotated[str, typer.Option(help="Where studies are kept: a file .db (SQLite) or .log (Optuna's journal), or any database's URL.")] = 'fastmatch-studies.db',
    n_trials: Annotated[int, typer.Option(help='Finished trials that the study is to hold, earlier calls and other machines included.')] = 20,
    jobs: Annotated[int, typer.Option(help='Processes on this machine; the same call on another adds more.')] = 1,
    space: Annotated[str, typer.Option(help='What to search, by name: margin, scale, loss, opt, lr, wd, eps, schedule, rho, image_arch, text_arch, image_pool, pool.')] =
        'margin,scale,lr',
    images: Images = None,
    epochs: Annotated[int, typer.Option(help='Rounds over the training listings in a whole trial.')] = 4,
    monitor: Annotated[str, typer.Option(help='What the study looks at, on the inner validation fold: recall@1, map@r, row_f1_max.')] = 'recall@1',
    sampler: Annotated[str, typer.Option(help='tpe, cmaes, gp or random.')] = 'tpe',
    pruner: Annotated[str, typer.Option(help='hyperband, asha, median or none.')] = 'hyperband',
    out: Annotated[Path | None, typer.Option(help='Folder for report.html and trials.csv.')] = None,
    image_arch: ImageArch = 'tf_efficientnet_lite0',
    text_arch: TextArch = 'all-MiniLM-L6-v2',
    bs: Batch = 64,
    size: Annotated[int, typer.Option(help='Side of the images in pixels.')] = 104,
    aug: Aug = 'colour',
    folds: Annotated[int, typer.Option(help='Folds to make where the table has none.')] = 5,
    test_fold: Annotated[int, typer.Option(help='Fold put aside for the reported score; of the others one validates, and the rest trains.')] = 0,
    id_col: IdCol = None,
    image_col: ImageCol = None,
    title_col: TitleCol = None,
    group_col: GroupCol = None,
    fold_col: FoldCol = None,
    phash_col: PhashCol = None,
    encoding: Encoding = 'utf-8',
    on_error: OnError = 'raise',
    seed: Seed = 0,
    workers: Workers = 0,
    device: Device = None,
    force: Force = False,
):
    """Search margin, scale, learning rate and more with short trainings on a table of listings with groups.

    The study looks at one fold and is reported on another, which neither training nor the study saw. It may be killed at any moment:
    the same call goes on, and tries again what was running. The first trial is the kit as it comes; the gain over it is said at the end.
    """
    typer.echo('loading ...')
    with _working():
        from .core import atomic_folder, check_new_folder
        if out is not None: check_new_folder(out, lambda o: o in ('report.html', 'trials.csv'), force)
        df, cols = _listings(listings, encoding, images, dict(id_col=id_col, image_col=image_col, title_col=title_col, group_col=group_col, fold_col=fold_col,
                                                              phash_col=phash_col))
        from .jobs.tune import study_page, tune_listings, worth
        res = tune_listings(df, images or '.', cols, study, storage, n_trials, jobs, tuple(o.strip() for o in space.split(',') if o.strip()), epochs=epochs, monitor=monitor,
                            test_fold=test_fold, n_folds=folds, image_arch=image_arch, text_arch=text_arch, size=size, aug=aug, bs=bs, sampler=sampler,
                            pruner=None if pruner == 'none' else pruner, seed=seed, on_error=on_error, num_workers=workers, device=device, echo=typer.echo)
        typer.echo('\n' + worth(res)[0])
        if out is None: return
        with atomic_folder(out) as tmp:
            (tmp/'report.html').write_text(study_page(res), encoding='utf-8')
            (tmp/'trials.csv').write_text(res.trials_dataframe(('number', 'state', 'value', 'duration', 'params')).to_csv(index=False), encoding='utf-8')
        typer.echo(f'wrote {out}: report.html and trials.csv')


def _listings(listings, encoding, images, given):
    "The table, and its columns by role as the jobs take them."
    from dataclasses import replace

    from .data.table import read_table, recognise, unescape
    df = read_table(listings, encoding)
    cols = _roles(df, given, ('id', 'group'))
    if images is not None and cols.image is None: recognise(df, **cols.by_keyword(), required=('image',))
    if images is None and cols.title is None:
        raise InputError('nothing to train on: give --images for the pictures, or --title-col for the titles')
    if cols.title is not None: df[cols.title] = unescape(df[cols.title])
    if images is None: cols = replace(cols, image=None)
    typer.echo(f'{len(df)} listings in {listings}; ' + ', '.join(f'{k.removesuffix("_col")}: {v}' for k, v in cols.by_keyword().items() if v))
    return df, cols


def _roles(df, given, required):
    "The columns by role; 'none' given for one leaves it out."
    from .data.columns import Columns
    from .data.table import recognise
    off = [k for k, v in given.items() if v == 'none' and v not in df]
    wanted = {k: None if k in off else v for k, v in given.items()}
    # a column that isn't looked at may hold what it likes
    cols = recognise(df, **wanted, required=required, max_title=None)
    cols = Columns.resolve(cols, dict.fromkeys(off))
    if cols.title is not None: recognise(df[[o for o in cols.by_keyword().values() if o]], **cols.by_keyword())
    return cols


def _number(name, text):
    try: return float(text)
    except ValueError: raise InputError(f"{name}={text!r}: give a number, or 'auto'") from None


@app.command()
def match(
    matcher: Annotated[Path, typer.Argument(help='Folder of a matcher.', show_default=False)],
    listings: Table,
    images: Annotated[Path | None, typer.Option(help='Folder of the images; needed where the matcher reads pictures.')] = None,
    out: Annotated[Path, typer.Option('--out', '-o', help='File to write: posting_id, matches.')] = Path('matches.csv'),
    scores: Annotated[bool, typer.Option('--scores', help='Also write a .pairs.csv: the scores of each match by modality, and the reason.')] = False,
    alone: Annotated[bool, typer.Option('--alone', help='Match the new listings among themselves only, not with the catalogue.')] = False,
    embeddings: Annotated[Path | None, typer.Option(help='Vectors made elsewhere, a row a listing: .npz, an array for each modality.')] = None,
    id_col: IdCol = None,
    image_col: ImageCol = None,
    title_col: TitleCol = None,
    phash_col: PhashCol = None,
    encoding: Encoding = 'utf-8',
    on_error: OnError = 'raise',
    bs: Batch = 64,
    device: Device = None,
):
    """Match new listings with a matcher's catalogue and among themselves; fastai is not needed for it."""
    typer.echo('loading ...')
    with _working():
        from .core import write_atomically
        from .data.table import read_table, unescape
        from .matcher import load_matcher
        if out.is_dir(): raise InputError(f'--out {out}: is a folder, give a file')
        if out.resolve() == listings.resolve(): raise InputError(f'--out {out}: is the table of listings itself')
        if not os.access(out.parent, os.W_OK) and out.parent.is_dir(): raise InputError(f'--out {out}: no right to write in {out.parent}')
        if not out.parent.is_dir(): raise InputError(f'--out {out}: there is no folder {out.parent}')
        df = read_table(listings, encoding)
        m = load_matcher(matcher, device)
        if 'image' in m.inputs and images is None and embeddings is None: raise InputError('this matcher reads pictures: give their folder as --images')
        # the matcher's own names first: the table may come from the same place
        own = m.columns.by_keyword()
        given = {k: v or (own[k] if own[k] in df else None)
                 for k, v in dict(id_col=id_col, image_col=image_col, title_col=title_col, phash_col=phash_col).items()}
        needed = ('id', *(('image',) if 'image' in m.inputs and embeddings is None else ()), *(('title',) if 'title' in m.inputs else ()))
        cols = _roles(df, given, needed)
        if cols.title is not None: df[cols.title] = unescape(df[cols.title])
        # an unused column that has the name a used one is going to have
        mine = cols.by_keyword()
        df = df[[o for o in df if o in mine.values() or o not in own.values()]]
        df = df.rename(columns={v: own[k] for k, v in mine.items() if v is not None and own[k] is not None and v != own[k]})
        new = df if embeddings is None else _vectors(embeddings, df, m)
        res = m.match(new, images or '.', catalogue=not alone, bs=bs, on_error=on_error)
        write_atomically(out, res.to_frame().to_csv(index=False))
        wrote = [str(out)]
        if scores:
            wrote.append(str(out.with_suffix('.pairs.csv')))
            write_atomically(wrote[1], res.pairs().to_csv(index=False))
        for o in res.skipped.itertuples(): typer.echo(f'skipped row {o.row} ({o.id}), {o.column}: {o.reason}', err=True)
        typer.echo(f'{len(res)} listings, {len(res.matches.ids) - len(res)} matches among {len(res.ids)}; wrote {" and ".join(wrote)}')


def _vectors(file, df, m):
    from zipfile import BadZipFile

    import numpy as np

    from .data.split import usable_hashes
    from .match import Embeddings
    try:
        with np.load(file, allow_pickle=False) as o: vectors = {k: o[k] for k in o.files}
    # a .npy is no context, a broken zip has an error of its own
    except (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile) as e: raise InputError(f'--embeddings {file}: no .npz of numbers ({e})') from e
    if bad := {k: f'{v.dtype} {v.shape}' for k, v in vectors.items() if v.ndim != 2 or v.dtype.kind not in 'fiu'}:
        raise InputError(f'--embeddings {file}: {bad}; give numbers of shape (listings, dimensions)')
    title, key, ids = m.columns.title, m.columns.phash, df[m.columns.id]
    if ids.isna().any(): raise InputError(f'{m.columns.id}: row {int(ids.isna().to_numpy().argmax())} has no id')
    if title in df and (blank := df[title].isna()).any(): raise InputError(f'{title}: row {int(blank.to_numpy().argmax())} has no title')
    return Embeddings(vectors, df[m.columns.id], titles=df[title] if title in df else None, phash=usable_hashes(df[key]) if key in df else None)


@app.command()
def inspect(
    matcher: Annotated[Path, typer.Argument(help='Folder of a matcher.', show_default=False)],
):
    """Check a saved matcher's files against their hashes, and say what it is: catalogue, rule, encoders, scores."""
    with _working():
        import json

        from .data.columns import Columns
        from .match.judge.heldout import summary_table
        from .matcher.folder import read_folder
        files, inside, manifest = read_folder(matcher)
        spec, lists = json.loads(files['matcher.json']), json.loads(files['listings.json'])
        typer.echo(f'{matcher}: {len(files)} files, {sum(map(len, files.values())) / 1e6:.1f} MB, every hash right')
        typer.echo('made with ' + ', '.join(f'{k} {v}' for k, v in manifest['made_with'].items()))
        typer.echo(f'catalogue: {len(lists["ids"])} listings, {lists["ids"][0]} to {lists["ids"][-1]}')
        for k in ('image', 'title'):
            if k in (spec['encoder'] or {}): typer.echo(f'{k} encoder: {spec["encoder"][k]["name"]}')
        if spec['encoder'] and spec['encoder']['picture']: typer.echo(f'pictures: {"x".join(map(str, spec["encoder"]["picture"]["size"]))}')
        typer.echo('columns: ' + ', '.join(f'{k.removesuffix("_col")} {v}' for k, v in Columns.resolve(spec['cols'], {}, Columns(group=None)).by_keyword().items() if v))
        typer.echo(f'rule: {json.dumps(spec["rule"])}')
        # figures of the fold that the rule was chosen on; somebody's own `info` may hold anything
        if {'heldout', 'gain', 'settings'} <= set(spec['info']): typer.echo('\n' + summary_table(spec['info']))
