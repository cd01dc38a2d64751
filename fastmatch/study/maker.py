"Learners for the named spaces: what a trial chose becomes `match_learner`'s arguments."
import copy

from fastai.data.transforms import Normalize
from fastcore.foundation import L

from .. import losses
from ..callback.sharpness import SAM
from ..data.block import MatchDataLoaders
from ..layers.heads import TrackedHead
from ..learner import match_learner
from ..optim import opt_func
from ..optim.registry import EPS
from .engine.space import NAMED
from .engine.work import WrongStudy

PASSED = ('wd', 'image_arch', 'text_arch', 'image_pool', 'pool')
FIT = ('lr', 'schedule')  # read by `tune`'s default fit


def _loss(p):
    "The loss of a trial, the kit's default where it says nothing."
    name = p.get('loss', NAMED['loss'][1])
    margin = {} if name == 'NormSoftmax' else {'m': p.get('margin', NAMED['margin'][1])}
    return getattr(losses, name)(s=p.get('scale', NAMED['scale'][1]), **margin)


def learner_maker(
    dls,  # `MatchDataLoaders`, or a function from a trial to them
    also: tuple = (),  # Names in the space that `fit` or such a function reads
    **fixed,  # For `match_learner`, the same in each trial
):  # trial -> `MatchLearner`
    "A `make_learner` for `tune` that knows the named spaces."
    if isinstance(dls, MatchDataLoaders): own = any(isinstance(o, Normalize) for o in dls.after_batch.fs)

    def make(trial):
        p, kw = trial.params, copy.deepcopy(fixed)  # callbacks and metrics hold on to the Learner they were given to
        if unknown := [k for k in p if k not in NAMED and k not in also]:
            raise WrongStudy(f'{unknown}: learner_maker knows {list(NAMED)}; name what fit reads as also={tuple(unknown)}, or write a make_learner of your own')
        if p.keys() & {'loss', 'margin', 'scale'}:
            _no_two('loss_func', kw)
            kw['loss_func'] = _loss(p)
            if p.get('loss') == 'CurricularFace': kw.setdefault('head_func', TrackedHead)
        if p.keys() & {'opt', 'eps'}:
            _no_two('opt_func', kw)
            name = p.get('opt', NAMED['opt'][1])
            # plain SGD has no eps to choose
            kw['opt_func'] = opt_func(name, **({'eps': p['eps']} if 'eps' in p and name.removeprefix('lookahead_') in EPS else {}))
        for k in PASSED:
            if k in p:
                _no_two(k, kw)
                kw[k] = p[k]
        if p.get('rho'): kw['cbs'] = [*L(kw.get('cbs')), SAM(p['rho'])]
        if not isinstance(dls, MatchDataLoaders): return match_learner(dls(trial), **kw)
        # an encoder brings the mean and spread it was trained with: not those of the trial before
        if not own:
            for dl in dls.loaders: dl.after_batch.fs = L(o for o in dl.after_batch.fs if not isinstance(o, Normalize))
        return match_learner(dls, **kw)
    return make


def _no_two(k, kw):
    if k in kw: raise WrongStudy(f'{k} is given and searched too: leave one out')
