"Margin and scale on frozen embeddings: a linear map and class centres trained in seconds, a first pass before whole encoders are."
import zlib

import numpy as np
import pandas as pd
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastcore.xtras import ContextManagers
from torch import nn

from ..callback.heads import HeadLabels
from ..core import InputError, preview, seed_everything
from ..data.split import group_folds
from ..layers.heads import CosineHead, TrackedHead
from ..layers.pooling import BNNeck
from ..learner.base import groups_splitter
from ..match.embeddings import Embeddings
from ..match.judge.heldout import heldout
from ..match.neighbors import group_codes
from ..match.spaces.dense import Dense
from ..optim import opt_func
from ..schedule import fit as _fit  # noqa: F401  it gives Learner its fit_flat_cos
from .engine.space import NAMED, as_space, spaces, suggest
from .engine.storage import likeness, open_study, packed
from .engine.work import work
from .maker import _loss

CHOICES = 'margin', 'scale', 'loss', 'lr', 'wd', 'opt'  # what a trial may choose
MONITORS = ('row_f1', 'recall@1', 'map@r')
MAP = .2  # the map's rate against `lr`: it starts where it should be (.02, .2 and 1 tried on the sample's fold 1)
CENTERS = 5.  # the centres', as `LR_MULT` has it


class FrozenNet(nn.Module):
    "A linear map that starts at the identity, a neck, and class centres: what `match_learner` trains above its encoders."
    def __init__(
        self,
        n_in: int,  # Width of the embeddings
        n_out: int,  # Training groups
        head_func=CosineHead,  # (width, groups) -> head
    ):
        super().__init__()
        self.map, self.neck, self.head = nn.Linear(n_in, n_in, bias=False), BNNeck(n_in), head_func(n_in, n_out)
        nn.init.eye_(self.map.weight)

    def param_groups(self): return {'map': [*self.map.parameters()], 'head': [*self.neck.parameters(), *self.head.parameters()]}
    def embed(self, x): return self.neck(self.map(x))
    def forward(self, x): return self.head(self.embed(x))


def fit_head(
    x: np.ndarray,  # float32 (n,d) frozen embeddings to train on
    y: np.ndarray,  # int (n,), their groups, 0..c-1
    params: dict,  # Of `CHOICES`, what differs from the kit's own
    epochs: int = 8,  # Rounds
    bs: int = 64,  # Listings a batch
    seed: int = 0,  # Of centres and batches
) -> FrozenNet:
    "Train a head on frozen embeddings."
    p = {**{k: NAMED[k][1] for k in CHOICES}, **params}
    tracked = p['loss'] == 'CurricularFace'
    seed_everything(seed)
    x, y = torch.from_numpy(x), torch.from_numpy(y).long()
    def batch(rows): return x[rows], y[rows]
    train = DataLoader(range(len(x)), bs=min(bs, len(x)), shuffle=True, drop_last=True, create_batch=batch)
    # fastai validates after each epoch, on something: a handful of rows costs nothing
    dls = DataLoaders(train, DataLoader(range(min(8, len(x))), bs=8, create_batch=batch))
    net = FrozenNet(x.shape[1], int(y.max()) + 1, TrackedHead if tracked else CosineHead)
    learn = Learner(dls, net, _loss(p), opt_func=opt_func(p['opt']), splitter=groups_splitter, wd=p['wd'], cbs=HeadLabels() if tracked else None)
    with ContextManagers([learn.no_bar(), learn.no_logging()]): learn.fit_flat_cos(epochs, {'map': p['lr'] * MAP, 'head': p['lr'] * CENTERS})
    return net.eval()


@torch.no_grad()
def judge_head(
    net,  # `FrozenNet`, or None: the embeddings as they are
    x: np.ndarray,  # float32 (n,d), rows that weren't trained on
    groups,  # (n,) groups
    seed: int = 0,  # Of the halvings
    k: int = 50,  # Neighbours looked at
):  # `HeldOut`
    "Row F1, recall and mAP of frozen embeddings after a head, under the held-out protocol."
    nb = Dense(x if net is None else net.embed(torch.from_numpy(x)).numpy()).search(min(k, len(x)))
    return heldout(nb, groups, halvings=5, seed=seed)


