"""Mean teacher: on items without labels a model is asked to say what the average of its own weights says.

Student and teacher see each item under another augmentation and another draw of dropout, and what they say is
brought together. https://arxiv.org/abs/1703.01780
"""
import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from fastai.torch_core import to_device
from torch.func import functional_call

from ..core import HeadOutput, InputError, auto_scale, preview
from ..match.cells import is_among
from .averaging import EMA
from .base import heads_wanting_labels, other_callback
from .extra_term import ExtraTerm
from .state import preserved_randomness

DISTANCES = 'probabilities', 'embeddings'


def ramp_up(
    progress: float,  # Share of the ramp that is done, 0 or above
) -> float:  # exp(-5) at 0, 1 from 1 on
    "The sigmoid-shaped ramp of the paper: exp(-5 (1 - progress)^2)."
    return math.exp(-5 * (1 - min(1., max(0., progress)))**2)


def consistency(
    student,  # What a model in training returned: logits (n,c), `HeadOutput`, or a dict of them by head
    teacher,  # The same of the teacher, for the same items
    distance: str,  # 'probabilities' or 'embeddings'
) -> torch.Tensor:  # A number
    """How far what two models say is apart, the mean over items and heads.

    'probabilities': the sum over the classes of the squared difference, 0 to 2. The paper takes the mean over
    the classes: of ten classes, its weight of 100 is one of 10 here. 'embeddings': 1 - cosine, 0 to 2.
    """
    if isinstance(student, dict):
        return sum(consistency(student[name], teacher[name], distance) for name in student) / len(student)
    if distance == 'embeddings':
        if not isinstance(student, HeadOutput):
            raise InputError(f"distance='embeddings': the model returned {type(student).__name__}, which has "
                             "none; choose 'probabilities'")
        return (1 - F.cosine_similarity(student.emb.float(), teacher.emb.float())).mean()
    ours, theirs = _logits(student).float().softmax(1), _logits(teacher).float().softmax(1)
    return (ours - theirs).square().sum(1).mean()


def _logits(output):
    if not isinstance(output, HeadOutput): return output
    return output.cos * auto_scale(output.cos.shape[1])


