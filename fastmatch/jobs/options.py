"The options that jobs and the command line share, and the one place where their defaults are set."
from dataclasses import dataclass, fields, replace
from inspect import signature

from ..core import IMAGE_ARCH, PICTURE_SIZE, TEXT_ARCH, InputError, check_device, unknown_option
from ..data.columns import FASTAI_NAMES, Columns, keywords_of_roles

SAMPLE_SIZE = 104  # pixels, for the embedded sample: its pictures have 64

RULES = ('ladder', 'plain', 'tune')  # ways to choose a rule: what `--rule` takes

MAX_LOSS = .005  # in row F1: what an export to int8 may lose

STUDY_FILES = ('report.html', 'trials.csv')  # what `fastmatch tune --out` writes


@dataclass(frozen=True)
class Training:
    "How encoders are trained: the same for one training and for each trial of a study."
    image_arch: str = IMAGE_ARCH  # Image encoder: timm name, folder or weights file
    text_arch: str = TEXT_ARCH  # Title encoder: Hugging Face name or folder
    size: int = PICTURE_SIZE  # Side of the pictures in pixels
    aug: str = 'colour'  # Augmentation preset, as `augs` takes it
    epochs: int = 8  # Rounds over the training listings
    bs: int = 64  # Listings a batch
    n_folds: int = 5  # Folds to make where the table has none
    seed: int = 0  # Of folds, weights, batches and halvings
    on_error: str = 'raise'  # 'raise', or 'skip' listings that can't be used
    num_workers: int = 0  # Processes that read images
    device: str | None = None  # 'cpu', 'cuda', ...; default fastai's choice

    def check(
        self,
        least_folds: int = 2,  # Fewest folds that the job can do with
    ):
        "Raise `InputError` for a number that is too small, or a device that torch can't use."
        check_least(epochs=(self.epochs, 1), size=(self.size, 8), bs=(self.bs, 2),
                    n_folds=(self.n_folds, least_folds), num_workers=(self.num_workers, 0))
        if self.device is not None: check_device(self.device)


TRIAL = Training(epochs=4)  # a trial is shorter than a training for use


@dataclass(frozen=True)
class Search:
    "How a study of trainings searches, and where it is kept."
    name: str = 'tune'  # Of the study; the same call again goes on with it
    storage: str = 'fastmatch-studies.db'  # Where it is kept, as for `open_study`
    n_trials: int = 20  # Finished trials that the study is to hold
    jobs: int = 1  # Processes on this machine; others may work on the same study elsewhere
    space: tuple = ('margin', 'scale', 'lr')  # What to search: names for `search_space`
    monitor: str = 'recall@1'  # Value that it improves; also 'map@r', 'row_f1_max'
    sampler: str = 'tpe'  # As for `open_study`
    pruner: str | None = 'hyperband'  # As for `open_study`


@dataclass(frozen=True)
class RuleChoice:
    "How the rule is chosen, and how many listings without a match it is judged under."
    rule: str = 'ladder'  # 'ladder': a step at a time; 'plain': fusion and one threshold; 'tune': by a study
    # Share of the held-out groups whose mates are taken out of the pool, from 0 to 1; None: none is taken
    # out, so that as many listings have no match as in the table
    matchless: float | None = None
    n_trials: int = 100  # Of each study, for 'tune'
    seed: int | None = None  # Of halvings and draws; None: that of the training

    def check(self):
        "Raise `InputError` for an unknown way to choose, a share outside 0 to 1, or no trial."
        if self.rule not in RULES: raise InputError(f'rule={self.rule!r}: choose one of {", ".join(RULES)}')
        check_least(n_trials=(self.n_trials, 1))
        if self.matchless is None: return
        is_number = isinstance(self.matchless, (int, float)) and not isinstance(self.matchless, bool)
        if not is_number or not 0 <= self.matchless <= 1:
            raise InputError(f'matchless={self.matchless!r}: a share of the groups, from 0 to 1')


def check_least(
    **numbers: tuple,  # Name -> (value, least)
):
    "Raise `InputError` for the first value that is below its least."
    for option, (value, least) in numbers.items():
        if value < least: raise InputError(f'{option}={value}: give {least} or more')


def with_keywords(
    options,  # Dataclass of options
    keywords: dict,  # Of a call: those that name fields are taken out
):  # A copy of `options`
    "The options with the fields that a call gives by keyword."
    given_options = [field.name for field in fields(options) if field.name in keywords]
    return replace(options, **{option: keywords.pop(option) for option in given_options})


def refuse_unknown(
    keywords: dict,  # That nothing has taken
    job,  # The function that was called
    *options,  # Dataclasses whose fields it takes by keyword
):
    "Raise `InputError` for a keyword that names no option, with the nearest one that does."
    if not keywords: return
    keyword, given = next(iter(keywords.items()))
    field_names = [field.name for option_class in options for field in fields(option_class)]
    known_options = [*signature(job).parameters, *field_names, *keywords_of_roles(), *FASTAI_NAMES]
    raise unknown_option(keyword, given, known_options)


def take_columns(
    columns: Columns | dict | None,  # As a job was given them
    keywords: dict,  # Of the call: those that name columns are taken out
) -> Columns:
    "The columns that a call means, by object or by keyword."
    return Columns.resolve(columns, Columns.take_from(keywords))
