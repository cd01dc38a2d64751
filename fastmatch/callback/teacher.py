"Knowledge distillation: a trained model's logits as the second target of each training batch."
import copy
from contextlib import contextmanager, nullcontext

import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.data.core import TfmdDL
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.torch_core import get_model
from torch import nn

from ..core import InputError, preview
from ..data.title import Tokenize
from ..losses.base import upcast
from ..models import MatchNet
from ..schedule.fit import only_validating
from .base import mixed_precision, mixing_callback, other_callback, unmixed_loss
from .heads import CrossEntropyValid, PlainValidLoss


def check_reads_teacher(
    callback,  # That brings a teacher's logits
):
    "Raise `InputError` unless the Learner's loss compares with a teacher's logits."
    loss = unmixed_loss(callback.learn)
    if getattr(loss, 'n_targets', 1) > 1: return
    raise InputError(f"{type(callback).__name__}: {type(loss).__name__} doesn't read a teacher's logits, "
                     'loss_func=Distill() does')


class Teacher(CrossEntropyValid):
    """Learning from a teacher: `classify_learner(dls, loss_func=Distill(), cbs=Teacher(teacher))`.

    The teacher reads the very inputs of each training batch, after mixing (`MixUp`, `CutMix`), in evaluation
    mode and without gradients, and its logits become the second target, which `Distill` reads
    (https://arxiv.org/abs/1503.02531). In validation there is no teacher: the loss is plain cross-entropy.

    The teacher stays as it is, is moved to the device of the model, and is not saved with the student: a
    Learner that was exported with this callback can predict, and wants a new `Teacher` to be trained further.
    Raises `InputError` where teacher and student can't go together: other classes, another tokenizer or
    normalizing of pictures, as far as the teacher is a Learner and tells.
    """
    # after mixing and after fastai's tensors have become torch's; before mixed precision enters its autocast
    order, run_valid = MixedPrecision.order - .5, False

    def __init__(
        self,
        teacher,  # Learner of `classify_learner` or fastai, or a module: inputs of a batch -> logits (n,c)
    ):
        is_learner = isinstance(teacher, Learner)
        module = teacher.model if is_learner else teacher
        if not isinstance(module, nn.Module):
            raise InputError(f'Teacher({teacher!r}): give a trained Learner, or a module that returns logits')
        if isinstance(get_model(module), MatchNet):
            raise InputError('Teacher: a model for matching returns embeddings; a teacher returns logits of '
                             'classes, as that of classify_learner')
        self._given = None  # the training loss, while validation has another
        self._teacher = teacher
        self._module = module
        self._labels = None  # the batch's targets without the teacher's

    def __getstate__(self): return {**self.__dict__, '_teacher': None, '_module': None, '_labels': None}

    def __deepcopy__(self, memo):
        copied = type(self)(self._teacher)
        copied.learn = copy.deepcopy(self.learn, memo)
        return copied

    def before_fit(self):
        super().before_fit()
        if only_validating(self.learn): return
        if self._module is None:
            raise InputError('Teacher: a teacher is not saved with its student: learn.remove_cb(Teacher), '
                             'and add another Teacher(learner) to train it further')
        check_reads_teacher(self)
        if other_callback(self, Teacher) is not None: raise InputError('two of Teacher: one at a time')
        if set(self._module.modules()) & set(self.learn.model.modules()):
            raise InputError('Teacher: it is, or shares a part with, the model that is trained: give a copy, '
                             'copy.deepcopy(learn.model)')
        if isinstance(self._teacher, Learner): _check_alike(self._teacher, self.learn)

    def before_train(self): self._module.to(next(self.learn.model.parameters()).device)

    def logits(
        self,
        inputs: tuple,  # Of the batch, as the model gets them
    ) -> torch.Tensor:  # (n,c)
        "What the teacher makes of a batch."
        precision = mixed_precision(self.learn)
        with _evaluating(self._module), torch.no_grad():
            with nullcontext() if precision is None else precision.autocast: output = self._module(*inputs)
        is_tensor = isinstance(output, torch.Tensor)
        if is_tensor and output.ndim == 2: return upcast(output.as_subclass(torch.Tensor))
        raise InputError(f'Teacher: {type(self._module).__name__} returned '
                         f'{tuple(output.shape) if is_tensor else type(output).__name__}, and not logits '
                         '(n, classes)')

    def before_batch(self):
        logits = self.logits(self.xb)
        self._labels = self.yb
        self.learn.yb = (*self.yb, logits)
        mixing = mixing_callback(self.learn)
        # of mixed rows the teacher has seen the mixture: what it says goes with both labels
        if mixing is not None: mixing.yb1 = (*mixing.yb1, logits)

    def after_batch(self):
        # metrics and others compare with labels alone
        if self._labels is not None: self.learn.yb = self._labels
        self._labels = None

    def before_validate(self):
        if other_callback(self, PlainValidLoss) is None: super().before_validate()

    def after_validate(self):
        if self._given is not None: super().after_validate()


