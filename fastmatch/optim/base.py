"""The optimizers of Adam's kind, in fastai's form, that step lists of tensors in place of one parameter
after another."""
from dataclasses import dataclass
from typing import NamedTuple

import torch
from fastai.optimizer import Optimizer

from ..core import InputError
from .kernels import AdamStep, AdamTensors, adam_, belief_, centralize_, chunks, foreach_, rectification

# what fastai and `prepare_optimizer` say of single weights; it belongs to the model and outlives a cleared or
# loaded state
FLAGS = ('force_train', 'do_wd', 'do_gc')


class Hypers(NamedTuple):
    "The hyper-parameters of a parameter group, those that schedules may change; the names are fastai's keys."
    lr: float
    mom: float
    sqr_mom: float
    eps: float
    wd: float


@dataclass(frozen=True)
class AdamVariant:
    "Which of Adam's relatives an optimizer is; fixed when it is made."
    beta: float = 0.  # Sharpness of a softplus in the place of the root (SAdam); 0: none
    decouple_wd: bool = True  # Decay the weights (AdamW) and not the gradients
    gc: bool = False  # Centralize gradients, except those of weights flagged `do_gc=False`
    rectify: bool = False  # RAdam's factor on the learning rate
    belief: bool = False  # AdaBelief: squares of the gradients' distances from their averages


@dataclass(slots=True)
class Bucket:
    "The weights that take one step together: their hyper-parameters, age and decay are the same."
    hypers: Hypers
    step: int  # counted from 1, with the one to come
    decayed: bool
    fused: bool  # whether the fused kernel can step them
    tensors: AdamTensors
    centralized: list  # bool for each weight: its gradient is centralized


