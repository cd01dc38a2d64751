"Objectives of pretraining by name, made for a net with weights and options."
from inspect import Parameter, signature

from torch import nn

from ..core import InputError, unknown_option
from .base import Objectives, check_weights
from .itc import ITC
from .itm import ITM
from .mfm import MFM
from .mlm import MLM

OBJECTIVES = {'mlm': MLM, 'mfm': MFM, 'itm': ITM, 'itc': ITC}


def make_objectives(
    weights: dict,  # Name in `OBJECTIVES` -> weight in the sum, 0 or above; those of 0 are left out
    net: nn.Module,  # With `Streams`, which is to be trained
    tokenizer,  # Of its text encoder
    options: dict | None = None,  # Name -> keyword arguments of that objective: {'itc': {'queue': 1024}}
) -> Objectives:
    """Make the objectives that are named, for one net.

    Raises `InputError` for an unknown objective or option, for weights that are not numbers, below 0 or all
    0, and where the net or the tokenizer does not allow an objective.
    """
    check_weights(weights)
    options = {} if options is None else options
    if not isinstance(options, dict): raise InputError(f'options={options!r}: give a dict by objective')
    for name, weight in weights.items():
        if name not in OBJECTIVES: raise unknown_option(name, weight, list(OBJECTIVES), 'objectives')
    for name, own_options in options.items():
        if name not in OBJECTIVES: raise unknown_option(name, own_options, list(OBJECTIVES), 'options')
        if name not in weights:
            raise InputError(f'options are given for {name!r}, which has no weight; the objectives are '
                             f'{list(weights)}')
        _check_options(name, own_options)
    made = {name: OBJECTIVES[name](net, tokenizer, **options.get(name, {}))
            for name, weight in weights.items() if weight > 0}
    return Objectives(made, {name: weights[name] for name in made})


def _check_options(name, own_options):
    "Raise `InputError` unless an objective has options of these names."
    if not isinstance(own_options, dict):
        raise InputError(f'options of {name}: {own_options!r}; give a dict, e.g. '
                         f"{{{name!r}: {{'rate': .15}}}}")
    known = [each.name for each in signature(OBJECTIVES[name]).parameters.values()
             if each.kind is Parameter.KEYWORD_ONLY]
    for option, value in own_options.items():
        if option not in known: raise unknown_option(option, value, known, name)
