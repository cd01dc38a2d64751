"Samplers alone, by their promises; then inside real fastai DataLoaders, with and without worker processes."
from collections import Counter

import numpy as np
import pytest
from fastai.data.core import Datasets
from fastai.torch_core import tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError, seed_everything
from fastmatch.data.sampler import (
    OverSampler,
    PKSampler,
    SampledDL,
    Sampler,
    WeightedSampler,
    class_weights,
    oversample,
)

LABELS = st.lists(st.integers(0, 9), min_size=4, max_size=60)


def skewed(n_groups=30, seed=0):
    "Labels of groups of 1 to 9 listings, shuffled."
    rng = np.random.default_rng(seed)
    return rng.permutation(np.repeat(np.arange(n_groups), rng.integers(1, 10, n_groups)))


@settings(deadline=None)
@given(LABELS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 5))
def test_every_batch_is_p_groups_of_k(labels, p, k, i):
    labels = np.array(labels)
    if len(set(labels)) < p:
        with pytest.raises(InputError, match=f'p={p}.*training has {len(set(labels))}'):
            PKSampler(labels, p, k, seed=0)
        return
    s, sizes = PKSampler(labels, p, k, seed=0), Counter(labels.tolist())
    rows = s.epoch(i)
    assert len(rows) == len(s) == p*k*max(1, round(len(labels)/(p*k)))
    for batch in rows.reshape(-1, p*k):
        groups = Counter(labels[batch].tolist())
        assert len(groups) == p and set(groups.values()) == {k}
        for row, times in Counter(batch.tolist()).items():
            size = sizes[labels[row]]
            assert k//size <= times <= -(-k//size)  # 1 where the group is large enough
        for g in groups:  # as few repeats as possible: as many different listings as there can be
            assert len(set(batch[labels[batch] == g].tolist())) == min(k, sizes[g])


def test_a_pass_gives_every_group_its_turn():
    labels = skewed()
    s = PKSampler(labels, 4, 2, seed=0)
    seen = Counter(s.one_pass(0).ravel().tolist())
    left_out = set(range(len(labels))) - set(seen)
    assert s.n_pass*8 >= len(labels) - 8 and len(left_out) <= 8  # all but what doesn't fill a batch
    many = np.concatenate([s.epoch(i) for i in range(12)])
    assert set(many.tolist()) == set(range(len(labels)))


def test_one_huge_group_fills_no_batch_twice():
    labels = np.array([0]*50 + [1, 2, 3, 3])
    s = PKSampler(labels, 3, 2, seed=0)
    for batch in s.epoch(0).reshape(-1, 6): assert len(set(labels[batch])) == 3
    assert len({tuple(s.epoch(i)) for i in range(4)}) == 4


def test_partners_and_repeats_change_from_pass_to_pass():
    s = PKSampler([0]*5 + [1]*5, 2, 2, seed=0)
    pairs = {tuple(sorted(pair)) for j in range(30) for pair in s.one_pass(j).reshape(-1, 2).tolist()}
    assert len(pairs) == 20  # all pairs of five, in both groups
    s = PKSampler([0, 0, 1, 1], 2, 3, seed=0)
    assert {Counter(s.epoch(i).tolist())[0] for i in range(20)} == {1, 2}


def test_parts_of_one_group_are_not_always_in_neighbouring_batches():
    labels = [0]*4 + list(range(1, 13))
    s = PKSampler(labels, 2, 2, seed=0)
    gaps = {
        int(np.diff(np.flatnonzero((s.one_pass(j) < 4).any(1)))[0])
        for j in range(20)
        if (s.one_pass(j) < 4).any(1).sum() == 2
    }
    assert gaps - {1, s.n_pass - 1}  # the last and the first batch count as neighbours too


@pytest.mark.parametrize(
    'make',
    [
        lambda y, seed: PKSampler(y, 5, 3, seed),
        lambda y, seed: WeightedSampler(y, seed),
        lambda y, seed: OverSampler(y, seed, min_count=4),
    ],
)
def test_same_seed_same_epochs_and_every_epoch_differs(make):
    y = skewed()
    a, b, c = make(y, 3), make(y, 3), make(y, 4)
    first = [a() for _ in range(3)]
    assert all(np.array_equal(rows, b()) for rows in first)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], c())
    b.i = 1  # what a resumed run does
    assert np.array_equal(b(), first[1]) and np.array_equal(a.epoch(0), first[0]) and a.i == 3


def test_seed_everything_fixes_an_unseeded_sampler():
    seeds = []
    for s in (1, 1, 2):
        seed_everything(s)
        seeds.append(PKSampler(skewed(), 4, 2).seed)
    assert seeds[0] == seeds[1] != seeds[2]