class AdamFamily(Optimizer):
    """Adam, AdamW, RAdam and AdaBelief; `adamw`, `RAdam`, `AdaBelief` and `ranger` make them with their
    defaults."""
    _keep_on_clear = list(FLAGS)

    def __init__(
        self,
        params,  # Parameters, or a list of them for each group
        lr: float | slice,  # Learning rate; also fastai's slices, or a list with a rate for each group
        mom: float = .9,  # Momentum of the gradients' running average, 0 to 1
        sqr_mom: float = .99,  # Momentum of the squares' running average, 0 to 1
        eps: float = 1e-5,  # Added to the root of the squares, above 0
        wd: float = 0.,  # Weight decay
        variant: AdamVariant | None = None,  # Which relative of Adam; None: AdamW
    ):
        self.variant = variant or AdamVariant()
        if not eps > 0: raise InputError(f'eps={eps}: it must be above 0')
        for option, option_value in dict(mom=mom, sqr_mom=sqr_mom).items():
            if not 0 <= option_value < 1 or (option == 'sqr_mom' and option_value == 0):
                raise InputError(f'{option}={option_value}: choose from 0 to 1')
        super().__init__(params, [], lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)

    def zero_grad(self):
        # None and not zeros: a frozen weight with a gradient of zeros would still be decayed and moved by its
        # momentum
        for group in self.param_lists:
            for parameter in group: parameter.grad = None

    def _start_state(self, parameter, weight_state: dict, eps: float):
        "Fill the state of a weight before its first step."
        if parameter.grad.is_sparse:
            raise InputError(f'{type(self).__name__} has no step for sparse gradients: '
                             'make the embedding with sparse=False')
        if parameter.dtype == torch.float16 and eps < 6e-8:
            raise InputError(f'eps={eps} is 0 in float16: keep weights in float32 (learn.to_fp16() does)')
        weight_state.update(grad_avg=torch.zeros_like(parameter), sqr_avg=torch.zeros_like(parameter), step=0)

    def _buckets(self) -> list[Bucket]:
        "The weights with a gradient, counted one step on and sorted into buckets."
        buckets = {}
        bucket = last_key = None
        all_states, centralize = self.state, self.variant.gc
        for parameters, group_hypers in zip(self.param_lists, self.hypers):
            hypers = Hypers(*(float(group_hypers[hyper_name]) for hyper_name in Hypers._fields))
            for parameter in parameters:
                gradient = parameter.grad
                if gradient is None or not parameter.requires_grad: continue
                state = all_states[parameter]
                if 'grad_avg' not in state: self._start_state(parameter, state, hypers.eps)
                average = state['grad_avg']
                state['step'] = step = state['step'] + 1
                decayed = state.get('do_wd', True)
                fused = _same_layout(parameter, gradient, average)
                bucket_key = hypers, step, decayed, fused, parameter.device, parameter.dtype
                # neighbors mostly share a bucket: then there is nothing to look up
                if bucket_key != last_key:
                    last_key = bucket_key
                    bucket = buckets.get(bucket_key)
                    if bucket is None:
                        bucket = Bucket(hypers, step, decayed, fused, AdamTensors([], [], [], []), [])
                        buckets[bucket_key] = bucket
                params, grads, averages, squares = bucket.tensors
                params.append(parameter)
                grads.append(gradient)
                averages.append(average)
                squares.append(state['sqr_avg'])
                bucket.centralized.append(centralize and _has_inputs(gradient) and state.get('do_gc', True))
        return list(buckets.values())

    @torch.no_grad()
    def step(self, closure=None):
        "One step of all weights that have a gradient; gradients are centralized in place."
        if closure is not None: raise NotImplementedError('fastai optimizers take no closure')
        for bucket in self._buckets(): self._step_bucket(bucket)

    def _step_bucket(self, bucket: Bucket):
        variant, hypers = self.variant, bucket.hypers
        decay = hypers.wd * bucket.decayed
        rate = rectification(bucket.step, hypers.sqr_mom) if variant.rectify else 1.
        update = AdamStep(bucket.step, hypers.lr, hypers.mom, hypers.sqr_mom, hypers.eps,
                          decay if variant.decouple_wd else 0., rate, variant.belief, variant.beta)
        if variant.beta or rate is None or not bucket.fused: kernel = foreach_
        else: kernel = belief_ if variant.belief else adam_
        for *tensor_lists, centralized in chunks(*bucket.tensors, bucket.centralized):
            tensors = AdamTensors(*tensor_lists)
            centralize_([gradient for gradient, is_wanted in zip(tensors.grads, centralized) if is_wanted])
            if decay and not variant.decouple_wd:
                decayed_gradients = torch._foreach_add(tensors.grads, tensors.params, alpha=decay)
                tensors = tensors._replace(grads=decayed_gradients)
            kernel(tensors, update)

    def state_dict(self):
        # copies of the dicts: what was saved must not go on counting steps
        return {'state': [dict(self.state[parameter]) for parameter, *_ in self.all_params()],
                'hypers': [dict(hypers) for hypers in self.hypers]}

    def load_state_dict(self, saved_state):
        """Load a state saved by this optimizer, or by fastai's own of the same kind.

        Which weights are decayed and centralized, and which are trained when frozen, stays as it is for this
        model.
        """
        params = [parameter for group in self.param_lists for parameter in group]
        self._check_state_dict(saved_state, params)
        for parameter, saved_entry in zip(params, saved_state['state']):
            own_flags = {name: value for name, value in self.state[parameter].items() if name in FLAGS}
            loaded_state = {name: _copied(value, parameter) for name, value in saved_entry.items()}
            self.state[parameter] = {**loaded_state, **own_flags}
        for hypers, saved_entry in zip(self.hypers, saved_state['hypers']):
            hypers.update({name: value for name, value in saved_entry.items() if name in hypers})

    def _check_state_dict(self, saved_state, params):
        "Raise `InputError` unless a saved state fits these weights."
        if len(saved_state['hypers']) != len(self.param_lists) or len(saved_state['state']) != len(params):
            raise InputError(f"the saved optimizer has {len(saved_state['hypers'])} groups and "
                             f"{len(saved_state['state'])} parameters, "
                             f'this one {len(self.param_lists)} and {len(params)}')
        for weight_number, (parameter, saved_entry) in enumerate(zip(params, saved_state['state'])):
            for name in {'grad_avg', 'sqr_avg'} & set(saved_entry):
                if saved_entry[name].shape != parameter.shape:
                    raise InputError(f'parameter {weight_number}: '
                                     f'saved {name} of shape {tuple(saved_entry[name].shape)}, '
                                     f'the weight has {tuple(parameter.shape)}')
            if len({'grad_avg', 'sqr_avg', 'step'} & set(saved_entry)) not in (0, 3):
                raise InputError(f'parameter {weight_number}: the saved state has {sorted(saved_entry)}, '
                                 'not an average, its squares and a step')


def _copied(saved_value, parameter):
    "A saved value: a tensor is copied in the dtype and layout of the weight and to its device."
    if not torch.is_tensor(saved_value): return saved_value
    return torch.empty_like(parameter, requires_grad=False).copy_(saved_value)


def _same_layout(parameter, gradient, running_average) -> bool:
    """Whether the fused kernel may be used, which goes through the memory of all tensors in step.

    Weights that are made channels_last in the middle of a run have averages in another order.
    """
    if parameter.is_contiguous() and gradient.is_contiguous() and running_average.is_contiguous(): return True
    return parameter.stride() == gradient.stride() == running_average.stride()


def _has_inputs(gradient) -> bool:
    "Whether each output has several entries, so that their mean can be taken off."
    return gradient.ndim > 1 and gradient.numel() > len(gradient)
