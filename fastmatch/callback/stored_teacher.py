"""Learning from what teachers said of the training items before: logits as a second target, or embeddings and
the similarities of a batch's items as a term of the loss.

The teacher is asked once, and need not read what the student reads: a model of pictures can teach one of
titles. `semi/distil.py` makes the outputs.
"""
import numpy as np
import torch
import torch.nn.functional as F
from fastai.callback.mixup import MixHandler
from torch import nn

from ..core import HeadOutput, InputError, preview
from ..data.outputs import TeacherOutputs
from ..schedule.fit import only_validating
from .base import SkippableCallback, other_callback
from .extra_term import ExtraTerm
from .mining import HardMining
from .state import DrawnRows
from .teacher import Teacher, check_reads_teacher


class OutputsOfBatch:
    "What a teacher said of the items of each training batch, found by the rows that the loader draws."
    def __init__(
        self,
        learn,  # Learner of this package, whose `dls` know the ids of their items
        outputs: TeacherOutputs,
        values: np.ndarray,  # (n,d), a row for each of the outputs' ids
    ):
        dls = learn.dls
        if not hasattr(dls, 'train_df'):
            raise InputError('outputs of a teacher are found by the ids of items: make dls with from_df')
        outputs.refuse_leaks(dls.valid_df[dls.columns.id])
        rows = outputs.rows_of(dls.train_df[dls.columns.id])
        self.values = torch.from_numpy(values[rows])
        self.loader = dls.train
        self.drawn = None

    def start(self):
        "Note what the loader draws, from the next epoch on."
        self.close()
        self.drawn = DrawnRows(self.loader)

    def of_batch(
        self,
        number: int,  # Of the batch in its epoch
        device,  # Where the tensors are wanted
    ) -> torch.Tensor:  # float32 (n,d)
        "The values of a batch's items."
        return self.values[self.drawn.rows(number)].to(device)

    def close(self):
        "Leave the loader as it was found."
        if self.drawn is not None: self.drawn.close()
        self.drawn = None


class StoredTeacher(SkippableCallback):
    """A teacher's logits, stored by item, as the second target of each training batch: `classify_learner(dls,
    loss_func=Distill(), cbs=StoredTeacher(outputs))`.

    As `Teacher`, but the teacher said it before, of the items as they are: augmentations don't change it, and
    a mixed item has what was said of both its halves. In validation the loss is plain cross-entropy.
    """
    # before whatever mixes or picks rows of a batch
    order, run_valid = -6, False

    def __init__(
        self,
        outputs: TeacherOutputs,  # With logits, of all items that are trained on
    ):
        if not isinstance(outputs, TeacherOutputs) or outputs.logits is None:
            raise InputError('StoredTeacher: give TeacherOutputs with logits, as teacher_outputs makes them')
        self.outputs = outputs
        self._batches = self._labels = None

    # what a teacher said is not saved with its student
    def __getstate__(self): return {**self.__dict__, 'outputs': None, '_batches': None, '_labels': None}

    def before_fit(self):
        # a fit that broke off has left the loader watched
        if self._batches is not None: self._batches.close()
        self.run = not only_validating(self.learn)
        if not self.run: return
        if self.outputs is None:
            raise InputError("StoredTeacher: a teacher's outputs are not saved with its student: "
                             'learn.remove_cb(StoredTeacher), and add another one to train it further')
        check_reads_teacher(self)
        if other_callback(self, Teacher) is not None or other_callback(self, StoredTeacher) is not None:
            raise InputError('StoredTeacher: there is another teacher; mean_outputs makes one of several')
        self._batches = OutputsOfBatch(self.learn, self.outputs, self._logits_in_order())

    def _logits_in_order(self):
        "The logits with the classes in the student's order."
        classes = [str(class_name) for class_name in self.learn.dls.vocab]
        if set(classes) != set(self.outputs.classes):
            raise InputError(f"StoredTeacher: its classes are {preview(self.outputs.classes)}, the student's "
                             f'{preview(classes)}')
        place = {class_name: number for number, class_name in enumerate(self.outputs.classes)}
        return self.outputs.logits[:, [place[class_name] for class_name in classes]]

    def before_train(self): self._batches.start()
    def after_train(self): self._batches.close()

    def before_batch(self):
        self._labels = self.yb
        self.learn.yb = (*self.yb, self._batches.of_batch(self.iter, self.yb[0].device))

    def after_batch(self):
        # metrics and others compare with labels alone
        if self._labels is not None: self.learn.yb = self._labels
        self._labels = None

    def after_fit(self):
        if self._batches is not None: self._batches.close()