class MeanTeacher(ExtraTerm):
    """Consistency with the teacher on items of a second loader, in each training step: `cbs=[EMA(.99),
    MeanTeacher()]`. The teacher's weights are those of `EMA`, and no gradient reaches it.

    Each step draws a batch from the second loader twice, so that its random transforms differ, and passes it
    through student and teacher, both in training mode with dropout of their own: a step costs about two and a
    half as much. The weighted term is part of the loss, and shown as `consistency`.

    `Resume` goes on exactly. Raises `InputError` beside what passes a batch forward and backward twice
    (`SAM`, `FGM`), for heads that read labels, objectives of pretraining, and items of the validation.
    """
    term_name = 'consistency'

    def __init__(
        self,
        # `DataLoader` of the items, with labels or without, which are not read; None: all items of the
        # Learner's `dls`, labelled or not, but those of the validation
        dl=None,
        # Of the term, once the ramp is done. On 47 classes of clips 10 cost .10 macro-F1, 1 nothing clear
        weight: float = 1.,
        ramp: float = .3,  # Share of training during which the weight rises
        # See `consistency`; None: 'embeddings' for matching, otherwise 'probabilities'
        distance: str | None = None,
        bs: int | None = None,  # Items in a batch of the second loader; None: as many as it has
        seed: int = 0,  # Of the order of the items
    ):
        if not 0 <= weight < math.inf: raise InputError(f'weight={weight}: 0 or above')
        if not 0 <= ramp <= 1: raise InputError(f'ramp={ramp}: from 0 to 1')
        if distance not in (None, *DISTANCES):
            raise InputError(f'distance={distance!r}: choose one of {list(DISTANCES)}')
        if bs is not None and bs < 2: raise InputError(f'bs={bs}: 2 or more')
        self.dl = dl
        self.weight = weight
        self.ramp = ramp
        self.distance = distance
        self.bs = bs
        self.seed = seed
        self._views = self._average = None

    # an exported Learner holds no items, and no weights twice
    def __getstate__(self): return {**self.__dict__, 'dl': None, '_views': None, '_average': None}

    def begin_fit(self):
        self._average = self._checked_average()
        # new loaders draw random numbers, and training goes on as it would without them
        with preserved_randomness(): self._views = TwoViews(self._loader(), self.seed)
        is_matching = hasattr(self.learn, 'embeddings')
        self._distance = self.distance or ('embeddings' if is_matching else 'probabilities')

    def _checked_average(self):
        "The Learner's `EMA`; `InputError` where there is none, or for what can't go together."
        average = other_callback(self, EMA)
        if average is None: raise InputError('MeanTeacher: its teacher is the average of EMA: add EMA(.99)')
        if heads_wanting_labels(self.learn.model):
            raise InputError('MeanTeacher: the head reads the labels of a batch, and these items have none: '
                             'take a CosineHead or nn.Linear')
        if getattr(self.learn.model, 'objectives', None) is not None:
            raise InputError('MeanTeacher: objectives of pretraining go on beside the loss: leave out one of '
                             'them')
        return average

    def _loader(self):
        "The second loader, with what the model's encoders read."
        loader = self.dl
        if loader is None:
            if not hasattr(self.learn.dls, 'without_targets'):
                raise InputError('MeanTeacher: give the loader of the items, dl')
            loader = self.learn.dls.without_targets(without_valid=True).train
        self._refuse_valid(loader)
        inputs = getattr(self.learn, 'encoder_inputs', None)
        if inputs is not None: loader = inputs.fit_loader(loader)
        bs = self.bs or min(loader.bs, self.learn.dls.train.bs)
        if (loader.n or 0) < bs:
            raise InputError(f'MeanTeacher: {loader.n} items do not fill a batch of {bs}')
        return loader.new(bs=bs, shuffle=True, drop_last=True, **_without_sampler(loader))

    def _refuse_valid(self, loader):
        "Raise `InputError` where the loader holds items of the Learner's validation."
        columns = getattr(self.learn.dls, 'columns', None)
        items = getattr(loader, 'items', None)
        if columns is None or not hasattr(items, 'columns') or columns.id not in items.columns: return
        valid_ids = self.learn.dls.valid_df[columns.id]
        held = items[columns.id][is_among(items[columns.id], valid_ids)]
        if len(held):
            raise InputError(f'MeanTeacher: dl holds {len(held)} items of the validation: {preview(held)}')

    def before_train(self):
        super().before_train()
        self._views.start_epoch(self.epoch)

    def term(self):
        ours, theirs = self._views.next_batches(len(self.learn.xb), self._device())
        model = self.learn.model
        student = model(*ours)
        tensors = {**dict(model.named_buffers()), **self._average.average_by_name()}
        # BatchNorm moves its statistics in place, and those of the average follow the student's alone
        for name, _ in model.named_buffers(): tensors[name] = tensors[name].clone()
        with torch.no_grad(): teacher = functional_call(model, tensors, theirs)
        progress = self.pct_train / self.ramp if self.ramp else 1.
        return self.weight * ramp_up(progress) * consistency(student, teacher, self._distance)

    def _device(self): return next(self.learn.model.parameters()).device

    def after_fit(self):
        super().after_fit()
        self._views = self._average = None


class TwoViews:
    """Batches of the same items, twice each: random transforms of the loader draw anew for the second.

    The order of an epoch depends on the seed and its number alone, so that training resumes exactly.
    """
    def __init__(
        self,
        loader,  # fastai's, shuffled, without an incomplete batch
        seed: int,
    ):
        self.loaders = loader, loader.new(**_without_sampler(loader))
        self.seed = seed
        for each in self.loaders: each.shuffle_fn = self._in_order

    def _in_order(self, indices):
        order = np.random.default_rng([self.seed, self.epoch, self.passes]).permutation(len(indices))
        return [indices[place] for place in order]

    def start_epoch(
        self,
        epoch: int,  # Its number in the fit
    ):
        "Begin an order of its own."
        self.epoch = epoch
        self.passes = 0
        self._start_pass()

    def _start_pass(self):
        for number, each in enumerate(self.loaders):
            each.rng = random.Random(f'{self.seed} {self.epoch} {self.passes} {number}')
        self._pairs = zip(*self.loaders)

    def next_batches(
        self,
        n_inputs: int,  # Inputs of a batch; the rest are targets
        device,  # Where the model is
    ) -> tuple[tuple, tuple]:
        "The inputs of the next items, in both views; from the start where the loader is at its end."
        pair = next(self._pairs, None)
        if pair is None:
            self.passes += 1
            self._start_pass()
            pair = next(self._pairs)
        return tuple(tuple(_plain(to_device(part, device)) for part in batch[:n_inputs]) for batch in pair)


def _plain(part):
    "fastai's subclasses of tensors as torch's."
    return part.as_subclass(torch.Tensor) if isinstance(part, torch.Tensor) else part


def _without_sampler(loader):
    "A sampler would draw items in an order of its own."
    return {'sampler': None} if hasattr(loader, 'sampler') else {}
