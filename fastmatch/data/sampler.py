"""Which listings make up an epoch: batches of P groups x K listings, weighted draws, rare groups repeated.

Any of them, and a plain shuffle, can put titles of like length into the same batch ('buckets'): a batch is
padded to its longest title, and of a batch drawn at random more than half is padding.
"""
import random

import numpy as np
import pandas as pd
from fastai.data.core import TfmdDL
from fastcore.meta import delegates

from ..core import InputError, preview


def _codes(groups):
    "Groups as int (n,) from 0; raises where one is missing."
    codes = pd.factorize(np.asarray(groups))[0]
    if len(codes) == 0: raise InputError('labels is empty')
    missing_rows = np.flatnonzero(codes < 0)
    if missing_rows.size:
        raise InputError(f'{len(missing_rows)} labels are missing, on rows {preview(missing_rows.tolist())}')
    return codes


def _rows_of_groups(codes):
    "The rows of each group, a list of arrays."
    return np.split(np.argsort(codes, kind='stable'), np.cumsum(np.bincount(codes))[:-1])


def class_weights(
    groups,  # Group of each training listing, (n,)
    power: float = 1.,  # 1: every group is drawn as often as any other; 0: every listing; .5 lies between
) -> np.ndarray:  # float64 (n,)
    "Weight each listing by 1 / (size of its group)**power."
    codes = _codes(groups)
    return 1./np.bincount(codes)[codes].astype(np.float64)**power


def oversample(
    groups,  # Group of each training listing, (n,)
    min_count: int,  # Rows that every group gets at least
) -> np.ndarray:  # int64 (n or more,): every row once, then the repeats
    "Repeat the listings of groups smaller than `min_count`, each about equally often."
    codes = _codes(groups)
    if min_count < 1: raise InputError(f'min_count={min_count}: give 1 or more')
    small_groups = [group_rows for group_rows in _rows_of_groups(codes) if len(group_rows) < min_count]
    repeats = [np.resize(group_rows, min_count)[len(group_rows):] for group_rows in small_groups]
    return np.concatenate([np.arange(len(codes)), *repeats])


WINDOW = 50  # batches that are sorted by length together: more saves hardly more padding
MIN_WINDOWS = 4  # in an epoch: sorted as a whole, a small table would give almost the same batches each time


def _windows(n_batches, least=1):
    "The numbers 0 to n_batches - 1, parted into windows of about the same size, `least` or more."
    return np.array_split(np.arange(n_batches), max(least, round(n_batches/WINDOW)))


def in_buckets(
    rows: np.ndarray,  # int (n,): the rows of an epoch, shuffled
    lengths: np.ndarray,  # int: length of every row of the table, e.g. tokens of its title
    bs: int,  # Rows in a batch
    rng: np.random.Generator,  # Shuffles the batches
) -> np.ndarray:  # int (n,): the same rows
    """Sort the rows of an epoch by length within windows of about 50 batches, and shuffle the batches.

    Rows that fill no batch stay at the end as they were drawn: left out, they are no longer ones than others.
    """
    n_batches = len(rows)//bs
    batches = rows[:n_batches*bs].reshape(n_batches, bs)
    for window in _windows(n_batches, MIN_WINDOWS):
        window_rows = batches[window].ravel()
        batches[window] = window_rows[np.argsort(lengths[window_rows], kind='stable')].reshape(-1, bs)
    return np.concatenate([rng.permutation(batches).ravel(), rows[n_batches*bs:]])


