"The command line: a thin door to the jobs. Heavy imports are inside the commands: --help answers at once."
import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .core import InputError, MissingPackage
from .jobs.options import MAX_LOSS, RULES, SAMPLE_SIZE, STUDY_FILES, TRIAL, RuleChoice, Search, Training
from .store import check_new_folder

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode='markdown',
                  help='Match product listings by image and title: which of them are the same product?')
# an earlier name of an option, still understood and not shown
EARLIER_NAMES = {'token_normalize_func': lambda option: {'label-col': 'group-col'}.get(option, option)}
DEMO = Path('fastmatch-demo')
TRAINING = Training()
SEARCH = Search()
SPACE = ','.join(SEARCH.space)


@app.callback()
def main():
    "Keeps the name of each command: with a single one, typer would drop it."


@contextmanager
def _working():
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


def _option(help_text, *names, **kwargs): return typer.Option(*names, help=help_text, **kwargs)
def _column(contents): return _option(f'Column of {contents}; default: found by its usual name.')


Table = Annotated[Path, typer.Argument(help='Table of listings: CSV, TSV or Parquet.', show_default=False)]
MatcherFolder = Annotated[Path, typer.Argument(help='Folder of a matcher.', show_default=False)]
Images = Annotated[Path | None, _option('Folder of the images. None: titles only.')]
Encoding = Annotated[str, _option('Of a text table.')]
Force = Annotated[bool, _option('Replace an earlier result in --out.', '--force')]
Seed = Annotated[int, _option('Of weights, batches and halvings; the same seed gives the same numbers.')]
OnError = Annotated[str, _option("'raise': list every unusable row and stop; 'skip': go on without them.")]
Device = Annotated[str | None, _option("'cpu', 'cuda', ...; default: a GPU where there is one.")]
ImageArch = Annotated[str, _option('Image encoder: timm name, folder, or weights file.')]
TextArch = Annotated[str, _option('Title encoder: Hugging Face name, or folder.')]
Batch = Annotated[int, _option('Listings a batch.')]
Size = Annotated[int, _option('Side of the images in pixels; on a CPU 128 is three times as fast as 224.')]
Aug = Annotated[str, _option('Augmentation: none, flip, light, colour, recolour, strong, randaugment.')]
Workers = Annotated[int, _option('Processes that read images.')]
Epochs = Annotated[int, _option('Rounds over the training listings.')]
Folds = Annotated[int, _option('Folds to make where the table has none; one of them is held out.')]
ValidFold = Annotated[int, _option('Fold held out for choosing and judging the rule.')]
Rate = Annotated[str, _option("Learning rate, spread over encoders and heads; 'auto' asks lr_find.")]
RuleKind = Annotated[str, _option(
    f'How the rule is chosen: {", ".join(RULES)}. ladder: a step at a time, each kept only where it adds.')]
Matchless = Annotated[
    float | None,
    _option(
        'Share of held-out groups whose listings lose their mates in judging; default: that of the table.'
    ),
]
Out = Annotated[Path, _option('Folder to write: it is there whole or not at all.', show_default=False)]

IdCol = Annotated[str | None, _column('ids')]
ImageCol = Annotated[str | None, _column('image files, several with | or ; between')]
TitleCol = Annotated[list[str] | None, _option(
    'Column of titles; default: found by its usual name. Given several times, the texts are put together, '
    'as --title-col title --title-col brand.')]
GroupCol = Annotated[str | None, _column('groups')]
FoldCol = Annotated[str | None, _column('folds')]
PhashCol = Annotated[str | None, _column('perceptual hashes')]
SourceCol = Annotated[str | None, _option(
    'Column of where a listing comes from: shop, seller. Those of one source never match each other. '
    'Default: none.')]
Fields = Annotated[list[str] | None, _option(
    "A further column to compare, NAME:KIND[:UNIT]; kinds: text, code, category, number. May be given "
    "several times; 'auto' takes all that are recognised.", '--field')]
NewFields = Annotated[list[str] | None, _option(
    "NAME:COLUMN where a column that the matcher compares has another name here. May be given several times.",
    '--field')]

Study = Annotated[str, _option('Name of the study; the same call again goes on with it.')]
Storage = Annotated[str, _option(
    "Where studies are kept: a file .db (SQLite) or .log (Optuna's journal), or any database's URL.")]
Trials = Annotated[int, _option(
    'Finished trials that the study is to hold, earlier calls and other machines included.')]
