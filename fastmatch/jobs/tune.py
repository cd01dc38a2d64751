"The tuning job: a table of listings in, a study of trainings out, judged on a fold that it never saw."
from dataclasses import replace

from ..core import seed_everything
from ..data.columns import Columns
from ..data.read import check_listings, join_titles
from ..data.split import part_unlabelled, valid_split
from ..learner.base import check_one_batch
from ..study import learner_maker, search_space, tune_learner
from .options import TRIAL, Search, Training, check_least, refuse_unknown, take_columns, with_keywords
from .processes import helpers
from .train import loaders, monitors

ENCODERS = ('image_arch', 'text_arch')  # fixed for all trials unless they are searched


def split_off(
    listings,  # Listings with groups: DataFrame
    image_folder,  # Folder of the images
    columns: Columns,  # Of the table
    test_fold: int = 0,  # Which fold is put aside
    n_folds: int = 5,  # Folds to make where the table has none
    seed: int = 0,  # Of the folds that are made
    on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
) -> tuple:  # (listings to train and validate on, listings put aside): DataFrames
    "Put a fold aside; no group, and no picture, is on both sides. Listings without a group are left out."
    listings, columns = join_titles(listings, columns)
    hashed = columns.phash is None and columns.image is not None
    checked = check_listings(listings, image_folder, columns, on_error=on_error, phash=hashed,
                             unlabelled=True)
    labelled, _, has_group = part_unlabelled(checked.df, columns.group)
    hashes = None if checked.phash is None else checked.phash[has_group]
    is_aside, _ = valid_split(labelled, test_fold, n_folds=n_folds, seed=seed, columns=columns,
                              path=image_folder, phash=hashes)
    return labelled[~is_aside].reset_index(drop=True), labelled[is_aside].reset_index(drop=True)


def tune_listings(
    df,  # Listings with groups: DataFrame
    path='.',  # Folder of the images
    columns: Columns | None = None,  # Of the table; default the competition's names, without folds
    *,
    search: Search | None = None,  # Name of the study, trials, what is searched and how; default `Search()`
    training: Training | None = None,  # How each trial trains: encoders, picture size, ...; default `TRIAL`
    test_fold: int = 0,  # Put aside for the reported score; of the others one validates the trials
    echo=print,  # Called with a line of text at each stage of the work
    **options,  # Fields of `Search`, `Training` and `Columns` by keyword: `n_trials=60`, `epochs=3`, ...
):  # The Optuna study
    "Search for what trains best on these listings: many short trainings, divided among `jobs` processes."
    columns = take_columns(columns, options)
    search = with_keywords(search or Search(), options)
    training = with_keywords(training or TRIAL, options)
    refuse_unknown(options, tune_listings, Search, Training)
    check_least(jobs=(search.jobs, 1), n_trials=(search.n_trials, 1))
    training.check(least_folds=3)
    space = search_space(*search.space)
    seed_everything(training.seed)
    echo(f'reading {len(df)} listings ...')
    remaining, test_listings = split_off(df, path, columns, test_fold, training.n_folds, training.seed,
                                         training.on_error)
    dls = _inner_loaders(remaining, path, columns, training, test_fold)
    check_one_batch(dls)
    echo(f'  {len(dls.train_df)} to train on, {len(dls.valid_df)} to score trials on, '
         f'{len(test_listings)} put aside')
    encoders = {option: getattr(training, option) for option in ENCODERS if option not in space}
    make_learner = learner_maker(dls, metrics=monitors(), **encoders)
    arguments = dict(df=df, path=path, columns=columns, training=training, test_fold=test_fold,
                     search=replace(search, jobs=1))
    with helpers(search.jobs, tune_listings, arguments) as start_helpers:
        def make_first(trial):
            # only now: an error in the table or the study is reported once, not by each process
            start_helpers()
            return make_learner(trial)
        return tune_learner(
            make_first, space, search.n_trials, epochs=training.epochs, monitor=search.monitor,
            test=test_listings, study_name=search.name, storage=search.storage, sampler=search.sampler,
            pruner=search.pruner, seed=training.seed, about=_about(dls, training, space), echo=echo)


def _inner_loaders(remaining, image_folder, columns, training, test_fold):
    "Loaders over the listings that are left, one fold of them held out."
    folds_left = [] if columns.fold is None else sorted(set(remaining[columns.fold]) - {test_fold})
    # with one fold only, new ones are made
    if len(folds_left) < 2:
        columns = replace(columns, fold=None)
        folds_left = [0]
    return loaders(remaining, image_folder, columns, training, folds_left[0],
                   n_folds=max(2, training.n_folds - 1))


def _about(dls, training, space):
    "What a stored study must agree in to be resumed: trials that were trained otherwise can't be compared."
    encoders = {option: str(getattr(training, option)) for option in ENCODERS if option not in space}
    return {**encoders, 'size': training.size, 'aug': training.aug, 'bs': training.bs,
            'modalities': [modality for modality in ('image', 'title') if getattr(dls.columns, modality)],
            'listings': [len(dls.train_df), len(dls.valid_df)]}