class Sampler:
    "The rows of one epoch after another. A subclass gives `epoch`, and sets `n_rows` where that isn't n."
    bs = None  # Batch size that the sampler needs, if it needs one
    def __init__(
        self,
        groups,  # Group of each training listing, (n,)
        seed: int | None = None,  # None draws one from numpy, so that `seed_everything` fixes it
    ):
        self.codes = _codes(groups)
        self.n = self.n_rows = len(self.codes)
        self.seed = int(np.random.randint(2**31)) if seed is None else seed
        self.i = 0  # number of the next epoch: set it to go on where another run stopped

    def rng(
        self,
        i: int,  # Number of an epoch or pass
    ) -> np.random.Generator:
        "A generator that depends on the seed and `i` alone."
        return np.random.default_rng([self.seed, i])

    def __len__(self): return self.n_rows

    def __call__(
        self,
        lengths: np.ndarray | None = None,  # int (n,): batches are of rows of like length; None: of any
        bs: int | None = None,  # Rows in a batch, for `lengths`
    ) -> np.ndarray:  # int64 (n_rows,)
        "The rows of the next epoch."
        row_numbers = self.epoch(self.i) if lengths is None else self.bucketed(self.i, lengths, bs)
        self.i += 1
        return row_numbers

    def epoch(
        self,
        i: int,  # Number of the epoch, from 0; the same number always gives the same rows
    ) -> np.ndarray:  # int64 (n_rows,)
        "The rows of epoch `i`, in order."
        raise NotImplementedError

    def bucketed(
        self,
        i: int,  # Number of the epoch
        lengths: np.ndarray,  # int (n,): length of each row
        bs: int,  # Rows in a batch
    ) -> np.ndarray:  # int64 (n_rows,)
        "The rows of epoch `i` in batches of like length."
        return in_buckets(self.epoch(i), lengths, bs, np.random.default_rng([self.seed, i, 1]))


class WeightedSampler(Sampler):
    "Draw `n` rows with replacement, those of rare groups more often, by `class_weights`."
    def __init__(
        self,
        groups,  # Group of each training listing, (n,)
        seed=None,  # None draws one from numpy
        power: float = 1.,  # 1: every group is drawn as often as any other; 0: every listing
    ):
        super().__init__(groups, seed)
        weights = class_weights(groups, power)
        self.p = weights/weights.sum()

    def epoch(self, i): return self.rng(i).choice(self.n, self.n, p=self.p)


class OverSampler(Sampler):
    "Every row once, the rows of rare groups again by `oversample`, all of them shuffled."
    def __init__(
        self,
        groups,  # Group of each training listing, (n,)
        seed=None,  # None draws one from numpy
        min_count: int = 2,  # Rows that every group gets at least
    ):
        super().__init__(groups, seed)
        self.rows = oversample(groups, min_count)
        self.n_rows = len(self.rows)

    def epoch(self, i): return self.rng(i).permutation(self.rows)


class RowSampler(Sampler):
    """Each row as often as its weight says, without a loss that knows of weights: a row of weight 1 once in
    an epoch, one of weight .3 in three epochs of ten, one of weight 2.5 two or three times.

    Over many epochs the gradient is that of a loss that counts rows by their weights, and an epoch is as much
    shorter as weights are small. Every epoch has the same number of rows, the sum of the weights rounded.
    """
    def __init__(
        self,
        weights,  # Weight of each training listing, (n,), 0 or above
        seed: int | None = None,  # None draws one from numpy
    ):
        weights = np.asarray(weights, dtype=np.float64)
        if weights.ndim != 1 or not (np.isfinite(weights) & (weights >= 0)).all() or not weights.sum() >= 1:
            raise InputError('weights: one number for each listing, 0 or above, with a sum of 1 or more')
        super().__init__(np.zeros(len(weights)), seed)
        self.always = np.repeat(np.arange(self.n), np.floor(weights).astype(np.int64))
        self.shares = weights - np.floor(weights)
        self.n_drawn = round(float(self.shares.sum()))
        self.n_rows = len(self.always) + self.n_drawn

    def epoch(self, i):
        rng = self.rng(i)
        return rng.permutation(np.concatenate([self.always, self._drawn(rng)]))

    def _drawn(self, rng):
        """Rows drawn by the part of their weight behind the point. Systematic sampling: marks at equal
        distances on the shares laid end to end, so that each row gets its probability, but for the rounding
        of their sum, and the number of rows is always the same."""
        if not self.n_drawn: return np.empty(0, np.int64)
        order = rng.permutation(self.n)
        ends = self.shares[order].cumsum()
        marks = (rng.random() + np.arange(self.n_drawn)) * ends[-1] / self.n_drawn
        # a mark at the very end, by rounding, belongs to the last row with a share
        places = np.minimum(np.searchsorted(ends, marks, side='right'), np.searchsorted(ends, ends[-1]))
        return order[places]