Jobs = Annotated[int, _option('Processes on this machine; the same call on another adds more.')]
Space = Annotated[str, _option(
    'What to search, by name: margin, scale, loss, opt, lr, wd, eps, schedule, rho, image_arch, text_arch, '
    'image_pool, pool.')]
TrialEpochs = Annotated[int, _option('Rounds over the training listings in a whole trial.')]
Monitor = Annotated[str, _option(
    'The score that the study improves, on the inner validation fold: recall@1, map@r, row_f1_max.')]
Sampler = Annotated[str, _option('tpe, cmaes, gp or random.')]
Pruner = Annotated[str, _option('hyperband, asha, median or none.')]
StudyOut = Annotated[Path | None, _option('Folder for report.html and trials.csv.')]
TestFold = Annotated[int, _option(
    'Fold put aside for the reported score; of the others one validates, and the rest trains.')]

NewImages = Annotated[Path | None, _option('Folder of the images; needed where the matcher reads pictures.')]
MatchesFile = Annotated[Path, _option('File to write: posting_id, matches.', '--out', '-o')]
Scores = Annotated[bool, _option(
    'Also write a .pairs.csv: the scores of each match by modality, and the reason.', '--scores')]
Alone = Annotated[bool, _option(
    'Match the new listings among themselves only, not with the catalogue.', '--alone')]
Runtime = Annotated[str, _option(
    "What runs the encoder: torch, or onnx or int8 where `fastmatch export` has made them.")]
Rows = Annotated[int | None, _option(
    'Match in pieces of so many listings, with the catalogue alone, and write CSV or Parquet: 4096, say.')]
Store = Annotated[Path | None, _option(
    'With --rows: SQLite file that keeps embeddings, so that another run embeds only what is new.')]
Vectors = Annotated[Path | None, _option(
    'Vectors made elsewhere, a row a listing: .npz, an array for each modality.')]


PairsFile = Annotated[Path, _option('File to write: left_id, right_id, probability.', '--out', '-o')]
Known = Annotated[Path | None, _option('Table of known pairs: left_id, right_id, label (1 or 0).')]
LinkFields = Annotated[list[str] | None, _option(
    'A column to compare, NAME:KIND; kinds are text, code, category, number (also with a unit, '
    'price:number:EUR). May be given several times; default: recognised.')]
LinkThreshold = Annotated[float | None, _option(
    'Probability from which a pair matches; default: the best on the known pairs, .5 without any.')]
How = Annotated[str, _option(
    'one-to-one, one-to-many (a listing of the first table may have several), many-to-one or free.')]

CatalogueFile = Annotated[Path, typer.Argument(help="A catalogue's file.", show_default=False)]
DecidedBy = Annotated[Path | None, _option('Folder of the matcher; default: the one last used with it.',
                                           '--matcher')]
OnKnown = Annotated[str, _option("Ids that are there: 'raise', 'skip' or 'replace'.")]
DryRun = Annotated[bool, _option('Say what would change, and keep nothing.', '--dry-run')]
Who = Annotated[str, _option('Who does it, for the record.')]
Reason = Annotated[str, _option('Why, for the record.')]
Ids = Annotated[list[str], typer.Argument(help='Ids of listings.', show_default=False)]
GroupsFile = Annotated[Path, _option('File to write: posting_id, group.', '--out', '-o')]


@app.command()
def demo(
    out: Annotated[Path, _option('Folder to write; an earlier demo in the default one is replaced.')] = DEMO,
    force: Force = False,
    quick: Annotated[bool, _option(
        'Two epochs instead of fourteen: under two minutes, lower scores.', '--quick')] = False,
    rule: RuleKind = 'ladder',
    seed: Seed = 0,
):
    """Train on the embedded sample of 2,100 listings, match a fold that was never seen, and write the result.

    Takes six to seven minutes on two cores. `matches.csv` holds the held-out listings (posting_id, matches:
    blank-separated, itself first); `summary.json` what each modality and their fusion are worth, beside
    'every listing alone' and the untrained encoders; `report.html` shows it with matches and mistakes.
    The folder is a matcher of the held-out listings for `fastmatch match`.
    """
    typer.echo('loading ...')
    with _working():
        import pandas as pd

        from .data.demo import demo_path
        from .jobs.train import run
        demo_folder = demo_path()
        # so short a training keeps more of what the encoders knew at half the rate
        training = dict(epochs=2, lr=1e-3) if quick else dict(epochs=14)
        summary = run(
            pd.read_csv(demo_folder / 'listings.csv'),
            demo_folder / 'images',
            out,
            fold_col='fold',
            size=SAMPLE_SIZE,
            seed=seed,
            choice=RuleChoice(rule, seed=seed),
            echo=typer.echo,
            catalogue='heldout',
            force=force or out == DEMO,
            **training,
        )
        _say_result(summary, out)


