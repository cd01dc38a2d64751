"""Recipes for fine-tuning a pretrained model.

Train the head first, thaw the parameter groups one by one, keep chosen blocks unchanged, and pick a rate from
`lr_find`.
"""
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.callback.schedule import minimum, steep

from ..core import InputError, preview
from .fit import only_validating
from .rates import check_epochs, is_one_rate, named_rates

FACTOR = 2.6  # rate of a group over that of the group below it (ULMFiT, https://arxiv.org/abs/1801.06146)


def layered_rates(
    lr: float,  # Learning rate of the last group, the head
    n: int,  # Number of parameter groups
    factor: float = FACTOR,  # The rate of each group is that of the next one divided by this
) -> list[float]:
    "Learning rates that fall from the head down, one for each of `n` parameter groups, first group first."
    return [lr / factor**(n - 1 - group_number) for group_number in range(n)]


def _count_groups(learner) -> int:
    "Number of the learner's parameter groups; `InputError` if there is just one."
    if learner.opt is None: learner.create_opt()
    n_groups = len(learner.opt.param_lists)
    if n_groups < 2:
        raise InputError('the model is one parameter group, nothing can be frozen below the head: '
                         'give the Learner a splitter')
    return n_groups


def fit_head_first(
    learner,  # fastai `Learner` with two parameter groups at least
    head_epochs: int,  # Epochs in which only the last group, the head, is trained; 0 leaves them out
    n_epoch: int,  # Epochs of the whole model after that; 0 leaves them out
    lr,  # Learning rate of the first part: a number, or a dict by name of group
    div: float = 2.,  # Rates of the first part over those of the second (as in fastai's `fine_tune`)
    fit: str = 'fit_flat_cos',  # Name of the learner's method that trains either part
    **kwargs,  # Further arguments of that method
):
    "Train the head on frozen encoders, then the whole model at a lower rate."
    _count_groups(learner)
    _check_stages(head_epochs=head_epochs, n_epoch=n_epoch)
    rates = named_rates(learner.model, lr) if isinstance(lr, dict) else lr
    learner.freeze()
    if head_epochs: getattr(learner, fit)(head_epochs, rates, **kwargs)
    learner.unfreeze()
    if n_epoch: getattr(learner, fit)(n_epoch, _divided(rates, div), **kwargs)


def _divided(rates, divisor):
    "Rates in any form that a `fit_*` takes, divided."
    if isinstance(rates, slice):
        return slice(rates.start and rates.start / divisor, rates.stop / divisor)
    return [rate / divisor for rate in rates] if isinstance(rates, (list, tuple)) else rates / divisor


def _check_stages(**n_epochs):
    "Raise `InputError` unless each stage has 0 epochs or more, and one of them has some."
    for option, n_epoch in n_epochs.items():
        if n_epoch != 0: check_epochs(n_epoch, option)
    if not any(n_epochs.values()): raise InputError(f'{", ".join(n_epochs)}: all 0, nothing would be trained')


def fit_gradual(
    learner,  # fastai `Learner` with two parameter groups at least
    lr: float,  # Learning rate of the head in the first stage
    epochs: int | list[int] = 1,  # Epochs of each stage, 0 leaves it out; one number stands for every stage
    factor: float = FACTOR,  # The rate of each group is that of the next one divided by this
    decay: float = 2.,  # The rates of each stage are those of the stage before divided by this
    fit: str = 'fit_flat_cos',  # Name of the learner's method that trains each stage
    **kwargs,  # Further arguments of that method
):
    """Train in stages: the head alone first, then one more parameter group in each stage, from the head down.

    Lower groups get lower rates, see `layered_rates`. From ULMFiT, https://arxiv.org/abs/1801.06146.
    """
    if not is_one_rate(lr):
        raise InputError(f'lr={lr!r}: fit_gradual makes the rates of all groups from one number')
    n_groups = _count_groups(learner)
    if not isinstance(epochs, (int, list, tuple)):
        raise InputError(f'epochs={epochs!r}: give a whole number, or a list of one for each stage')
    stage_epochs = [epochs] * n_groups if isinstance(epochs, int) else list(epochs)
    if len(stage_epochs) != n_groups:
        raise InputError(f'epochs={stage_epochs}: one number for each of the {n_groups} stages')
    _check_stages(**{f'epochs[{stage}]': n_epoch for stage, n_epoch in enumerate(stage_epochs)})
    for stage, n_epoch in enumerate(stage_epochs):
        if not n_epoch: continue
        learner.freeze_to(-1 - stage if stage < n_groups - 1 else 0)
        getattr(learner, fit)(n_epoch, layered_rates(lr / decay**stage, n_groups, factor), **kwargs)


class Still(Callback):
    """Keeps frozen parameter groups, and modules given by name, exactly as they are.

    fastai's frozen groups still train their BatchNorms, and BatchNorm's running statistics move. Under this
    callback neither happens: no weight takes a step, and norms run in evaluation mode.
    """
    run_after = TrainEvalCallback

    def __init__(
        self,
        *names: str,  # Full names of modules besides the frozen groups, e.g. 'encoders.image.body.conv_stem'
    ):
        self.names = names

    def before_fit(self):
        # nothing moves in a validation, and without a training there is no optimizer yet
        if only_validating(self.learn): return
        modules = dict(self.learn.model.named_modules())
        missing_names = [module_name for module_name in self.names if module_name not in modules]
        if missing_names:
            known_names = [module_name for module_name in modules if module_name]
            raise InputError(f'no module {missing_names}: this model has {preview(known_names, 12)}')
        frozen = {parameter for group in self.opt.param_lists[:self.opt.frozen_idx] for parameter in group}
        # whole modules, so that a norm without weights is kept still with the block it is in
        still_modules = []
        for module_name, module in modules.items():
            parameters = list(module.parameters())
            is_frozen = parameters and all(parameter in frozen for parameter in parameters)
            if module_name in self.names or is_frozen: still_modules.append(module)
        weights = [weight for module in still_modules for weight in module.parameters()]
        self._was = {weight: weight.requires_grad for weight in weights}
        self._still = {inner_module for module in still_modules for inner_module in module.modules()
                       if hasattr(inner_module, 'running_mean')}
        for weight in self._was: weight.requires_grad_(False)

    def before_train(self):
        for norm_layer in self._still: norm_layer.eval()

    def after_fit(self):
        # only what this callback changed: the groups keep what `freeze_to` gave them
        former_flags = self.__dict__.pop('_was', {})
        for weight, requires_grad in former_flags.items(): weight.requires_grad_(requires_grad)
        self.__dict__.pop('_still', None)


def between(
    lrs,  # (n,) rates that lr_find tried
    losses,  # (n,) smoothed loss at each
    num_it,  # Number of iterations; unused, but fastai hands it over
):
    """Suggest a learning rate: `learner.lr_find(suggest_funcs=between)`.

    It lies halfway, on a logarithmic scale, between the steepest fall of the loss and a tenth of the rate
    with the lowest loss.
    """
    suggested_rate = (steep(lrs, losses, num_it)[0] * minimum(lrs, losses, num_it)[0])**.5
    nearest_tried = int(torch.as_tensor([abs(tried_rate - suggested_rate) for tried_rate in lrs]).argmin())
    return suggested_rate, (suggested_rate, losses[nearest_tried])