def tune_head(
    embeddings,  # Frozen: `Embeddings` (modalities side by side), or float (n,d)
    groups=None,  # (n,) groups, where `embeddings` holds none
    space: dict | None = None,  # Of `spaces`: among 'margin', 'scale', 'loss', 'lr', 'wd', 'opt'; default margin and scale
    n_trials: int = 50,
    valid=None,  # bool (n,): rows that trials are judged on; default a fifth of the groups that aren't `test`
    test=None,  # bool (n,): rows for the reported score, which neither training nor the study sees; default none
    monitor: str = 'row_f1',  # One of `MONITORS`, of the `valid` rows
    epochs: int = 8,  # Rounds over the rest
    bs: int = 64,  # Listings a batch
    study_name: str = 'head',
    storage=None,  # As for `open_study`; default in memory
    sampler='tpe',  # As for `open_study`
    seed: int = 0,  # The same centres and batches in every trial: what differs is what was chosen
    echo=None,  # As for `work`
):  # optuna.Study; `tested(study)` is the reported score of its best trial
    "Search margin and scale (and more) of a head on frozen embeddings."
    x, y = as_frozen(embeddings, groups)
    space = spaces('margin', 'scale') if space is None else as_space(space)
    if unknown := set(space) - set(CHOICES): raise InputError(f'space: {sorted(unknown)}: a head on frozen embeddings has {list(CHOICES)}')
    if monitor not in MONITORS: raise InputError(f'monitor={monitor!r}: choose from {", ".join(MONITORS)}')
    train, valid, test = _split(y, valid, test, seed)
    codes = np.unique(y[train], return_inverse=True)[1]
    study = open_study(study_name, storage, 'maximize', space, sampler, seed=seed,
                       about={'monitor': monitor, 'epochs': epochs, 'bs': bs, 'seed': seed, 'width': x.shape[1], 'vectors': likeness({'all': x}),
                              'listings': f'{train.sum()} to train on, {valid.sum()} valid, {test.sum()} test, '
                                          f'crc {zlib.crc32(np.stack([y, valid + 2 * test]).astype("<i4").tobytes()):08x}'})
    # the embeddings as they are, without any head: a space may hold nothing that is better
    study.set_user_attr('frozen', {k: round(judge_head(None, x[m], y[m], seed).mean, 5) for k, m in (('valid', valid), ('test', test)) if m.any()})
    if test.any(): study.set_user_attr('test_groups', group_codes(y[test], int(test.sum())).tolist())
    def objective(trial):
        net = fit_head(x[train], codes, suggest(trial, space), epochs, bs, seed)
        found = judge_head(net, x[valid], y[valid], seed)
        if test.any():
            held = judge_head(net, x[test], y[test], seed)
            for k, v in (('test_row_f1', held.mean), ('test_se', held.se)): trial.set_user_attr(k, round(v, 5))
            trial.set_user_attr('test_rows', packed(held.row_f1))
        return {'row_f1': found.mean, 'recall@1': np.nanmean(found.recall_at_1), 'map@r': np.nanmean(found.map_at_r)}[monitor]
    return work(study, objective, n_trials, echo=echo)


def as_frozen(
    emb,  # `Embeddings` of rows that weren't trained on, or float (n,d)
    groups=None,  # (n,) groups, where `emb` holds none
) -> tuple[np.ndarray, np.ndarray]:  # (float32 (n,d) unit rows, int (n,) groups from 0)
    "Modalities side by side, each at unit length, and the groups."
    if isinstance(emb, Embeddings):
        emb.refuse_trained_on('tuning a head on frozen embeddings')
        groups = emb.groups if groups is None else groups
        names = [k for k in emb if k != 'joint' or len(emb.keys()) == 1]
        emb = np.concatenate([Dense(emb[k], k).vectors / len(names)**.5 for k in names], 1)
    if groups is None: raise InputError('groups: none are given, and the embeddings hold none')
    x = Dense(emb, 'embeddings').vectors
    return x, group_codes(groups, len(x))


def _split(y, valid, test, seed):
    "Which rows are trained on, judged on in trials, and reported: bool (n,) each, no group in two of them."
    n = len(y)
    def mask(o, name):
        o = np.zeros(n, bool) if o is None else np.asarray(o)
        if o.dtype != bool or o.shape != (n,): raise InputError(f'{name} of dtype {o.dtype}, shape {o.shape}: give bool ({n},)')
        return o
    def apart(a, b, what):
        if (both := np.flatnonzero(a & np.isin(y, y[b]))).size: raise InputError(f'rows {preview(both)} of {what}: their groups are in other rows as well')
    test = mask(test, 'test')
    apart(test, ~test, 'test')
    if valid is None:
        valid, rest = np.zeros(n, bool), np.flatnonzero(~test)
        valid[rest] = group_folds(pd.DataFrame({'group': y[rest]}), 'group', 5, seed) == 0
    valid = mask(valid, 'valid')
    if (both := np.flatnonzero(valid & test)).size: raise InputError(f'rows {preview(both)} are valid and test')
    apart(valid, ~valid, 'valid')
    train = ~valid & ~test
    for name, o in (('valid', valid), ('training', train)):
        if len(np.unique(y[o])) < 2: raise InputError(f'{name}: {o.sum()} rows of {len(np.unique(y[o]))} groups, two groups at least')
    return train, valid, test