class PKSampler(Sampler):
    "Batches of `p` groups x `k` listings: the pairs that pair losses need, https://arxiv.org/abs/1703.07737"
    def __init__(
        self,
        groups,  # Group of each training listing, (n,)
        p: int = 16,  # Groups in a batch, all different; raises `InputError` if there are fewer
        k: int = 4,  # Listings of each; a group of s < k repeats its own, each floor(k/s) or ceil(k/s) times
        seed: int | None = None,  # None draws one from numpy, so that `seed_everything` fixes it
    ):
        super().__init__(groups, seed)
        if p < 1 or k < 1: raise InputError(f'p={p}, k={k}: give 1 or more')
        self.p = p
        self.k = k
        self.bs = p*k
        self.groups = _rows_of_groups(self.codes)
        if len(self.groups) < p:
            raise InputError(f'a batch of p={p} groups needs as many, training has {len(self.groups)}: '
                             'lower p')
        # a group of s listings comes as ceil(s/k) parts of k, each in another batch
        self.parts = np.array([-(-len(group_rows)//k) for group_rows in self.groups])
        self.n_pass = self._batches_in_pass()
        self.n_batches = max(1, round(self.n/self.bs))
        self.n_rows = self.n_batches*self.bs

    def _batches_in_pass(self):
        "The most batches that the parts can fill, where a batch holds one part of a group at most."
        n_batches = int(self.parts.sum())//self.p
        while True:
            # of a group with more parts than there are batches, the rest can't be used
            usable_parts = int(np.minimum(self.parts, n_batches).sum())
            if usable_parts >= self.p*n_batches: return n_batches
            n_batches = usable_parts//self.p

    def one_pass(
        self,
        i: int,  # Number of the pass
        lengths: np.ndarray | None = None,  # int (n,): groups of like length come together; None: any
    ) -> np.ndarray:  # int64 (n_pass, p*k), a batch a row
        "Deal all parts of all groups once; what doesn't fill a batch is left out, another part each time."
        rng = self.rng(i)
        parts = []
        owners = []  # the group of each part
        for group in rng.permutation(len(self.groups)):
            shuffled_rows = rng.permutation(self.groups[group])
            # resize starts again at the first row where the group ends
            parts.append(np.resize(shuffled_rows, (self.parts[group], self.k))[:self.n_pass])
            owners.append(np.full(len(parts[-1]), group))
        parts = np.concatenate(parts)
        kept = np.sort(rng.permutation(len(parts))[:self.p*self.n_pass])
        parts = parts[kept].reshape(self.p, self.n_pass, self.k)
        # parts of one group are neighbors in this array: dealt out in turn, no two come into the same batch
        if lengths is not None:
            owners = np.concatenate(owners)[kept].reshape(self.p, self.n_pass)
            order = _by_length(lengths[parts].max(2), owners)
            parts = np.take_along_axis(parts, order[:, :, None], 1)
        batches = parts.transpose(1, 0, 2).reshape(self.n_pass, self.bs)
        return rng.permutation(batches)

    def epoch(self, i): return self._batches_of(i, None)

    def bucketed(self, i, lengths, bs=None): return self._batches_of(i, lengths)

    def _batches_of(self, i, lengths):
        "The batches of epoch `i`, end to end; it goes on where the last stopped: no group is left out."
        batch_numbers = range(i*self.n_batches, (i + 1)*self.n_batches)
        pass_numbers = {batch//self.n_pass for batch in batch_numbers}
        passes = {number: self.one_pass(number, lengths) for number in pass_numbers}
        return np.concatenate([passes[batch//self.n_pass][batch % self.n_pass] for batch in batch_numbers])


def _by_length(lengths, owners):
    """In which order each line of parts is dealt out, so that a batch, which takes one part of each line,
    gets parts of like length: int (p, n_pass).

    `lengths` and `owners` (the group of each part) are (p, n_pass). Parts of a group are neighbors, so that
    some group may begin in one line and end in the next: where both of its parts would come into the same
    batch, the later one changes places with the nearest part that may.
    """
    order = np.empty(lengths.shape, np.int64)
    for window in _windows(lengths.shape[1]):
        order[:, window] = window[np.argsort(lengths[:, window], axis=1, kind='stable')]
    for line in range(1, len(order)):
        shared = owners[line, 0]
        if owners[line - 1, -1] != shared: continue
        is_taken = owners[line - 1][order[line - 1]] == shared
        is_own = owners[line][order[line]] == shared
        free = np.flatnonzero(~is_taken & ~is_own)
        for place in np.flatnonzero(is_taken & is_own):
            nearest = np.abs(free - place).argmin()
            order[line, [place, free[nearest]]] = order[line, [free[nearest], place]]
            free = np.delete(free, nearest)
    return order


@delegates()
class SampledDL(TfmdDL):
    """A `TfmdDL` that draws its training batches with a sampler.

    `dsets.dataloaders(dl_type=SampledDL, dl_kwargs=[{'sampler': PKSampler(groups)}, {}])`
    """
    lengths = None  # of a loader that an earlier version exported

    def __init__(
        self,
        dataset,  # As for `TfmdDL`
        bs: int = 64,  # Size of a batch; a `PKSampler` overrides it with p*k
        sampler: Sampler | None = None,  # Which rows; without it, or with shuffle=False: a plain `TfmdDL`
        lengths: np.ndarray | None = None,  # int (n,), of items: with shuffle=True batches are of like length
        **kwargs
    ):
        self.sampler = sampler
        self.lengths = lengths
        if sampler is not None:
            bs = sampler.bs or bs
            if sampler.n != len(dataset):
                raise InputError(f'the sampler knows {sampler.n} listings, its dataset holds {len(dataset)}')
        if lengths is not None and len(lengths) != len(dataset):
            raise InputError(f'lengths: {len(lengths)} of them, the dataset holds {len(dataset)} items')
        super().__init__(dataset, bs=bs, **kwargs)

    def _draws(self):
        "Whether the sampler decides which rows are drawn."
        return self.sampler is not None and self.shuffle

    def item_lengths(self) -> np.ndarray | None:  # int (n,)
        "The length of each item, by which batches are put together in training; None: not at all."
        return self.lengths

    # drawn in the main process once an epoch; workers share its batches, so their number changes nothing
    def get_idxs(self):
        "The rows of an epoch."
        lengths = self.item_lengths() if self.shuffle else None
        if self._draws(): return self.sampler(lengths, self.bs).tolist()
        rows = super().get_idxs()
        if lengths is None: return rows
        # a generator of its own: what else is drawn from the loader's stays as without lengths
        own_rng = random.Random()
        own_rng.setstate(self.rng.getstate())
        order_rng = np.random.default_rng(own_rng.getrandbits(63))
        return in_buckets(np.array(rows), lengths, self.bs, order_rng).tolist()

    def __len__(self):
        if not self._draws(): return super().__len__()
        return len(self.sampler)//self.bs if self.drop_last else -(-len(self.sampler)//self.bs)

    def new(self, dataset=None, cls=None, **kwargs):
        "A loader like this one; for another dataset without sampler and lengths."
        # fastai makes the validation loader by `train.new(valid_ds)`: the sampler's rows are others there
        if dataset is None and cls is None:
            kwargs = {'sampler': self.sampler, 'lengths': self.lengths, **kwargs}
        return super().new(dataset, cls, **kwargs)