@app.command(context_settings=EARLIER_NAMES)
def train(
    listings: Table,
    out: Out,
    images: Images = None,
    image_arch: ImageArch = TRAINING.image_arch,
    text_arch: TextArch = TRAINING.text_arch,
    epochs: Epochs = TRAINING.epochs,
    lr: Rate = '2e-3',
    bs: Batch = TRAINING.bs,
    size: Size = TRAINING.size,
    aug: Aug = TRAINING.aug,
    folds: Folds = TRAINING.n_folds,
    valid_fold: ValidFold = 0,
    rule: RuleKind = 'ladder',
    matchless: Matchless = None,
    id_col: IdCol = None,
    image_col: ImageCol = None,
    title_col: TitleCol = None,
    group_col: GroupCol = None,
    fold_col: FoldCol = None,
    phash_col: PhashCol = None,
    source_col: SourceCol = None,
    field: Fields = None,
    encoding: Encoding = 'utf-8',
    on_error: OnError = TRAINING.on_error,
    seed: Seed = TRAINING.seed,
    workers: Workers = TRAINING.num_workers,
    device: Device = None,
    force: Force = False,
):
    """Train on a table of listings with groups, judge a rule on a fold held out, and write a matcher.

    Kaggle Shopee's `train.csv` works as it is. Without --images it trains on titles; without titles on
    images; listings whose perceptual hash (column `image_phash`) is equal match by that alone.
    `fastmatch match OUT NEW.csv` uses the result.
    """
    typer.echo('loading ...')
    with _working():
        from .jobs.listings import training_listings
        learning_rate = 'auto' if lr == 'auto' else _number('lr', lr)
        column_names = dict(id_col=id_col, image_col=image_col, title_col=_one_or_several(title_col),
                            group_col=group_col, fold_col=fold_col, phash_col=phash_col,
                            source_col=source_col)
        listing_table, columns = training_listings(listings, encoding, images, column_names, typer.echo,
                                                   field or ())
        training = Training(image_arch, text_arch, size, aug, epochs, bs, folds, seed, on_error, workers,
                            device)
        from .jobs.train import run
        summary = run(listing_table, images or '.', out, columns=columns, training=training,
                      valid_fold=valid_fold, lr=learning_rate,
                      choice=RuleChoice(rule, matchless, seed=seed), echo=typer.echo, force=force)
        _say_result(summary, out)


@app.command(context_settings=EARLIER_NAMES)
def tune(
    listings: Table,
    study: Study = SEARCH.name,
    storage: Storage = SEARCH.storage,
    n_trials: Trials = SEARCH.n_trials,
    jobs: Jobs = SEARCH.jobs,
    space: Space = SPACE,
    images: Images = None,
    epochs: TrialEpochs = TRIAL.epochs,
    monitor: Monitor = SEARCH.monitor,
    sampler: Sampler = SEARCH.sampler,
    pruner: Pruner = SEARCH.pruner,
    out: StudyOut = None,
    image_arch: ImageArch = TRAINING.image_arch,
    text_arch: TextArch = TRAINING.text_arch,
    bs: Batch = TRAINING.bs,
    size: Size = TRAINING.size,
    aug: Aug = TRAINING.aug,
    folds: Folds = TRAINING.n_folds,
    test_fold: TestFold = 0,
    id_col: IdCol = None,
    image_col: ImageCol = None,
    title_col: TitleCol = None,
    group_col: GroupCol = None,
    fold_col: FoldCol = None,
    phash_col: PhashCol = None,
    source_col: SourceCol = None,
    field: Fields = None,
    encoding: Encoding = 'utf-8',
    on_error: OnError = TRAINING.on_error,
    seed: Seed = TRAINING.seed,
    workers: Workers = TRAINING.num_workers,
    device: Device = None,
    force: Force = False,
):
    """Search margin, scale, learning rate and more with short trainings on a table of listings with groups.

    Trials are scored on one fold, and the best is reported on another, which neither training nor the study
    saw. The study may be killed at any moment: the same call goes on, and tries again what was running. The
    first trial is the kit as it comes; the gain over it is said at the end.
    """
    typer.echo('loading ...')
    with _working():
        if out is not None: check_new_folder(out, lambda filename: filename in STUDY_FILES, force)
        from .jobs.listings import training_listings
        column_names = dict(id_col=id_col, image_col=image_col, title_col=_one_or_several(title_col),
                            group_col=group_col, fold_col=fold_col, phash_col=phash_col,
                            source_col=source_col)
        listing_table, columns = training_listings(listings, encoding, images, column_names, typer.echo,
                                                   field or ())
        training = Training(image_arch, text_arch, size, aug, epochs, bs, folds, seed, on_error, workers,
                            device)
        search = Search(study, storage, n_trials, jobs, _names(space), monitor, sampler,
                        None if pruner == 'none' else pruner)
        from .jobs.tune import tune_listings
        finished = tune_listings(listing_table, images or '.', columns, search=search, training=training,
                                 test_fold=test_fold, echo=typer.echo)
        _say_study(finished, out)


