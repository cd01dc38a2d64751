"Margin and scale tuned on frozen embeddings: a head trains in seconds, a first pass before whole encoders."
import zlib

import numpy as np
import pandas as pd
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastcore.xtras import ContextManagers
from torch import nn

from ..callback.heads import HeadLabels
from ..core import InputError, preview, seed_everything
from ..data.split import group_folds
from ..layers.heads import CosineHead, TrackedHead
from ..layers.pooling import BNNeck
from ..learner.base import ListingLearner, groups_splitter
from ..match.embeddings import Embeddings
from ..match.judge.groups import Groups
from ..match.judge.heldout import HeldOut, heldout
from ..match.neighbors import NEAREST
from ..match.spaces.dense import Dense
from ..optim import opt_func
from .engine.open_study import fingerprint_vectors, open_study
from .engine.options import StudyOptions, read_options
from .engine.space import NAMED, as_space, search_space, suggest
from .engine.work import work
from .maker import make_loss
from .reported import store_test_score

CHOICES = ('margin', 'scale', 'loss', 'lr', 'wd', 'opt')  # what a trial may choose
MONITORS = ('row_f1', 'recall@1', 'map@r')
# Rates as multiples of `lr`. The map starts where it should be and moves slowly (.02, .2 and 1 were tried on
# the sample's fold 1); the centers have the multiple that `LR_MULT` gives them in whole trainings.
MAP_RATE = .2
CENTERS_RATE = 5.


def tune_head(
    embeddings,  # Frozen: `Embeddings` (modalities are put side by side), or float (n,d)
    groups=None,  # (n,) groups, where `embeddings` holds none
    space: dict | None = None,  # As `search_space` gives it, names among `CHOICES`; default margin and scale
    n_trials: int = 50,  # Finished trials that the study is to hold
    valid=None,  # bool (n,): rows that trials are judged on; default a fifth of the groups that aren't `test`
    test=None,  # bool (n,): rows for the reported score, which neither training nor study sees; default none
    monitor: str = 'row_f1',  # What the study maximizes on the `valid` rows: one of `MONITORS`
    epochs: int = 8,  # Passes over the remaining rows
    bs: int = 64,  # Listings a batch
    **options,  # study_name, storage, sampler, seed, echo: see `StudyOptions`
):  # optuna.Study; `heldout_trial(study)` is the reported score of its best trial
    """Search margin and scale (and more) of a head on frozen embeddings.

    Centers and batches are the same in every trial (`seed`): what differs is what was chosen. The study's
    user attribute 'frozen' holds the row F1 of the embeddings without any head, on valid and on test rows."""
    settings, = read_options(tune_head, options, StudyOptions('head'))
    vectors, groups = as_frozen(embeddings, groups)
    space = search_space('margin', 'scale') if space is None else as_space(space)
    unknown = set(space) - set(CHOICES)
    if unknown: raise InputError(f'space: {sorted(unknown)}: a head on frozen embeddings has {list(CHOICES)}')
    if monitor not in MONITORS: raise InputError(f'monitor={monitor!r}: choose from {", ".join(MONITORS)}')
    split = _HeadSplit(groups, valid, test, settings.seed)
    about = {'monitor': monitor, 'epochs': epochs, 'bs': bs, 'seed': settings.seed, 'width': vectors.shape[1],
             'vectors': fingerprint_vectors({'all': vectors}), 'listings': split.describe()}
    study = open_study(settings.study_name, settings.storage, 'maximize', space, settings.sampler,
                       seed=settings.seed, about=about)

    def judge(network, row_mask):
        # mAP@R needs as many neighbors as the largest group has
        depth = int(np.bincount(groups[row_mask]).max()) if monitor == 'map@r' else 0
        return judge_head(network, vectors[row_mask], groups[row_mask], settings.seed, max(NEAREST, depth))
    # the embeddings without any head: a space may hold nothing that is better
    has_test = split.test.any()
    judged_masks = {'valid': split.valid, 'test': split.test} if has_test else {'valid': split.valid}
    frozen_scores = {part: round(judge(None, row_mask).mean, 5) for part, row_mask in judged_masks.items()}
    study.set_user_attr('frozen', frozen_scores)
    if has_test: study.set_user_attr('test_groups', Groups.of(groups[split.test]).codes.tolist())
    classes = np.unique(groups[split.train], return_inverse=True)[1]

    def objective(trial):
        network = fit_head(vectors[split.train], classes, suggest(trial, space), epochs, bs, settings.seed)
        held_out = judge(network, split.valid)
        if has_test: store_test_score(trial, judge(network, split.test))
        if monitor == 'row_f1': return held_out.mean
        return np.nanmean(held_out.recall_at_1 if monitor == 'recall@1' else held_out.map_at_r)
    return work(study, objective, n_trials, echo=settings.echo)


