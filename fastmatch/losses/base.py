"The base class of all losses: fastai's interface, several heads in one output, and inputs that are checked."
import math
from inspect import signature
from numbers import Real

import torch
from torch import nn

from ..core import HeadOutput, InputError, preview, unknown_option


class NotANumber(InputError):
    "A loss became NaN; the message names the rows and the range of the values that the loss read."


def upcast(values):
    """Float16 and bfloat16 tensors as float32; float32 and float64 unchanged, so that `gradcheck` can run
    in float64."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def sampled_classes(
    output,  # `HeadOutput`, or a tensor of logits
) -> torch.Tensor | None:  # int64 (c,), ascending; None where there is a column for every class
    """The classes that the columns of an output stand for, where a `SampledHead` compared with some class
    centers only."""
    return output.extra.get('classes') if isinstance(output, HeadOutput) else None


def target_columns(
    output,  # `HeadOutput`, or a tensor of logits (n,c)
    targets,  # int64 (n,), the class of each row
) -> torch.Tensor:  # int64 (n,)
    """The column of each row's own class.

    It is the number of the class itself, unless the head compared with a sample of the class centers: with
    columns for the classes 2, 5 and 9, class 5 is in column 1. A class that was not sampled gets some column;
    `Loss.check_values` refuses it.
    """
    classes = sampled_classes(output)
    if classes is None: return targets
    return torch.searchsorted(classes, targets).clamp(max=len(classes) - 1)


def check_range(
    targets,  # Tensor of class numbers, not empty
    n_classes: int,
    what: str = 'labels',  # What to call them in the message
):
    "Raise `InputError` unless all targets are from 0 to `n_classes - 1`."
    lowest, highest = torch.stack(targets.aminmax()).tolist()
    if 0 <= lowest and highest < n_classes: return
    raise InputError(f'{what} from {lowest:g} to {highest:g} for {n_classes} classes: '
                     f'they must be 0 to {n_classes - 1}')


def is_number(
    value,  # Anything
) -> bool:
    "Whether an option is one number: of Python, of numpy, or a tensor without dimensions."
    return isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.ndim == 0)


def check_scale(s):
    "The scale `s` of cosines as it is; `InputError` unless it is None or above 0."
    if s is not None and not (is_number(s) and 0 < s < math.inf):
        raise InputError(f's={s!r}: the scale must be a number above 0, or None for the rule of AdaCos')
    return s


def check_smoothing(label_smoothing):
    "The share `label_smoothing` as it is; `InputError` unless it is from 0 to 1."
    if not (is_number(label_smoothing) and 0 <= label_smoothing <= 1):
        raise InputError(f'label_smoothing={label_smoothing!r}: choose a number from 0 to 1')
    return label_smoothing


def require_cosines(
    loss,  # The loss that asks, for the message
    output,  # What the model returned
):
    "Raise `InputError` unless `output` is a head's `HeadOutput`."
    if not isinstance(output, HeadOutput):
        raise InputError(f"{type(loss).__name__} reads a head's cosines; it got {type(output).__name__} "
                         '(in evaluation the model returns embeddings, which have no loss)')


def required_extra(
    loss,  # The loss that asks, for the message
    output,  # `HeadOutput`
    key: str,  # 'norms', 't', 's' or 'centers'
    head: str,  # Name of the class of heads that return it
):
    """The entry `key` of what a head returned besides cosines; `InputError` names the head to use where
    there is none."""
    if key not in output.extra:
        raise InputError(f'{type(loss).__name__} reads {key!r} of a {head}: '
                         f'match_learner(..., head_func={head})')
    return output.extra[key]


class Loss(nn.Module):
    """A loss in fastai's form, over one output or over a dict of several heads' outputs (whose losses are
    added).

    A subclass implements `per_row(output, targets)`, the loss of each row. It may also override `loss_inputs`
    and `values_to_check` (what it reads, for the search for NaN), `check` and `check_values` (what it
    accepts), and `mean`. A loss has no parameters and no running state: class centers are in the model's
    head, where the optimizer finds them.

    Rows that are mixtures of two (MixUp, CutMix) have two targets each, see `partners` of `forward`.
    """
    # fastai's mixing callbacks ask for it: they then mix the losses of both targets and not the targets
    # themselves; this package's own mix by `partners` of `forward`
    y_int = True
    weight_in_sum = 1.  # its weight in a `SumLoss` that names none
    # how many targets it compares an output with: labels, and as a second one a teacher's logits (`Distill`)
    n_targets = 1
    # whether a guard against NaN looks at the result itself: the loss then returns NaN and raises nothing
    returns_nan = False
    # a function that is given {head: its weighted loss} of each output with several heads, set by `LossTerms`
    on_heads = None

    @property
    def compares_rows(self) -> bool:
        """Whether the loss of a row depends on the batch's other rows, as pair losses do; callbacks that
        train on some rows of a batch refuse such a loss. Here: whether a loss inside it does."""
        return any(part.compares_rows for part in self.children() if isinstance(part, Loss))

    def __init__(
        self,
        reduction: str = 'mean',  # 'mean', 'sum' or 'none' (a value for each row)
        head_weights: dict | None = None,  # Weight of each head, such as 'image' or 'title'; default 1
        **unknown,  # Options that no class on the way has read
    ):
        super().__init__()
        for option, setting in unknown.items():
            known = {name for base in type(self).__mro__ if issubclass(base, Loss)
                     for name in signature(base.__init__).parameters} - {'self', 'kwargs', 'unknown'}
            raise unknown_option(option, setting, known, type(self).__name__)
        if reduction not in ('mean', 'sum', 'none'):
            raise InputError(f"reduction={reduction!r}: choose 'mean', 'sum' or 'none'")
        self.reduction = reduction
        self.head_weights = dict(head_weights or {})
        self._calls = 0

    def forward(
        self,
        output,  # What the model returned, or a dict of it by head
        *targets,  # (n,...) what the loss compares it with, as a rule the class of each row
        partners: tuple | None = None,  # Of mixed rows the targets of the other half, as many as `targets`
        share=1.,  # Of mixed rows the share that `targets` have in them: a number or (n,)
    ):
        """The loss of a batch. Of mixed rows the losses for both targets count by their shares: the result is
        the plain one where the share is 1."""
        self._calls += 1
        read_values = self._time_to_read_values(targets[0].device)
        by_head = self._rows_of_heads(output, targets, read_values)
        mixed = None if partners is None else self._rows_of_heads(output, partners, read_values)

        def reduced(row_losses, partner_losses):
            if partners is None: return self.reduce(row_losses, targets[0])
            part = torch.as_tensor(share, dtype=row_losses.dtype, device=row_losses.device)
            return self.reduce_mixed(row_losses, partner_losses, part, targets[0], partners[0])
        if self.on_heads is not None:
            self.on_heads({head: reduced(by_head[head], mixed and mixed[head]) for head in by_head})
        return reduced(_added(by_head), mixed and _added(mixed))

    def _rows_of_heads(self, output, targets: tuple, read_values: bool) -> dict:
        "The weighted loss of each row (n,) by head; of an output that is no dict of heads under None."
        if not targets[0].numel():
            raise InputError(f'{type(self).__name__} got a batch of 0 rows, which have no mean')
        if not isinstance(output, dict): return {None: self._checked_rows(output, targets, read_values)}
        unknown = set(self.head_weights) - set(output)
        if unknown:
            raise InputError(f'head_weights names {sorted(unknown)}; the model has the heads {list(output)}')
        return {head_name: self.head_weights.get(head_name, 1.)
                * self._checked_rows(head_output, targets, read_values)
                for head_name, head_output in output.items()}

    def _time_to_read_values(self, device) -> bool:
        """Whether this call checks the values of its inputs, and not their shapes alone: on a CPU
        always, on a GPU in the calls 1, 2, 4, 8, 16 and so on.

        Python can read a value from a GPU only after the GPU has finished all work that was started before,
        so reading in each batch would slow training down. Wrong labels mostly show in the first batches, and
        a NaN stays in the weights and is found later, so that a few checks are enough.
        """
        is_power_of_two = self._calls.bit_count() == 1
        return device.type == 'cpu' or is_power_of_two

    def _checked_rows(self, output, targets: tuple, read_values: bool):
        "The loss of each row, with all checks."
        self.check(output, *targets)
        if read_values: self.check_values(output, *targets)
        row_losses = self.per_row(output, *targets)
        if read_values and bool(self.values_to_check(output, row_losses).detach().isnan().any()):
            if not self.returns_nan: raise NotANumber(_nan_message(self, output, row_losses))
            # all of it, also where the loss has passed over the NaN: the guard must see it
            return row_losses * math.nan
        return row_losses

    def loss_inputs(self, output):
        "The tensor that the loss reads, a row for each target: here a head's cosines, or the logits."
        return output.cos if isinstance(output, HeadOutput) else output

    def values_to_check(self, output, row_losses):
        """The tensor that is searched for NaN after each call that reads values: here the losses of the rows.

        A softmax adds up a whole row, so that a NaN anywhere in it shows in the row's loss. A loss that picks
        some of its inputs, and so may pass over a NaN, returns `loss_inputs` instead.
        """
        return row_losses

    def check(self, output, targets):
        """Raise `InputError` unless the shapes fit; called in every batch. Here: one class for each row
        of the output."""
        n_rows = len(self.loss_inputs(output))
        if targets.shape == (n_rows,) and targets.dtype == torch.int64: return
        raise InputError(f'{type(self).__name__} wants the class of each of the {n_rows} rows, '
                         f'int64 ({n_rows},); it got {targets.dtype} {tuple(targets.shape)}')

    def check_values(self, output, targets):
        """Raise `InputError` unless the values fit; called where values are read. Here: each class has a
        column."""
        n_columns = self.loss_inputs(output).shape[-1]
        classes = sampled_classes(output)
        if classes is not None:
            not_sampled = targets[classes[target_columns(output, targets)] != targets]
            if len(not_sampled):
                raise InputError(f'the head sampled {n_columns} class centers without those of the labels '
                                 f'{preview(not_sampled.tolist())}: '
                                 'the callback HeadLabels hands it the labels')
        elif len(targets): check_range(targets, n_columns)

    def per_row(
        self,
        output,  # `HeadOutput`, or a tensor of logits (n,c)
        targets,  # int64 (n,)
    ) -> torch.Tensor:  # (n,)
        "The loss of each row; implemented by the subclasses."
        raise NotImplementedError

    def reduce(self, row_losses, targets):
        "The losses of the rows (n,) brought to the form that `reduction` names."
        if self.reduction == 'mean': return self.mean(row_losses, targets)
        return row_losses.sum() if self.reduction == 'sum' else row_losses

    def reduce_mixed(
        self,
        row_losses,  # (n,) losses of mixed rows for the batch's own targets
        partner_losses,  # (n,) losses of the same rows for their partners' targets
        share,  # Tensor of one number or (n,): the share of the own targets
        targets,  # (n,...)
        partners,  # (n,...)
    ):
        """The losses of mixed rows in the form that `reduction` names. The mean is the one of `mean` for
        either target, so that what it divides by (the sum of class weights, the number of rows with pairs) is
        that of the targets in question."""
        if self.reduction != 'mean':
            return self.reduce(torch.lerp(partner_losses, row_losses, share), targets)
        return self.mean(share * row_losses, targets) + self.mean((1 - share) * partner_losses, partners)

    def mean(self, row_losses, targets):
        """The mean of the rows' losses; overridden where a paper weights the rows or takes the mean over
        some of them. It must be linear in `row_losses`; a loss that picks rows overrides `reduce` and
        `reduce_mixed`."""
        return row_losses.mean()

    def activation(self, output):
        """What fastai's `get_preds` returns of an output; here the output: a matching model in evaluation
        returns embeddings."""
        return output

    def decodes(self, output):
        "What fastai makes of `activation`'s result as a prediction; here the same."
        return output


def _added(by_head: dict):
    "The sum of the losses of all heads."
    first, *others = by_head.values()
    return sum(others, first)


def _nan_message(loss, output, row_losses) -> str:
    """What `NotANumber` says: the rows with NaN, how many of the values read are NaN, and the range of
    the others."""
    values = loss.loss_inputs(output).detach()
    rows_with_nan = values.flatten(1).isnan().any(1)
    # where the inputs are sound the NaN arose in the loss itself
    if not rows_with_nan.any(): rows_with_nan = row_losses.detach().isnan()
    row_numbers = rows_with_nan.nonzero().flatten().tolist()
    numbers = values[~values.isnan()]
    range_text = 'there are no others'
    if len(numbers): range_text = f'the others run from {numbers.min():.3g} to {numbers.max():.3g}'
    return (f'{type(loss).__name__}: NaN in {len(row_numbers)} of {len(row_losses)} rows '
            f'({preview(row_numbers)}). '
            f'Of the {values.numel()} values it reads {int(values.isnan().sum())} are NaN, {range_text}: '
            'lower the learning rate, or look for NaN in inputs and weights')
