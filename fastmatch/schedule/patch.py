"""The schedules as methods of a Learner: a mixin for our own Learners, and one function that gives them to
fastai's.

Importing this package changes nothing in fastai. Only `patch_schedules`, which `fastmatch.all` calls, does:
it replaces `Learner.fit_flat_cos` and adds the other methods of `ScheduledFits` to every Learner of the
process.
"""
from fastai.learner import Learner
from fastcore.basics import patch_to

from . import batches, fit, recipes


class ScheduledFits:
    "Mixin for subclasses of `Learner`, named before it: the functions of this folder that take a learner."
    fit_curve = fit.fit_curve
    fit_flat_cos = fit.fit_flat_cos
    fit_cos = fit.fit_cos
    fit_steps = fit.fit_steps
    fit_exp = fit.fit_exp
    fit_cycles = fit.fit_cycles
    fit_plateau = fit.fit_plateau
    fit_head_first = recipes.fit_head_first
    fit_gradual = recipes.fit_gradual
    largest_bs = batches.largest_bs
    noise_scale = batches.noise_scale


def patch_methods(
    mixin: type,  # Class whose own public methods are functions that take a learner
):
    "Give every fastai `Learner` of this process the methods of a mixin."
    for method_name, function in vars(mixin).items():
        if not method_name.startswith('_'): patch_to(Learner)(function)


def patch_schedules():
    "Give every fastai `Learner` of this process the methods of `ScheduledFits`; `fit_flat_cos` is then ours."
    patch_methods(ScheduledFits)