def as_frozen(
    embeddings,  # `Embeddings` of rows that weren't trained on, or float (n,d)
    groups=None,  # (n,) groups, where `embeddings` holds none
) -> tuple[np.ndarray, np.ndarray]:  # (float32 (n,d) unit rows, int (n,) group codes from 0)
    """The vectors of all modalities side by side, and the groups: what `fit_head` and `judge_head` take.

    Each modality is brought to unit length before, so that all count the same."""
    if isinstance(embeddings, Embeddings):
        embeddings.refuse_trained_on('tuning a head on frozen embeddings')
        groups = embeddings.groups if groups is None else groups
        # the joint embedding is made of the other modalities: it would count them twice
        modalities = [modality for modality in embeddings
                      if modality != 'joint' or len(embeddings.keys()) == 1]
        scaled_vectors = [Dense(embeddings[modality], modality).vectors / len(modalities)**.5
                          for modality in modalities]
        embeddings = np.concatenate(scaled_vectors, 1)
    if groups is None: raise InputError('groups: none are given, and the embeddings hold none')
    vectors = Dense(embeddings, 'embeddings').vectors
    return vectors, Groups.of(groups, len(vectors)).codes


class FrozenNet(nn.Module):
    "A linear map that starts at the identity, a neck, class centers: what `match_learner` puts on encoders."
    def __init__(
        self,
        n_in: int,  # Width of the embeddings
        n_out: int,  # Training groups
        head_func=CosineHead,  # (width, groups) -> head
    ):
        super().__init__()
        self.map = nn.Linear(n_in, n_in, bias=False)
        self.neck = BNNeck(n_in)
        self.head = head_func(n_in, n_out)
        nn.init.eye_(self.map.weight)

    def param_groups(self):
        "Parameters by the rate they are trained at."
        return {'map': [*self.map.parameters()], 'head': [*self.neck.parameters(), *self.head.parameters()]}

    def embed(self, embeddings):
        "The new embeddings: float (n,d) in and out."
        return self.neck(self.map(embeddings))

    def forward(self, embeddings): return self.head(self.embed(embeddings))


def fit_head(
    embeddings: np.ndarray,  # float32 (n,d), frozen, to train on
    groups: np.ndarray,  # int (n,), their groups, 0..c-1
    params: dict,  # Of `CHOICES`, what differs from the kit's own
    epochs: int = 8,  # Passes over the rows
    bs: int = 64,  # Listings a batch
    seed: int = 0,  # Of centers and batches
) -> FrozenNet:
    "Train a head on frozen embeddings; the result is in evaluation mode."
    params = {**{parameter: NAMED[parameter].default for parameter in CHOICES}, **params}
    is_tracked = params['loss'] == 'CurricularFace'
    seed_everything(seed)
    embeddings, groups = torch.from_numpy(embeddings), torch.from_numpy(groups).long()
    n_listings, n_dimensions = embeddings.shape

    def batch(row_numbers): return embeddings[row_numbers], groups[row_numbers]
    train_loader = DataLoader(range(n_listings), bs=min(bs, n_listings), shuffle=True, drop_last=True,
                              create_batch=batch)
    # fastai validates after each epoch, on something: a handful of rows costs nothing
    dls = DataLoaders(train_loader, DataLoader(range(min(8, n_listings)), bs=8, create_batch=batch))
    network = FrozenNet(n_dimensions, int(groups.max()) + 1, TrackedHead if is_tracked else CosineHead)
    learn = ListingLearner(dls, network, make_loss(params), opt_func=opt_func(params['opt']), wd=params['wd'],
                           splitter=groups_splitter, cbs=HeadLabels() if is_tracked else None)
    learning_rates = {'map': params['lr'] * MAP_RATE, 'head': params['lr'] * CENTERS_RATE}
    with ContextManagers([learn.no_bar(), learn.no_logging()]): learn.fit_flat_cos(epochs, learning_rates)
    return network.eval()


