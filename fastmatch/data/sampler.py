"Which listings make up an epoch: P groups x K listings a batch, weighted draws, rare groups repeated."
import numpy as np
import pandas as pd
from fastai.data.core import TfmdDL
from fastcore.meta import delegates

from ..core import InputError, preview


def _codes(labels):
    "Labels as 0..C-1, (n,)."
    codes = pd.factorize(np.asarray(labels))[0]
    if len(codes) == 0: raise InputError('labels is empty')
    if (bad := np.flatnonzero(codes < 0)).size: raise InputError(f'{len(bad)} labels are missing, on rows {preview(bad.tolist())}')
    return codes


def _groups(codes): return np.split(np.argsort(codes, kind='stable'), np.cumsum(np.bincount(codes))[:-1])


def class_weights(
    labels,  # Group of each training listing, (n,)
    power: float = 1.,  # 1 draws every group as often as any other, 0 every listing, .5 lies between
) -> np.ndarray:  # float64 (n,)
    "Weight each listing by 1/(size of its group)**power."
    codes = _codes(labels)
    return 1./np.bincount(codes)[codes].astype(np.float64)**power


def oversample(
    labels,  # Group of each training listing, (n,)
    min_count: int,  # Listings that every group gets at least
) -> np.ndarray:  # int64 (>=n,): every row once, then the repeats
    "Repeat the listings of groups smaller than `min_count`, each about equally often."
    codes = _codes(labels)
    if min_count < 1: raise InputError(f'min_count={min_count}: give 1 or more')
    return np.concatenate([np.arange(len(codes)), *(np.resize(o, min_count)[len(o):] for o in _groups(codes) if len(o) < min_count)])


class Sampler:
    "Rows of one epoch after another; subclass, set `n_rows` and give `epoch`. `i` is the next epoch's number: set it to resume."
    bs = None  # Batch size that it needs, if it needs one
    def __init__(self,
        labels,  # Group of each training listing, (n,)
        seed: int | None = None,  # None draws one from numpy, so that `seed_everything` fixes it
    ):
        self.codes = _codes(labels)
        self.n = self.n_rows = len(self.codes)
        self.seed, self.i = int(np.random.randint(2**31)) if seed is None else seed, 0

    def rng(self, i): return np.random.default_rng([self.seed, i])

    def __len__(self): return self.n_rows

    def __call__(self) -> np.ndarray:  # int64 (n_rows,)
        "The rows of the next epoch."
        res = self.epoch(self.i)
        self.i += 1
        return res

    def epoch(self,
        i: int,  # Number of the epoch, from 0; the same number always gives the same rows
    ) -> np.ndarray:  # int64 (n_rows,)
        "The rows of epoch `i`, in order."
        raise NotImplementedError


class WeightedSampler(Sampler):
    "Draw `n` rows with replacement, those of rare groups more often (`class_weights`)."
    def __init__(self, labels, seed=None,
        power: float = 1.,  # See `class_weights`
    ):
        super().__init__(labels, seed)
        w = class_weights(labels, power)
        self.p = w/w.sum()

    def epoch(self, i): return self.rng(i).choice(self.n, self.n, p=self.p)


class OverSampler(Sampler):
    "Every row once and the rows of rare groups again (`oversample`), shuffled."
    def __init__(self, labels, seed=None,
        min_count: int = 2,  # Listings that every group gets at least
    ):
        super().__init__(labels, seed)
        self.rows = oversample(labels, min_count)
        self.n_rows = len(self.rows)

    def epoch(self, i): return self.rng(i).permutation(self.rows)


