"Commands that train: `demo`, `train` and `tune`."
from pathlib import Path
from typing import Annotated

import typer

from ..core import InputError
from ..jobs.options import RULES, SAMPLE_SIZE, STUDY_FILES, TRIAL, RuleChoice, Search, Training
from ..store import check_new_folder
from .program import (
    EARLIER_NAMES,
    Batch,
    Device,
    Encoding,
    Force,
    IdCol,
    ImageCol,
    Images,
    OnError,
    PhashCol,
    Seed,
    SourceCol,
    Table,
    TitleCol,
    app,
    column,
    one_or_several,
    option,
    working,
)

DEMO = Path('fastmatch-demo')
TRAINING = Training()
SEARCH = Search()
SPACE = ','.join(SEARCH.space)

ImageArch = Annotated[str, option('Image encoder: timm name, folder, or weights file.')]
TextArch = Annotated[str, option('Title encoder: Hugging Face name, or folder.')]
Size = Annotated[int, option('Side of the images in pixels; on a CPU 128 is three times as fast as 224.')]
Aug = Annotated[str, option('Augmentation: none, flip, light, colour, recolour, strong, randaugment.')]
Workers = Annotated[int, option('Processes that read images.')]
Epochs = Annotated[int, option('Rounds over the training listings.')]
Folds = Annotated[int, option('Folds to make where the table has none; one of them is held out.')]
ValidFold = Annotated[int, option('Fold held out for choosing and judging the rule.')]
Rate = Annotated[str, option("Learning rate, spread over encoders and heads; 'auto' asks lr_find.")]
RuleKind = Annotated[str, option(
    f'How the rule is chosen: {", ".join(RULES)}. ladder: a step at a time, each kept only where it adds.')]
Matchless = Annotated[
    float | None,
    option(
        'Share of held-out groups whose listings lose their mates in judging; default: that of the table.'
    ),
]
Out = Annotated[Path, option('Folder to write: it is there whole or not at all.', show_default=False)]
GroupCol = Annotated[str | None, column('groups')]
FoldCol = Annotated[str | None, column('folds')]
Fields = Annotated[list[str] | None, option(
    "A further column to compare, NAME:KIND[:UNIT]; kinds: text, code, category, number. May be given "
    "several times; 'auto' takes all that are recognised.", '--field')]

Study = Annotated[str, option('Name of the study; the same call again goes on with it.')]
Storage = Annotated[str, option(
    "Where studies are kept: a file .db (SQLite) or .log (Optuna's journal), or any database's URL.")]
Trials = Annotated[int, option(
    'Finished trials that the study is to hold, earlier calls and other machines included.')]
Jobs = Annotated[int, option('Processes on this machine; the same call on another adds more.')]
Space = Annotated[str, option(
    'What to search, by name: margin, scale, loss, opt, lr, wd, eps, schedule, rho, image_arch, text_arch, '
    'image_pool, pool.')]
TrialEpochs = Annotated[int, option('Rounds over the training listings in a whole trial.')]
Monitor = Annotated[str, option(
    'The score that the study improves, on the inner validation fold: recall@1, map@r, row_f1_max.')]
Sampler = Annotated[str, option('tpe, cmaes, gp or random.')]
Pruner = Annotated[str, option('hyperband, asha, median or none.')]
StudyOut = Annotated[Path | None, option('Folder for report.html and trials.csv.')]
TestFold = Annotated[int, option(
    'Fold put aside for the reported score; of the others one validates, and the rest trains.')]


@app.command()
def demo(
    out: Annotated[Path, option('Folder to write; an earlier demo in the default one is replaced.')] = DEMO,
    force: Force = False,
    quick: Annotated[bool, option(
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
    with working():
        import pandas as pd

        from ..data.demo import demo_path
        from ..jobs.train import run
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
    with working():
        from ..jobs.listings import training_listings
        learning_rate = 'auto' if lr == 'auto' else _number('lr', lr)
        column_names = dict(id_col=id_col, image_col=image_col, title_col=one_or_several(title_col),
                            group_col=group_col, fold_col=fold_col, phash_col=phash_col,
                            source_col=source_col)
        listing_table, columns = training_listings(listings, encoding, images, column_names, typer.echo,
                                                   field or ())
        training = Training(image_arch, text_arch, size, aug, epochs, bs, folds, seed, on_error, workers,
                            device)
        from ..jobs.train import run
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
    with working():
        if out is not None: check_new_folder(out, lambda filename: filename in STUDY_FILES, force)
        from ..jobs.listings import training_listings
        column_names = dict(id_col=id_col, image_col=image_col, title_col=one_or_several(title_col),
                            group_col=group_col, fold_col=fold_col, phash_col=phash_col,
                            source_col=source_col)
        listing_table, columns = training_listings(listings, encoding, images, column_names, typer.echo,
                                                   field or ())
        training = Training(image_arch, text_arch, size, aug, epochs, bs, folds, seed, on_error, workers,
                            device)
        search = Search(study, storage, n_trials, jobs, _names(space), monitor, sampler,
                        None if pruner == 'none' else pruner)
        from ..jobs.tune import tune_listings
        finished = tune_listings(listing_table, images or '.', columns, search=search, training=training,
                                 test_fold=test_fold, echo=typer.echo)
        _say_study(finished, out)


def _number(option, given):
    try: return float(given)
    except ValueError: raise InputError(f"{option}={given!r}: give a number, or 'auto'") from None


def _names(separated):
    "The names in a list with commas."
    return tuple(listed_name.strip() for listed_name in separated.split(',') if listed_name.strip())


def _say_result(summary, out):
    from ..match.judge.paired import summary_table
    in_words = '\n'.join(f'  {sentence}' for sentence in summary['rule_in_words'])
    typer.echo(f'\n{summary_table(summary)}\n\nthe rule:\n{in_words}\n'
               f'wrote {out}: the matcher, matches.csv, summary.json and report.html')


def _say_study(study, out):
    from ..jobs.study_page import tuning_gain, write_study
    sentences, _ = tuning_gain(study)
    typer.echo(f'\n{sentences}')
    if out is None: return
    write_study(study, out)
    typer.echo(f'wrote {out}: report.html and trials.csv')
