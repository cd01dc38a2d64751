"A training step of the Learner beside a bare loop."
import io
from contextlib import redirect_stdout
from copy import deepcopy
from itertools import cycle

from tests.bench.harness import Case, bench

LR, BATCHES = 1e-3, 8


class Prepared:
    "Batches made beforehand, again and again, as long as an epoch without an end."
    def __init__(self, batches): self.batches = batches
    def __len__(self): return 1_000_000
    def __iter__(self): return cycle(self.batches)


def learner(quick, text=True, **kwargs):
    """`match_learner` as it comes, ArcFace and all default callbacks; and batches as its dataloader gives
    them, without augmentation."""
    import pandas as pd
    from fastai.vision.augment import Resize

    from fastmatch.core import seed_everything
    from fastmatch.data.block import MatchDataLoaders
    from fastmatch.data.demo import demo_path
    from fastmatch.learner import match_learner
    seed_everything(0)
    df = pd.read_csv(demo_path()/'listings.csv')
    if quick: df = df[df.label_group.isin(sorted(df.label_group.unique())[:40])].reset_index(drop=True)
    dls = MatchDataLoaders.from_df(
        df,
        demo_path()/'images',
        fold_col='fold',
        item_tfms=Resize(32 if quick else 96),
        bs=8 if quick else 32,
        num_workers=0,
        phash=False,
        **({} if text and not quick else dict(text_col=None)),
    )
    encoder = dict(image_arch='test_efficientnet', pretrained=False) if quick else {}
    learn = match_learner(dls, **encoder, **kwargs)
    return learn, [batch for batch, _ in zip(dls.train, range(2 if quick else BATCHES))]


def learner_step(learn, batches, n_epoch=1):
    "One step of `Learner.fit` a call: all events of a batch, and the progress bar that writes to nowhere."
    learn.create_opt()
    learn.opt.set_hypers(lr=LR, wd=learn.wd)
    learn.n_epoch, learn.epoch, learn.dl = n_epoch, 0, Prepared(batches)
    learn.n_iter = len(learn.dl)
    with redirect_stdout(io.StringIO()):
        for event in ('before_fit', 'before_epoch', 'before_train'): learn(event)
    steps = enumerate(learn.dl)

    def step():
        with redirect_stdout(io.StringIO()): learn.one_batch(*next(steps))
    step.model = learn.model
    return step


def param_groups(learn, model):
    """Parameter lists of `model` with the rate and the weight decay the Learner gives them: none for biases
    and norms."""
    from fastai.torch_core import norm_bias_params
    factors = learn.group_rates.mults
    spared = {id(parameter) for parameter in norm_bias_params(model)}
    for name, parameters in model.param_groups().items():
        lr = LR * factors.get(name, 1.)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for free in (False, True):
            members = [parameter for parameter in trained if (id(parameter) in spared) == free]
            if members: yield dict(params=members, lr=lr, weight_decay=0. if free else learn.wd)


def same_adam(learn, model):
    "The Learner's own optimizer: what is left is the price of the Learner alone."
    groups = list(param_groups(learn, model))
    optimizer = learn.opt_func([group['params'] for group in groups], lr=LR)
    for settings, group in zip(optimizer.hypers, groups, strict=True):
        settings.update(lr=group['lr'], wd=group['weight_decay'])
    return optimizer


def fused_adamw(learn, model):
    """torch's fastest form of the same arithmetic, with fastai's betas and eps: what a loop without fastai
    could have."""
    import torch
    return torch.optim.AdamW(list(param_groups(learn, model)), betas=(.9, .99), eps=1e-5, fused=True)


def bare_step(learn, batches, model, make_optimizer):
    "The loop of torch's tutorials: forward, loss, backward, step, zero."
    import torch
    loss_func, optimizer = learn.loss_func, make_optimizer(learn, model)
    # plain tensors: a loop of one's own would not carry fastai's types
    plain = cycle([[tensor.as_subclass(torch.Tensor) for tensor in batch] for batch in batches])
    model.train()

    def step():
        *inputs, targets = next(plain)
        loss_func(model(*inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    step.model = model
    return step


@bench('main')
def step(quick):
    """A step of match_learner (lite0 + MiniLM, 32 listings of the sample at 96 px), against a bare loop on
    the same model and batches."""
    learn, batches = learner(quick)
    untrained = deepcopy(learn.model)
    for name, loop, make_optimizer in (
        ('step', 'loop, same Adam', same_adam),
        ('step, fused', 'loop, fused AdamW', fused_adamw),
    ):
        def bare(make_optimizer=make_optimizer):
            return bare_step(learn, batches, deepcopy(untrained), make_optimizer)

        sides = {'Learner': lambda: learner_step(learn, batches), loop: bare}
        yield Case(name, sides, reference=loop, bar=1.05)