@torch.no_grad()
def judge_head(
    network,  # `FrozenNet`, or None: the embeddings as they are
    embeddings: np.ndarray,  # float32 (n,d), frozen, of rows that weren't trained on
    groups,  # (n,) groups
    seed: int = 0,  # Of the halvings
    k: int = 50,  # Neighbors searched for each row
) -> HeldOut:
    "Row F1, recall and mAP of frozen embeddings after a head, held out over five halvings of the groups."
    vectors = embeddings if network is None else network.embed(torch.from_numpy(embeddings)).numpy()
    neighbors = Dense(vectors).search(min(k, len(embeddings)))
    return heldout(neighbors, groups, halvings=5, seed=seed)


class _HeadSplit:
    "Which rows are trained on, judged on in trials, and reported: bool (n,) each, no group in two of them."
    def __init__(self, groups, valid, test, seed):
        self.groups = groups
        self.test = self._mask(test, 'test')
        self._check_apart(self.test, 'test')
        self.valid = self._mask(self._deal_valid(seed) if valid is None else valid, 'valid')
        in_both = np.flatnonzero(self.valid & self.test)
        if in_both.size: raise InputError(f'rows {preview(in_both)} are valid and test')
        self._check_apart(self.valid, 'valid')
        self.train = ~self.valid & ~self.test
        for part_name, row_mask in (('valid', self.valid), ('training', self.train)):
            n_groups = len(np.unique(groups[row_mask]))
            if n_groups >= 2: continue
            raise InputError(f'{part_name}: {row_mask.sum()} rows of {n_groups} groups, two groups at least')

    def describe(self):
        "What a study recognizes its rows by."
        groups_and_parts = np.stack([self.groups, self.valid + 2 * self.test]).astype('<i4')
        return (f'{self.train.sum()} to train on, {self.valid.sum()} valid, {self.test.sum()} test, '
                f'crc {zlib.crc32(groups_and_parts.tobytes()):08x}')

    def _mask(self, row_mask, part_name):
        n_listings = len(self.groups)
        row_mask = np.zeros(n_listings, bool) if row_mask is None else np.asarray(row_mask)
        if row_mask.dtype != bool or row_mask.shape != (n_listings,):
            raise InputError(f'{part_name} of dtype {row_mask.dtype}, shape {row_mask.shape}: '
                             f'give bool ({n_listings},)')
        return row_mask

    def _check_apart(self, row_mask, part_name):
        shared_rows = np.flatnonzero(row_mask & np.isin(self.groups, self.groups[~row_mask]))
        if not shared_rows.size: return
        raise InputError(f'rows {preview(shared_rows)} of {part_name}: '
                         'their groups are in other rows as well')

    def _deal_valid(self, seed):
        "A fifth of the groups that aren't the test's."
        remaining_rows = np.flatnonzero(~self.test)
        is_valid = np.zeros(len(self.groups), bool)
        remaining_groups = pd.DataFrame({'group': self.groups[remaining_rows]})
        is_valid[remaining_rows] = group_folds(remaining_groups, 'group', 5, seed) == 0
        return is_valid