class PKSampler(Sampler):
    "Batches of `p` groups x `k` listings, so that each holds pairs: [In Defense of the Triplet Loss](https://arxiv.org/abs/1703.07737)."
    def __init__(self,
        labels,  # Group of each training listing, (n,)
        p: int = 16,  # Groups in a batch, all different; raises `InputError` if there are fewer
        k: int = 4,  # Listings of each; a group of s < k repeats its own, each floor(k/s) or ceil(k/s) times
        seed: int | None = None,  # None draws one from numpy, so that `seed_everything` fixes it
    ):
        super().__init__(labels, seed)
        if p < 1 or k < 1: raise InputError(f'p={p}, k={k}: give 1 or more')
        self.p, self.k, self.bs, self.groups = p, k, p*k, _groups(self.codes)
        if len(self.groups) < p: raise InputError(f'a batch of p={p} groups needs as many, training has {len(self.groups)}: lower p')
        # a group of s listings comes as ceil(s/k) parts of k, each in another batch: n_pass is the most batches that this can fill
        self.parts = np.array([-(-len(o)//k) for o in self.groups])
        self.n_pass = int(self.parts.sum())//p
        while (fill := int(np.minimum(self.parts, self.n_pass).sum())) < p*self.n_pass: self.n_pass = fill//p
        self.n_batches = max(1, round(self.n/self.bs))
        self.n_rows = self.n_batches*self.bs

    def one_pass(self,
        j: int,  # Number of the pass
    ) -> np.ndarray:  # int64 (n_pass, p*k)
        "Deal all parts of all groups once; what doesn't fill a batch is left out, others the next time."
        rng, parts = self.rng(j), []
        for g in rng.permutation(len(self.groups)):
            o = rng.permutation(self.groups[g])
            parts.append(np.resize(o, (self.parts[g], self.k))[:self.n_pass])  # resize starts again where the group ends
        parts = np.concatenate(parts)
        parts = parts[np.sort(rng.permutation(len(parts))[:self.p*self.n_pass])]
        # parts of one group are neighbours here: dealt out in turn, no two come into the same batch
        batches = parts.reshape(self.p, self.n_pass, self.k).transpose(1, 0, 2).reshape(self.n_pass, self.bs)
        return rng.permutation(batches)

    def epoch(self, i):
        "The batches of epoch `i`, end to end; an epoch goes on where the last one stopped, so that every group has its turn."
        nos = range(i*self.n_batches, (i + 1)*self.n_batches)
        passes = {j: self.one_pass(j) for j in {o//self.n_pass for o in nos}}
        return np.concatenate([passes[o//self.n_pass][o % self.n_pass] for o in nos])


@delegates()
class SampledDL(TfmdDL):
    "A `TfmdDL` that draws its training batches with a sampler: `dsets.dataloaders(dl_type=SampledDL, dl_kwargs=[{'sampler': s}, {}])`."
    def __init__(self,
        dataset,  # As for `TfmdDL`
        bs: int = 64,  # Size of batch; a `PKSampler` overrides it with p*k
        sampler: Sampler | None = None,  # Which rows; without it, or with shuffle=False, this is a plain `TfmdDL`
        **kwargs
    ):
        self.sampler = sampler
        if sampler is not None:
            bs = sampler.bs or bs
            if sampler.n != len(dataset): raise InputError(f'the sampler knows {sampler.n} listings, its dataset holds {len(dataset)}')
        super().__init__(dataset, bs=bs, **kwargs)

    def _draws(self): return self.sampler is not None and self.shuffle

    # drawn in the main process once an epoch; a worker takes every num_workers-th batch of it, so their number changes nothing
    def get_idxs(self): return self.sampler().tolist() if self._draws() else super().get_idxs()

    def __len__(self):
        if not self._draws(): return super().__len__()
        return len(self.sampler)//self.bs if self.drop_last else -(-len(self.sampler)//self.bs)

    def new(self, dataset=None, cls=None, **kwargs):
        # fastai makes the validation loader by `train.new(valid_ds)`: the sampler's row numbers would mean other listings there
        if dataset is None and cls is None: kwargs = {'sampler': self.sampler, **kwargs}
        return super().new(dataset, cls, **kwargs)
