"Callbacks that a Learner over listings can't train with: told before the training, and what does instead."
from fastai.callback.core import Callback, GatherPredsCallback, TrainEvalCallback
from fastai.callback.fp16 import MixedPrecision, ModelToHalf, NonNativeMixedPrecision
from fastai.callback.mixup import CutMix, MixHandler, MixUp
from fastai.callback.rnn import ModelResetter, RNNCallback, RNNRegularizer
from fastai.learner import Recorder
from fastcore.foundation import L

from ..core import InputError
from .heads import HeadLabels, PlainValidLoss
from .loggers import logger_problem, mend_wandb
from .mean_teacher import MeanTeacher
from .mix import MixImages
from .scoring import CheckedTrackers, GroupRates, ValidScores
from .second_pass import SecondPass
from .soft import LikeliestTargets
from .stored_teacher import StoredTeacher, TeacherEmbeddings
from .teacher import Teacher
from .trained_on import TrainedOn
from .views import AverageViews

# Of these a second one counts, scores or scales what the first has already
ONE_EACH = (TrainEvalCallback, Recorder, MixedPrecision, ValidScores, CheckedTrackers, TrainedOn, HeadLabels,
            PlainValidLoss, GroupRates, LikeliestTargets, Teacher, MeanTeacher, StoredTeacher,
            TeacherEmbeddings)
BASES = {MixHandler: 'MixUp() or CutMix()', MixImages: 'MixUp() or CutMix()', SecondPass: 'e.g. SAM()'}
HALF = 'learn.to_fp16() trains in half precision'
RECURRENT = 'it is for recurrent language models, which no encoder here is: leave it out'


def check_callbacks(
    learner,  # `MatchLearner` or `ClassifyLearner`
    cbs,  # Callbacks of the training to come, beside those that the learner has; None: no more
):
    "Raise `InputError` for a callback that would fail in training, or do silently what nobody asked for."
    mend_wandb()
    callbacks = [*learner.cbs, *map(_made, L(cbs))]
    for callback in callbacks:
        problem = _problem(learner, callback, callbacks)
        if problem: raise InputError(f'{type(callback).__name__}: {problem}')
    wants_teacher = getattr(learner.loss_func, 'n_targets', 1) > 1
    if wants_teacher and not any(isinstance(callback, Teacher | StoredTeacher) for callback in callbacks):
        raise InputError(f"{type(learner.loss_func).__name__}: it compares with a teacher's logits, which a "
                         'callback brings: add Teacher(learner) to the cbs')


def _made(callback):
    "A callback that was given as its class made, as fastai makes it."
    if not isinstance(callback, type): return callback
    try: return callback()
    except TypeError as error:
        name = callback.__name__
        raise InputError(f'{name}: that is the class, give an instance, {name}(...) ({error})') from error


def _problem(learner, callback: Callback, callbacks: list) -> str | None:
    "What is wrong with a callback, and what to do instead; None for nothing."
    kind = type(callback)
    if kind in BASES: return f'that is what others are made of, give {BASES[kind]}'
    if isinstance(callback, ValidScores) and not hasattr(learner, 'embeddings'):
        return 'it scores embeddings, which match_learner makes: leave it out'
    if isinstance(callback, AverageViews):
        return 'it is for predictions: call learn.predictions(tta=...), or learn.embeddings(tta=...)'
    if isinstance(callback, ONE_EACH): return _doubled(callback, callbacks)
    if isinstance(callback, GatherPredsCallback):
        return 'it gathers what a validation predicts, not a training: call learn.get_preds()'
    if isinstance(callback, RNNCallback | RNNRegularizer): return RECURRENT
    if isinstance(callback, ModelResetter) and not hasattr(learner.model, 'reset'): return RECURRENT
    if isinstance(callback, ModelToHalf | NonNativeMixedPrecision): return _half(learner, callbacks)
    if isinstance(callback, MixUp | CutMix): return _mixed(learner, callback)
    return logger_problem(learner, callback)


def _doubled(callback, callbacks):
    kind = next(kind for kind in ONE_EACH if isinstance(callback, kind))
    alike = [other for other in callbacks if isinstance(other, kind)]
    # rates without a factor are left to another one
    if sum(bool(getattr(other, 'mults', True)) for other in alike) < 2: return None
    if kind is GroupRates: return "this learner has one already, set it by lr_mult={'head': 5., ...}"
    return 'this learner has one already, leave it out'


def _half(learner, callbacks):
    is_whole = all(any(isinstance(callback, kind) for callback in callbacks)
                   for kind in (ModelToHalf, NonNativeMixedPrecision))
    if not is_whole: return f'it is one of a pair of callbacks and does nothing good alone: {HALF}'
    device = learner.dls.device
    if device is None or device.type != 'cuda': return f'it needs a GPU, and the dls are on {device}: {HALF}'
    return None


def _mixed(learner, callback):
    "fastai's own would mix the ids of tokens too, or keep the title of the picture with the smaller share."
    if isinstance(callback, CutMix) and getattr(learner.dls, 'frames', 1) > 1:
        return ("fastai's own mixes the first picture of an item alone: give this package's, "
                'fastmatch.callback.mix.CutMix()')
    if learner.dls.columns.title is None: return None
    return ("fastai's own is for pictures alone, and these listings have titles: give this package's, "
            f'fastmatch.callback.mix.{type(callback).__name__}()')
