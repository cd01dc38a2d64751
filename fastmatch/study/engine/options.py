"How a study is kept and run, as one object: the tuning functions take its fields as keywords."
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from ...core import unknown_option


@dataclass(frozen=True)
class StudyOptions:
    "How a study is kept and run; `tune_rule` and `tune_head` take each field as a keyword."
    study_name: str = 'study'  # The same name in the same storage goes on with the study
    storage: Any = None  # Where trials are kept, see `open_storage`: a file, a database's URL; None: memory
    sampler: Any = 'tpe'  # 'tpe', 'cmaes', 'gp', 'random', or an Optuna sampler
    seed: int = 0  # Of the sampler, and of all that is drawn in a trial
    echo: Callable | None = None  # Called with what there is to tell of each trial that ended


@dataclass(frozen=True)
class TrainingStudyOptions(StudyOptions):
    "How a study of whole trainings is kept and run; `tune_learner` takes each field as a keyword."
    study_name: str = 'tune'
    storage: Any = 'fastmatch-studies.db'
    echo: Callable | None = print
    pruner: Any = 'hyperband'  # None, 'hyperband', 'asha', 'median', or an Optuna pruner
    max_failed: float = .5  # Stop when more than this share of this call's trials failed, 5 at least
    timeout: float | None = None  # Seconds after which no trial is begun
    about: dict | None = None  # What else must be the same to continue the study, as for `open_study`


def read_options(
    function: Callable,  # Whose keywords they are, for the message
    keywords: dict,  # That the function was given beside its own parameters
    *defaults,  # Dataclass objects: a keyword replaces the field of its name
) -> list:  # One object for each of `defaults`
    "The options that a call means; an unknown keyword raises `InputError` with the nearest known one."
    keywords = dict(keywords)
    filled_options = []
    known_names = list(inspect.signature(function).parameters)
    for default in defaults:
        field_names = [field.name for field in fields(default)]
        known_names += field_names
        given_fields = {option: keywords.pop(option) for option in field_names if option in keywords}
        filled_options.append(replace(default, **given_fields))
    for keyword, given in keywords.items():
        raise unknown_option(keyword, given, known_names, function.__name__)
    return filled_options