@app.command()
def match(
    matcher: MatcherFolder,
    listings: Table,
    images: NewImages = None,
    out: MatchesFile = Path('matches.csv'),
    scores: Scores = False,
    alone: Alone = False,
    embeddings: Vectors = None,
    id_col: IdCol = None,
    image_col: ImageCol = None,
    title_col: TitleCol = None,
    phash_col: PhashCol = None,
    source_col: SourceCol = None,
    field: NewFields = None,
    encoding: Encoding = 'utf-8',
    on_error: OnError = 'raise',
    bs: Batch = 64,
    device: Device = None,
    runtime: Runtime = 'torch',
    rows: Rows = None,
    store: Store = None,
):
    """Match new listings with a matcher's catalogue and among themselves; fastai is not needed for it.

    With --rows a table of any length is matched with the catalogue alone, in bounded memory; killed, the same
    call goes on where it was.
    """
    typer.echo('loading ...')
    with _working():
        from .data.table import read_table
        from .jobs.match import check_output, match_in_pieces, new_listings, write_matches
        from .matcher import load_matcher
        check_output(out, listings)
        column_names = dict(id_col=id_col, image_col=image_col, title_col=_one_or_several(title_col),
                            phash_col=phash_col, source_col=source_col)
        if store is not None and rows is None: raise InputError('--store: is for matching in pieces, --rows')
        if rows is not None:
            if scores or alone or embeddings is not None:
                raise InputError('--rows: takes no --scores, --alone or --embeddings')
            match_in_pieces(load_matcher(matcher, device, runtime=runtime), listings, out, images,
                            column_names, field or (), rows=rows, store=store, encoding=encoding, bs=bs,
                            on_error=on_error, echo=typer.echo)
            return
        listing_table = read_table(listings, encoding)
        loaded = load_matcher(matcher, device, runtime=runtime)
        new_rows = new_listings(listing_table, loaded, column_names, images, embeddings, field or ())
        result = loaded.match(new_rows, images or '.', catalogue=not alone, bs=bs, on_error=on_error)
        # a rule that does not know this pool may do badly here: said beside the result, not in it
        typer.echo(result.setting, err=loaded.rule.pools is None)
        for note in result.notes: typer.echo(note, err=True)
        written_files = write_matches(result, out, scores)
        for skipped in result.skipped.itertuples():
            typer.echo(f'skipped row {skipped.row} ({skipped.id}), {skipped.column}: {skipped.reason}',
                       err=True)
        n_matches = len(result.matches.ids) - len(result)
        typer.echo(f'{len(result)} listings, {n_matches} matches among {len(result.ids)}; '
                   f'wrote {" and ".join(map(str, written_files))}')


@app.command()
def link(
    left: Table,
    right: Annotated[Path, typer.Argument(help="The other shop's table.", show_default=False)],
    out: PairsFile = Path('links.csv'),
    known: Known = None,
    field: LinkFields = None,
    how: How = 'one-to-one',
    threshold: LinkThreshold = None,
    id_col: IdCol = None,
    right_id_col: IdCol = None,
    encoding: Encoding = 'utf-8',
    seed: Seed = 0,
):
    """Match the listings of two tables against each other: two shops, a shop and a catalogue.

    Columns that both tables have are compared by what they hold: texts, codes, categories, numbers. Without
    --known it learns from the tables themselves; with some labelled pairs it says what it is worth.
    """
    typer.echo('loading ...')
    with _working():
        from .jobs.link import link_files
        link_files(left, right, out, known, field, (id_col, right_id_col), how, threshold, encoding, seed,
                   typer.echo)