def test_class_weights():
    y = ['a', 'a', 'a', 'a', 'b']
    assert class_weights(y).tolist() == [.25]*4 + [1.]
    assert class_weights(y, power=.5).tolist() == [.5]*4 + [1.]
    assert class_weights(y, power=0).tolist() == [1.]*5
    rows = np.concatenate([WeightedSampler(y, seed=0).epoch(i) for i in range(2000)])
    assert abs((rows == 4).mean() - .5) < .02  # each group as often as the other
    rows = np.concatenate([WeightedSampler(y, seed=0, power=0).epoch(i) for i in range(2000)])
    assert abs((rows == 4).mean() - .2) < .02


@given(LABELS, st.integers(1, 6))
def test_oversample_fills_up_evenly(labels, m):
    rows = oversample(labels, m)
    assert rows[:len(labels)].tolist() == list(range(len(labels)))
    counts, y = Counter(rows.tolist()), np.array(labels)
    for g, size in Counter(labels).items():
        mine = [counts[i] for i in np.flatnonzero(y == g).tolist()]
        assert sum(mine) == max(size, m) and max(mine) - min(mine) <= 1
    assert sorted(OverSampler(labels, 0, m)().tolist()) == sorted(rows.tolist())


def test_unusable_labels_are_named():
    for make in (lambda y: PKSampler(y, 1, 2), WeightedSampler, class_weights, lambda y: oversample(y, 2)):
        with pytest.raises(InputError, match='1 labels are missing, on rows 1'): make(['a', None, 'b'])
        with pytest.raises(InputError, match='empty'): make([])
    with pytest.raises(InputError, match='p=0, k=2'): PKSampler(['a', 'b'], 0, 2)
    with pytest.raises(InputError, match='min_count=0'): oversample(['a'], 0)
    with pytest.raises(NotImplementedError): Sampler(['a'])()


Y = skewed(12)


def loaders(sampler, num_workers=0, bs=8, **kwargs):
    "Real fastai loaders: an item is its own row number and its group; the last 20 rows validate."
    items = list(range(len(Y) + 20))
    dsets = Datasets(
        items, [[tensor], [lambda i: tensor(Y[i % len(Y)])]], splits=[items[: len(Y)], items[len(Y) :]]
    )
    return dsets.dataloaders(
        bs=bs,
        num_workers=num_workers,
        device='cpu',
        dl_type=SampledDL,
        dl_kwargs=[{'sampler': sampler}, {}],
        **kwargs,
    )


def epochs(dl, n=2): return [[b[0].tolist() for b in dl] for _ in range(n)]


def test_batches_of_a_real_loader_are_the_samplers():
    s = PKSampler(Y, 3, 2, seed=5)
    dls = loaders(PKSampler(Y, 3, 2, seed=5))
    assert dls.train.bs == 6 and dls.valid.bs == 8
    for i, batches in enumerate(epochs(dls.train)):
        assert len(batches) == len(dls.train) == s.n_batches
        assert batches == s.epoch(i).reshape(-1, 6).tolist()
    for x, y in dls.train: assert all(Y[i] == g for i, g in zip(x.tolist(), y.tolist()))


@pytest.mark.parametrize(
    'make',
    [lambda: PKSampler(Y, 3, 2, seed=5), lambda: WeightedSampler(Y, seed=5), lambda: OverSampler(Y, 5, 4)],
)
def test_workers_change_nothing(make):
    assert epochs(loaders(make(), 0).train) == epochs(loaders(make(), 2).train)


@pytest.mark.parametrize('drop_last', [True, False])
def test_length_is_what_comes(drop_last):
    for s in (WeightedSampler(Y, 0), OverSampler(Y, 0, 5), PKSampler(Y, 5, 3, 0)):
        dl = loaders(s, drop_last=drop_last).train
        assert len(dl) == len(list(dl))


def test_validation_and_unshuffled_loaders_stay_plain():
    dls = loaders(PKSampler(Y, 3, 2, seed=5))
    assert dls.valid.sampler is None and sum(epochs(dls.valid, 1)[0], []) == list(range(len(Y), len(Y) + 20))
    plain = dls.train.new(shuffle=False, drop_last=False)
    assert sum(epochs(plain, 1)[0], []) == list(range(len(Y))) and len(plain) == -(-len(Y)//6)
    assert dls.train.new().sampler is dls.train.sampler
    assert sum(epochs(dls.test_dl(list(range(5))), 1)[0], []) == list(range(5))
    assert loaders(None).train.bs == 8 and len(epochs(loaders(None).train, 1)[0]) == len(Y)//8


def test_a_sampler_for_other_listings_is_refused():
    with pytest.raises(InputError, match=f'knows 4 listings, its dataset holds {len(Y)}'):
        loaders(PKSampler([0, 0, 1, 1], 2, 2))
