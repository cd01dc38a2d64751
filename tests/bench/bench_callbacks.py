"""What training callbacks cost: a whole step of an EfficientNet-Lite0 under class centres, 32 pictures of the
sample at 96 px, with and without."""
from functools import partial
from itertools import cycle

from tests.bench.bench_step import learner, learner_step
from tests.bench.harness import Case, bench

# name -> (callback's class and arguments, most that a step may cost against one without, steps of which one
# run is made)
CALLBACKS = {
    'SAM': ('SAM', {}, 2.05, 1),
    'ASAM': ('ASAM', {}, 2.05, 1),
    'LookSAM': ('LookSAM', dict(k=5), 1.3, 5),
    'ESAM': ('ESAM', dict(beta=0.6, gamma=0.5), 1.85, 1),
    'SAF': ('SAF', {}, 1.2, 1),
    'FGM': ('FGM', dict(names='conv_stem'), None, 1),
    'EMA': ('EMA', {}, 1.03, 1),
}


def saf_with_a_past(learn, batches, step):
    "As after the first epochs: each row of the batches has an output of an earlier one."
    import torch
    saf = learn.saf
    numbers = cycle(range(len(batches)))

    def rows():
        size = len(learn.yb[0])
        return torch.arange(size) + next(numbers) * size
    # batches made beforehand are drawn from no dataset
    saf.rows = rows
    for learn.epoch in range(saf.back):
        for _ in batches: step()
    learn.epoch = saf.back


def steps(quick, name=None, arguments=None, n_steps=1):
    "One run: `n_steps` steps of a Learner's own loop, with the callback `name` or none."
    from fastmatch.callback import adversarial, averaging, saf, sharpness

    callbacks = []
    if name:
        modules = sharpness, adversarial, averaging, saf
        callback = next(getattr(module, name) for module in modules if hasattr(module, name))
        callbacks = [callback(**arguments)]
    learn, batches = learner(quick, text=False, cbs=callbacks)
    step = learner_step(learn, batches, n_epoch=9)
    if name == 'SAF': saf_with_a_past(learn, batches, step)

    def run():
        for _ in range(n_steps): step()
    return run


@bench('callbacks')
def step(quick):
    "A training step with each callback against one without, each a Learner's own loop on the same batches."
    for name, (callback, arguments, bar, n_steps) in CALLBACKS.items():
        yield Case(
            name,
            {'without': partial(steps, quick), name: partial(steps, quick, callback, arguments, n_steps)},
            reference='without',
            bar=bar,
            scale={} if n_steps == 1 else {name: 1 / n_steps},
        )


@bench('callbacks')
def memory(quick):
    "The most memory that five steps hold beyond the imports, each in a process of its own."
    sides = {
        'without': partial(steps, quick, n_steps=5),
        **{name: partial(steps, quick, callback, arguments, 5)
           for name, (callback, arguments, *_) in CALLBACKS.items()},
    }
    yield Case(
        'memory',
        sides,
        reference='without',
        memory=True,
        pairs=3,
        imports=('fastmatch.learner', 'timm', 'transformers'),
    )