@app.command()
def export(
    matcher: MatcherFolder,
    onnx: Annotated[bool, _option('Float32 graphs: answers as those of torch.', '--onnx')] = False,
    int8: Annotated[bool, _option('Also graphs with 8-bit weights: faster still.', '--int8')] = False,
    listings: Annotated[Path | None, _option(
        'Table of listings, with groups where they are known: those that the encoder was trained on '
        "calibrate, the others measure what int8 loses. Default: the catalogue's titles.")] = None,
    images: NewImages = None,
    max_loss: Annotated[float, _option(
        'Largest loss of int8 in row F1: above it nothing is written.')] = MAX_LOSS,
    group_col: Annotated[str, _option('Column of groups.')] = 'label_group',
    encoding: Encoding = 'utf-8',
    bs: Batch = 64,
    seed: Seed = 0,
):
    """Add faster runtimes to a saved matcher; needs the extra [onnx].

    Embeddings of --onnx are checked against those of torch; what --int8 loses in row F1 is measured on
    listings that the encoder was not trained on. `fastmatch match --runtime int8` uses them.
    """
    with _working():
        if not onnx and not int8: raise InputError('say what to export: --onnx, --int8 or both')
        from .jobs.export import export_file
        export_file(matcher, listings, images, encoding, int8=int8, max_loss=max_loss, group_col=group_col,
                    bs=bs, seed=seed, echo=typer.echo)


@app.command()
def add(
    catalogue: CatalogueFile,
    listings: Table,
    matcher: DecidedBy = None,
    images: NewImages = None,
    on_known: OnKnown = 'raise',
    on_error: OnError = 'raise',
    dry_run: DryRun = False,
    who: Who = '',
    reason: Reason = '',
    encoding: Encoding = 'utf-8',
    device: Device = None,
):
    """Add listings to a catalogue that lives: a file of groups whose numbers stay. A new file is made.

    Each listing joins a group, opens one, or brings groups together, of which the oldest keeps its number.
    After a kill the same call with --on-known skip goes on.
    """
    with _working():
        from .jobs.catalogue import add_file, open_catalogue
        with open_catalogue(catalogue, matcher, device, create=not dry_run) as opened:
            add_file(opened, listings, images, encoding=encoding, dry_run=dry_run, on_known=on_known,
                     on_error=on_error, who=who, reason=reason, echo=typer.echo)
            typer.echo(repr(opened))


@app.command()
def remove(
    catalogue: CatalogueFile,
    ids: Annotated[list[str], typer.Argument(help='Ids, or one table with a column posting_id.')],
    matcher: DecidedBy = None,
    dry_run: DryRun = False,
    who: Who = '',
    reason: Reason = '',
):
    "Take listings out of a catalogue; a group that only they held together falls apart."
    with _working():
        from .jobs.catalogue import open_catalogue, remove_listings
        with open_catalogue(catalogue, matcher) as opened:
            typer.echo(repr(remove_listings(opened, ids, who=who, reason=reason, dry_run=dry_run)))


@app.command()
def groups(catalogue: CatalogueFile, out: GroupsFile = Path('groups.csv')):
    "Write every listing of a catalogue with the number of its group."
    with _working():
        from .jobs.catalogue import Catalogue, write_table
        with Catalogue(catalogue) as opened: typer.echo(write_table(opened.groups(), out, catalogue))


@app.command()
def why(
    catalogue: CatalogueFile,
    first: Annotated[str, typer.Argument(help='Id of a listing.', show_default=False)],
    second: Annotated[str | None, typer.Argument(help='Id of another one.')] = None,
):
    "Say why a listing is in its group, or why two listings are in one group or in two."
    with _working():
        from .jobs.catalogue import Catalogue
        with Catalogue(catalogue) as opened: typer.echo(repr(opened.why(first, second)))


@app.command()
def split(
    catalogue: CatalogueFile,
    group: Annotated[int, typer.Argument(help='Number of a group.', show_default=False)],
    ids: Ids,
    dry_run: DryRun = False,
    who: Who = '',
    reason: Reason = '',
):
    "Part listings from the rest of their group; later groupings obey it."
    with _working():
        from .jobs.catalogue import Catalogue
        with Catalogue(catalogue) as opened:
            typer.echo(repr(opened.split(group, ids, who=who, reason=reason, dry_run=dry_run)))