class TeacherEmbeddings(ExtraTerm):
    """A teacher's embeddings, stored by item, as a term of the loss, for classification and for matching:
    `match_learner(dls, cbs=TeacherEmbeddings(outputs, 'similarities'))`.

    'similarities': the divergence (Kullback-Leibler) of the student's similarities of an item with the others
    of its batch from the teacher's, after a softmax at the temperature `t`, times t^2; widths don't matter.
    'embeddings': 1 - cosine of both embeddings; where their widths differ, the student's go through a linear
    projection, which is trained with the model's last parameter group, at its rate, and dropped afterwards.

    The student's embedding is that of its heads (`HeadOutput.emb`), in classification what its heads read, of
    several side by side at unit length. The term is shown as `teacher`. `Resume` goes on exactly. It raises
    `InputError` beside what mixes or picks rows, and what passes a batch forward and backward twice.
    """
    term_name = 'teacher'

    def __init__(
        self,
        outputs: TeacherOutputs,  # With embeddings, of all items that are trained on
        compare: str = 'similarities',  # 'similarities' or 'embeddings'
        weight: float = 1.,  # Of the term
        t: float = .1,  # Temperature of similarities; the lower, the more the nearest items count
    ):
        if not isinstance(outputs, TeacherOutputs) or outputs.embeddings is None:
            raise InputError('TeacherEmbeddings: give TeacherOutputs with embeddings')
        if compare not in ('similarities', 'embeddings'):
            raise InputError(f"compare={compare!r}: choose 'similarities' or 'embeddings'")
        if not (t > 0 and weight >= 0):
            raise InputError(f't={t}, weight={weight}: t above 0, weight 0 or above')
        self.outputs = outputs
        self.compare = compare
        self.weight = weight
        self.t = t
        self._batches = self._projection = None
        self._features = {}

    def __getstate__(self):
        return {**self.__dict__, 'outputs': None, '_batches': None, '_projection': None, '_features': {}}

    def begin_fit(self):
        if self.outputs is None:
            raise InputError("TeacherEmbeddings: a teacher's outputs are not saved with its student: "
                             'learn.remove_cb(TeacherEmbeddings), and add another one to train it further')
        for kind in (MixHandler, HardMining):
            other = other_callback(self, kind)
            if other is not None:
                raise InputError(f'TeacherEmbeddings: {type(other).__name__} changes what the items of a '
                                 'batch are, and the teacher spoke of them as they were')
        # a fit that broke off has left its projection, its hooks, and the loader watched
        self._stop_watching()
        self._take_projection_out()
        self._batches = OutputsOfBatch(self.learn, self.outputs, self.outputs.embeddings)
        if self.compare == 'embeddings': self._put_projection_in()

    def _put_projection_in(self):
        "Make a projection where widths differ, which the optimizer trains with its last group."
        width, wanted = student_width(self.learn.model), self.outputs.embeddings.shape[1]
        if width == wanted: return
        # without drawing from the training's random numbers
        weight = torch.randn(wanted, width, generator=torch.Generator().manual_seed(0)) / width**.5
        self._projection = nn.Parameter(weight.to(next(self.learn.model.parameters()).device))
        self.learn.opt.param_lists[-1].append(self._projection)

    def _take_projection_out(self):
        "Drop the projection of a fit that is done, or was broken off."
        if self._projection is None: return
        for group in self.learn.opt.param_lists:
            for place, parameter in enumerate(group):
                if parameter is not self._projection: continue
                del group[place]
                break
        self.learn.opt.state.pop(self._projection, None)
        self._projection = None

    def state_dict(self):
        "For a training that is resumed."
        return {} if self._projection is None else {'projection': self._projection.detach().clone()}

    def load_state_dict(self, saved_state):
        "Go on from what `state_dict` returned."
        if 'projection' in saved_state: self._projection.data.copy_(saved_state['projection'])

    def before_train(self):
        super().before_train()
        self._batches.start()
        self._hooks = [neck.register_forward_pre_hook(self._note(modality))
                       for modality, neck in self.learn.model.necks.items()]

    def _note(self, modality):
        "A hook that keeps what the neck of a modality reads."
        def note(module, inputs): self._features[modality] = inputs[0]
        return note

    def after_train(self): self._stop_watching()

    def _stop_watching(self):
        "Leave model and loader as they were found."
        for hook in self.__dict__.pop('_hooks', ()): hook.remove()
        self._features = {}
        if self._batches is not None: self._batches.close()

    def term(self):
        student = student_embeddings(self.learn.pred, self._features)
        teacher = self._batches.of_batch(self.iter, student.device)
        if self.compare == 'similarities': return self.weight * similarity_loss(student, teacher, self.t)
        # products of half precision would lose what the cosines tell
        with torch.autocast(student.device.type, enabled=False):
            if self._projection is not None: student = student @ self._projection.T
            return self.weight * (1 - F.cosine_similarity(student, teacher)).mean()

    def after_fit(self):
        super().after_fit()
        self._take_projection_out()


def student_width(
    model: nn.Module,  # `MatchNet` or `ClassifyNet`
) -> int:
    "How wide `student_embeddings` are."
    widths = getattr(model, 'widths', None)
    if widths is not None: return sum(widths.values())
    return sum(neck[0].num_features for neck in model.necks.values())


def student_embeddings(
    output,  # What the model returned in training
    features: dict,  # Modality -> what its neck read (n,d)
) -> torch.Tensor:  # float32 (n,d)
    "The embedding of each item of a batch: those of all heads side by side, each of unit length."
    outputs = output if isinstance(output, dict) else {None: output}
    parts = [each.emb for each in outputs.values() if isinstance(each, HeadOutput)] or list(features.values())
    return torch.cat([F.normalize(part.float()) for part in parts], 1)


def similarity_loss(
    student: torch.Tensor,  # float32 (n,d)
    teacher: torch.Tensor,  # float32 (n,e), of the same items
    t: float,  # Temperature
) -> torch.Tensor:  # A number
    """t^2 times the mean over the items of KL(teacher || student) between the softmaxes of their cosines with
    the other items of the batch, divided by t; 0 for fewer than three items."""
    n = len(student)
    if n < 3: return student.sum() * 0.
    with torch.autocast(student.device.type, enabled=False):
        is_other = ~torch.eye(n, dtype=torch.bool, device=student.device)
        ours, theirs = ((F.normalize(each) @ F.normalize(each).T / t)[is_other].view(n, n - 1).log_softmax(1)
                        for each in (student, teacher))
        return t**2 * F.kl_div(ours, theirs, reduction='batchmean', log_target=True)
