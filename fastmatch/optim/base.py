"An optimizer of fastai's kind that steps lists of tensors instead of one parameter after another."
import torch
from fastai.optimizer import Optimizer

from ..core import InputError
from .kernels import adam_, belief_, centralize_, chunks, foreach_, rectification

HYPERS = ('lr', 'mom', 'sqr_mom', 'eps', 'wd')
FLAGS = ('force_train', 'do_wd', 'do_gc')


class AdamFamily(Optimizer):
    "Adam, RAdam and AdaBelief over lists: parameters with the same hyper-parameters, age and decay take one step together."
    _keep_on_clear = list(FLAGS)

    def __init__(
        self,
        params,  # Parameters, or a list of them for each group
        lr: float | slice,  # Learning rate; fastai's slices and lists by group
        mom: float = .9,  # Momentum of the average, 0 to 1
        sqr_mom: float = .99,  # Momentum of the squares, 0 to 1
        eps: float = 1e-5,  # Added to the root
        wd: float = 0.,  # Weight decay
        beta: float = 0.,  # Softplus of the root (SAdam), 0 for none
        decouple_wd: bool = True,  # Decay the weights, not the gradients
        gc: bool = False,  # Centralise gradients of more than one dimension (but not flagged `do_gc=False`)
        rectify: bool = False,  # RAdam's rate
        belief: bool = False,  # Squares of the gradient's distance from its average
    ):
        # fastai keeps these apart from the hypers that schedules may change
        self.beta, self.decouple_wd, self.gc, self.rectify, self.belief = beta, decouple_wd, gc, rectify, belief
        if not eps > 0: raise InputError(f'eps={eps}: it must be above 0')
        for k, v in dict(mom=mom, sqr_mom=sqr_mom).items():
            if not 0 <= v < 1 or (k == 'sqr_mom' and v == 0): raise InputError(f'{k}={v}: choose from 0 to 1')
        super().__init__(params, [], lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)

    def zero_grad(self):
        # None and not zeros: a frozen parameter with a gradient of zeros would still be decayed and carried on by its momentum
        for pg in self.param_lists:
            for p in pg: p.grad = None

    def _start(self, p, st, eps):
        "Fill the state `st` of `p` before its first step."
        if p.grad.is_sparse: raise InputError(f'{type(self).__name__} has no step for sparse gradients: make the embedding with sparse=False')
        if p.dtype == torch.float16 and eps < 6e-8: raise InputError(f'eps={eps} is 0 in float16: keep weights in float32 (learn.to_fp16() does)')
        st.update(grad_avg=torch.zeros_like(p), sqr_avg=torch.zeros_like(p), step=0)

    def _buckets(self) -> dict:
        "Lists (params, grads, averages, squares, centralise) by what their step depends on."
        res, state, gc, last = {}, self.state, self.gc, None
        for pg, h in zip(self.param_lists, self.hypers):
            hyper = tuple(float(h[k]) for k in HYPERS)
            for p in pg:
                g = p.grad
                if g is None or not p.requires_grad: continue
                st = state[p]
                if 'grad_avg' not in st: self._start(p, st, hyper[3])
                st['step'] = step = st['step'] + 1
                m, s = st['grad_avg'], st['sqr_avg']
                # the fused kernel walks through memory: weights made channels_last in mid-run have averages of another layout
                fused = (p.is_contiguous() and g.is_contiguous() and m.is_contiguous()) or p.stride() == g.stride() == m.stride()
                key = hyper, step, st.get('do_wd', True), fused, p.device, p.dtype
                if key != last: lists, last = res.setdefault(key, ([], [], [], [], [])), key
                lists[0].append(p), lists[1].append(g), lists[2].append(m), lists[3].append(s)
                lists[4].append(gc and g.ndim > 1 and g.numel() > len(g) and st.get('do_gc', True))
        return res

    @torch.no_grad()
    def step(self, closure=None):
        "One step of every parameter that has a gradient; gradients are centralised in place."
        if closure is not None: raise NotImplementedError('fastai optimizers take no closure')
        for ((lr, mom, sqr_mom, eps, wd), step, do_wd, fused, *_), lists in self._buckets().items():
            rate, wd = rectification(step, sqr_mom) if self.rectify else 1., wd * do_wd
            args = step, lr, mom, sqr_mom, eps, wd if self.decouple_wd else 0., rate
            for p, g, m, s, wide in chunks(*lists):
                centralize_([o for o, w in zip(g, wide) if w])
                if wd and not self.decouple_wd: g = torch._foreach_add(g, p, alpha=wd)
                if self.beta or rate is None or not fused: foreach_(p, g, m, s, *args, self.belief, self.beta)
                else: (belief_ if self.belief else adam_)(p, g, m, s, *args)

    def state_dict(self):
        # copies of the dicts: what was saved must not go on counting
        return {'state': [dict(self.state[p]) for p, *_ in self.all_params()], 'hypers': [dict(h) for h in self.hypers]}

    def load_state_dict(self, sd):
        "Load a state saved by this optimizer or fastai's own of the same kind; whether to decay or centralise stays as this model has it."
        params = [p for pg in self.param_lists for p in pg]
        if len(sd['hypers']) != len(self.param_lists) or len(sd['state']) != len(params):
            raise InputError(f"the saved optimizer has {len(sd['hypers'])} groups and {len(sd['state'])} parameters, "
                             f'this one {len(self.param_lists)} and {len(params)}')
        for i, (p, st) in enumerate(zip(params, sd['state'])):
            for k in {'grad_avg', 'sqr_avg'} & set(st):
                if st[k].shape != p.shape: raise InputError(f'parameter {i}: saved {k} of shape {tuple(st[k].shape)}, the weight has {tuple(p.shape)}')
            if ('grad_avg' in st) != ('sqr_avg' in st) or ('grad_avg' in st) != ('step' in st):
                raise InputError(f'parameter {i}: the saved state has {sorted(st)}, not an average, its squares and a step')
        for p, st in zip(params, sd['state']):
            new = {k: torch.empty_like(p, requires_grad=False).copy_(v) if torch.is_tensor(v) else v for k, v in st.items()}
            self.state[p] = {**new, **{k: v for k, v in self.state[p].items() if k in FLAGS}}
        for h, saved in zip(self.hypers, sd['hypers']): h.update({k: v for k, v in saved.items() if k in h})