@app.command()
def verdicts(
    catalogue: CatalogueFile,
    table: Annotated[Path | None, typer.Argument(help='To read: first, second, same (1 or 0).')] = None,
    out: Annotated[Path | None, _option('File to write: what people said so far.', '--out', '-o')] = None,
    close_calls: Annotated[
        int, _option('Write so many pairs that nobody judged, nearest to the threshold.')] = 0,
    dry_run: DryRun = False,
    who: Who = '',
    reason: Reason = '',
):
    "Read what people say of pairs, which every grouping obeys; or write it, or the pairs to ask them about."
    with _working():
        from .jobs.catalogue import Catalogue, read_verdicts, write_table
        if table is None and out is None: raise InputError('give a table to read, or --out FILE to write')
        with Catalogue(catalogue) as opened:
            if table is not None:
                said = read_verdicts(table)
                typer.echo(repr(opened.verdicts_in(said, who=who, reason=reason, dry_run=dry_run)))
            if out is not None:
                told = opened.verdicts()
                # an empty column to fill in
                if close_calls: told = opened.close_calls(close_calls).assign(same='')
                typer.echo(write_table(told, out, catalogue))


@app.command()
def undo(
    catalogue: CatalogueFile,
    event: Annotated[int, typer.Argument(help='Number of an event.', show_default=False)],
    matcher: DecidedBy = None,
    dry_run: DryRun = False,
):
    "Take an event of a catalogue back: what came goes, what went comes back, what was said counts no more."
    with _working():
        from .jobs.catalogue import open_catalogue
        with open_catalogue(catalogue, matcher) as opened:
            typer.echo(repr(opened.undo(event, dry_run=dry_run)))


@app.command()
def serve(
    matcher: MatcherFolder,
    catalogue: Annotated[Path | None, _option('A catalogue: without one only `match` is answered.')] = None,
    images: Annotated[Path | None, _option(
        "Folder of the listings' pictures, to show them; those of added listings are kept in its `uploads`."
    )] = None,
    host: Annotated[str, _option('Address; any other than a loopback one needs a key.')] = '127.0.0.1',
    port: Annotated[int, _option('0: any that is free.')] = 8000,
    key: Annotated[str | None, _option(
        'What requests must know; better in the environment as FASTMATCH_KEY, which other users can not read.'
    )] = None,
    limit: Annotated[list[str] | None, _option(
        'NAME=VALUE, several times: body, pixels, listings, batch, seconds; see fastmatch.serve.Limits.'
    )] = None,
    device: Device = None,
    runtime: Runtime = 'torch',
):
    """Serve a matcher, and a catalogue that lives: a JSON API (/openapi.json) and a page for people.

    Needs the extra [serve]. Ctrl-C lets the requests that are being answered come to their end.
    """
    # a bar for each request would be noise
    os.environ['TQDM_DISABLE'] = '1'
    with _working():
        from .serve import Limits, Settings
        from .serve import serve as run_service
        from .serve.settings import key_from
        settings = Settings(host, port, key_from(key), images, Limits.from_words(limit))
        run_service(matcher, catalogue, settings, device, runtime, typer.echo)


@app.command()
def inspect(matcher: MatcherFolder):
    """Check a saved matcher's files against their hashes, and say what it is."""
    with _working():
        from .jobs.describe import describe_matcher
        for line in describe_matcher(matcher): typer.echo(line)


def _number(option, given):
    try: return float(given)
    except ValueError: raise InputError(f"{option}={given!r}: give a number, or 'auto'") from None


def _names(separated):
    "The names in a list with commas."
    return tuple(listed_name.strip() for listed_name in separated.split(',') if listed_name.strip())


def _one_or_several(names):
    "An option that may be given several times: a single name as itself, none as None."
    return names[0] if names and len(names) == 1 else names or None


def _say_result(summary, out):
    from .match.judge.paired import summary_table
    in_words = '\n'.join(f'  {sentence}' for sentence in summary['rule_in_words'])
    typer.echo(f'\n{summary_table(summary)}\n\nthe rule:\n{in_words}\n'
               f'wrote {out}: the matcher, matches.csv, summary.json and report.html')


def _say_study(study, out):
    from .jobs.study_page import tuning_gain, write_study
    sentences, _ = tuning_gain(study)
    typer.echo(f'\n{sentences}')
    if out is None: return
    write_study(study, out)
    typer.echo(f'wrote {out}: report.html and trials.csv')