@contextmanager
def _evaluating(module):
    "Evaluation mode for a while; each part then is in the mode that it was in."
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try: yield
    finally:
        for part, mode in modes.items(): part.training = mode


def _check_alike(teacher, student):
    "Raise `InputError` where a teacher's batches are not read like the student's, or mean other classes."
    classes = _classes_of(teacher)
    student_classes = _classes_of(student)
    if classes is not None and student_classes is not None and classes != student_classes:
        raise InputError(f"Teacher: its classes are {preview(classes)}, the student's "
                         f'{preview(student_classes)}; both need the same in the same order')
    loader = next(iter(getattr(teacher.dls, 'loaders', [])), None)
    student_loader = next(iter(getattr(student.dls, 'loaders', [])), None)
    if not (isinstance(loader, TfmdDL) and isinstance(student_loader, TfmdDL)): return
    if teacher.dls.n_inp != student.dls.n_inp:
        raise InputError(f'Teacher: it reads {teacher.dls.n_inp} inputs, the batches have '
                         f'{student.dls.n_inp}')
    if not _same_tokens(_tokenizer_of(loader), _tokenizer_of(student_loader)):
        raise InputError('Teacher: it reads token ids of another tokenizer, and gets those of the student: '
                         'give both text encoders that share a tokenizer')
    if not _same_normalizing(_normalizer_of(loader), _normalizer_of(student_loader)):
        raise InputError("Teacher: it reads pictures that are normalized in another way than the student's: "
                         'give both learners normalize=False and one Normalize in batch_tfms')


def _classes_of(learner):
    "The classes that a Learner's logits stand for, None where its dataloaders don't tell."
    vocab = getattr(learner.dls, 'vocab', None)
    if vocab is None: return None
    # those for matching hold the groups of validation behind those of training
    return list(vocab)[:getattr(learner.dls, 'n_groups', None)]


def _tokenizer_of(loader):
    "The tokenizer of a loader's titles, None where there is none."
    return next((each.tokenizer for each in loader.before_batch.fs if isinstance(each, Tokenize)), None)


def _same_tokens(tokenizer, other):
    "Whether two tokenizers, or None, make the same token ids."
    if tokenizer is other or tokenizer is None or other is None: return tokenizer is other
    if type(tokenizer) is not type(other): return False
    return not hasattr(tokenizer, 'get_vocab') or tokenizer.get_vocab() == other.get_vocab()


def _normalizer_of(loader):
    return next((each for each in loader.after_batch.fs if isinstance(each, Normalize)), None)


def _same_normalizing(normalizer, other):
    "Whether two of fastai's `Normalize`, or None, do the same."
    if normalizer is None or other is None: return normalizer is other
    pairs = ((normalizer.mean, other.mean), (normalizer.std, other.std))
    return all(ours.shape == theirs.shape and torch.allclose(ours.cpu(), theirs.cpu())
               for ours, theirs in pairs)
