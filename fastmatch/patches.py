"""What differs from plain fastai after `import fastmatch.all`, in one place.

Importing any other part of the package leaves fastai's classes as they are; Learners that this package makes
don't need the changes. Each item below says what is changed and why.

- `Learner.create_opt`: after fastai's own, `fastmatch.optim.prepare` marks for this package's optimizers
(`adamw`, `ranger`, `opt_func(...)` and so on) which weights not to decay (biases and the weights of every
kind of norm, where fastai knows a few kinds only) and which gradients not to centralize (embeddings and class
centers). Why: a Learner written by hand in a notebook then trains as one from `match_learner` does. With
fastai's own optimizers nothing changes.
- `Learner.fit_flat_cos`: takes `start_epoch`, warm-up and rates by parameter group beside fastai's arguments,
which mean what they mean in fastai. Why: fastai's ignores `start_epoch`, and a pretrained encoder wants a
warm-up.
- `OptimWrapper.hypers`: what is written into one of its dicts reaches the optimizer, as with fastai's own
optimizers. Why: `ReduceLROnPlateau` writes the rate there, and changed nothing.
- New methods that fastai's Learner doesn't have: the other schedules (`fit_curve`, `fit_cos`, `fit_steps`,
`fit_exp`, `fit_cycles`, `fit_plateau`, `fit_head_first`, `fit_gradual`), `largest_bs`, `noise_scale`,
`fit_to_best`, `each_weights`, `average_weights`, `greedy_soup`.

`from fastmatch.all import *` also gives a notebook this package's own in the place of some of fastai's names
(`REPLACED_NAMES`). fastai's modules keep theirs.
"""
from functools import wraps

from fastai.learner import Learner
from fastai.optimizer import OptimWrapper

from .callback.learner_methods import patch_callbacks
from .optim.prepare import prepare_optimizer
from .optim.wrap import live_hypers
from .schedule.patch import patch_schedules

# name of fastai's that `from fastmatch.all import *` replaces -> how ours differs
REPLACED_NAMES = {
    'MixUp': 'mixes pictures only, and takes the same mean as the loss: with class weights or hard rows too',
    'CutMix': 'mixes pictures only, and takes the same mean as the loss: with class weights or hard rows too',
    'FocalLoss': 'takes the cosines of heads too; class weights leave the probability in the factor as it is',
    'GradientAccumulation': 'steps at the end of each epoch too, by the mean gradient of its own items alone',
    'Lookahead': 'starts its slow weights anew where weights were loaded or overwritten',
    'RAdam': "takes fastai's steps on torch's fused kernels, and may centralize gradients (`gc`)",
    'ranger': "centralizes gradients, unless `gc=False`; made of this package's `RAdam` and `Lookahead`"}


def patch_fastai():
    "Apply the changes listed above to fastai's classes; a second call does nothing."
    _patch_create_opt()
    OptimWrapper.hypers = property(live_hypers)
    patch_schedules()
    patch_callbacks()


def _patch_create_opt():
    fastai_create_opt = Learner.create_opt
    if getattr(fastai_create_opt, '_patched_by_fastmatch', False): return

    @wraps(fastai_create_opt)
    def create_opt(self):
        fastai_create_opt(self)
        prepare_optimizer(self)

    create_opt._patched_by_fastmatch = True
    Learner.create_opt = create_opt
