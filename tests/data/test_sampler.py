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
    RowSampler,
    SampledDL,
    Sampler,
    WeightedSampler,
    class_weights,
    in_buckets,
    oversample,
)

LABELS = st.lists(st.integers(0, 9), min_size=4, max_size=60)


def skewed(n_groups=30, seed=0):
    "Labels of groups of 1 to 9 listings, shuffled."
    rng = np.random.default_rng(seed)
    return rng.permutation(np.repeat(np.arange(n_groups), rng.integers(1, 10, n_groups)))


@settings(deadline=None)
@given(LABELS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 5))
def test_every_batch_is_p_groups_of_k(labels, p, k, epoch):
    labels = np.array(labels)
    if len(set(labels)) < p:
        with pytest.raises(InputError, match=f'p={p}.*training has {len(set(labels))}'):
            PKSampler(labels, p, k, seed=0)
        return
    sampler, group_sizes = PKSampler(labels, p, k, seed=0), Counter(labels.tolist())
    drawn = sampler.epoch(epoch)
    assert len(drawn) == len(sampler) == p*k*max(1, round(len(labels)/(p*k)))
    for batch in drawn.reshape(-1, p*k):
        groups = Counter(labels[batch].tolist())
        assert len(groups) == p and set(groups.values()) == {k}
        for row, times in Counter(batch.tolist()).items():
            group_size = group_sizes[labels[row]]
            assert k//group_size <= times <= -(-k//group_size)  # 1 where the group is large enough
        for group in groups:  # as few repeats as possible: as many different listings as there can be
            assert len(set(batch[labels[batch] == group].tolist())) == min(k, group_sizes[group])


def test_a_pass_gives_every_group_its_turn():
    labels = skewed()
    sampler = PKSampler(labels, 4, 2, seed=0)
    seen = Counter(sampler.one_pass(0).ravel().tolist())
    left_out = set(range(len(labels))) - set(seen)
    assert sampler.n_pass*8 >= len(labels) - 8 and len(left_out) <= 8  # all but what doesn't fill a batch
    drawn = np.concatenate([sampler.epoch(epoch) for epoch in range(12)])
    assert set(drawn.tolist()) == set(range(len(labels)))


def test_one_huge_group_fills_no_batch_twice():
    labels = np.array([0]*50 + [1, 2, 3, 3])
    sampler = PKSampler(labels, 3, 2, seed=0)
    for batch in sampler.epoch(0).reshape(-1, 6): assert len(set(labels[batch])) == 3
    assert len({tuple(sampler.epoch(epoch)) for epoch in range(4)}) == 4


def test_partners_and_repeats_change_from_pass_to_pass():
    sampler = PKSampler([0]*5 + [1]*5, 2, 2, seed=0)
    pairs = {
        tuple(sorted(pair))
        for number in range(30)
        for pair in sampler.one_pass(number).reshape(-1, 2).tolist()
    }
    assert len(pairs) == 20  # all pairs of five, in both groups
    sampler = PKSampler([0, 0, 1, 1], 2, 3, seed=0)
    assert {Counter(sampler.epoch(epoch).tolist())[0] for epoch in range(20)} == {1, 2}


def test_parts_of_one_group_are_not_always_in_neighbouring_batches():
    labels = [0]*4 + list(range(1, 13))
    sampler = PKSampler(labels, 2, 2, seed=0)
    gaps = {
        int(np.diff(np.flatnonzero((sampler.one_pass(number) < 4).any(1)))[0])
        for number in range(20)
        if (sampler.one_pass(number) < 4).any(1).sum() == 2
    }
    assert gaps - {1, sampler.n_pass - 1}  # the last and the first batch count as neighbours too


@pytest.mark.parametrize(
    'make_sampler',
    [
        lambda labels, seed: PKSampler(labels, 5, 3, seed),
        lambda labels, seed: WeightedSampler(labels, seed),
        lambda labels, seed: OverSampler(labels, seed, min_count=4),
    ],
)
def test_same_seed_same_epochs_and_every_epoch_differs(make_sampler):
    labels = skewed()
    sampler, twin, other_seed = make_sampler(labels, 3), make_sampler(labels, 3), make_sampler(labels, 4)
    first_epochs = [sampler() for _ in range(3)]
    assert all(np.array_equal(rows, twin()) for rows in first_epochs)
    assert not np.array_equal(first_epochs[0], first_epochs[1])
    assert not np.array_equal(first_epochs[0], other_seed())
    twin.i = 1  # what a resumed run does
    assert np.array_equal(twin(), first_epochs[1]) and np.array_equal(sampler.epoch(0), first_epochs[0])
    assert sampler.i == 3


def test_seed_everything_fixes_an_unseeded_sampler():
    seeds = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        seeds.append(PKSampler(skewed(), 4, 2).seed)
    assert seeds[0] == seeds[1] != seeds[2]


def test_class_weights():
    labels = ['a', 'a', 'a', 'a', 'b']
    assert class_weights(labels).tolist() == [.25]*4 + [1.]
    assert class_weights(labels, power=.5).tolist() == [.5]*4 + [1.]
    assert class_weights(labels, power=0).tolist() == [1.]*5
    rows = np.concatenate([WeightedSampler(labels, seed=0).epoch(epoch) for epoch in range(2000)])
    assert abs((rows == 4).mean() - .5) < .02  # each group as often as the other
    rows = np.concatenate([WeightedSampler(labels, seed=0, power=0).epoch(epoch) for epoch in range(2000)])
    assert abs((rows == 4).mean() - .2) < .02


@given(LABELS, st.integers(1, 6))
def test_oversample_fills_up_evenly(labels, min_count):
    rows = oversample(labels, min_count)
    assert rows[:len(labels)].tolist() == list(range(len(labels)))
    counts, label_array = Counter(rows.tolist()), np.array(labels)
    for group, size in Counter(labels).items():
        repeats = [counts[row] for row in np.flatnonzero(label_array == group).tolist()]
        assert sum(repeats) == max(size, min_count) and max(repeats) - min(repeats) <= 1
    assert sorted(OverSampler(labels, 0, min_count)().tolist()) == sorted(rows.tolist())


def test_unusable_labels_are_named():
    uses = (
        lambda labels: PKSampler(labels, 1, 2),
        WeightedSampler,
        class_weights,
        lambda labels: oversample(labels, 2),
    )
    for use_labels in uses:
        with pytest.raises(InputError, match='1 labels are missing, on rows 1'): use_labels(['a', None, 'b'])
        with pytest.raises(InputError, match='empty'): use_labels([])
    with pytest.raises(InputError, match='p=0, k=2'): PKSampler(['a', 'b'], 0, 2)
    with pytest.raises(InputError, match='min_count=0'): oversample(['a'], 0)
    with pytest.raises(NotImplementedError): Sampler(['a'])()


GROUPS = skewed(12)


def make_loaders(sampler, num_workers=0, bs=8, lengths=None, **kwargs):
    "Real fastai loaders: an item is its own row number and its group; the last 20 rows validate."
    items = list(range(len(GROUPS) + 20))
    def group_of(row): return tensor(GROUPS[row % len(GROUPS)])
    splits = [items[:len(GROUPS)], items[len(GROUPS):]]
    datasets = Datasets(items, [[tensor], [group_of]], splits=splits)
    return datasets.dataloaders(
        bs=bs,
        num_workers=num_workers,
        device='cpu',
        dl_type=SampledDL,
        dl_kwargs=[{'sampler': sampler, 'lengths': lengths}, {}],
        **kwargs,
    )


def epochs(loader, n_epochs=2): return [[batch[0].tolist() for batch in loader] for _ in range(n_epochs)]


def test_batches_of_a_real_loader_are_the_samplers():
    sampler = PKSampler(GROUPS, 3, 2, seed=5)
    real_loaders = make_loaders(PKSampler(GROUPS, 3, 2, seed=5))
    assert real_loaders.train.bs == 6 and real_loaders.valid.bs == 8
    for epoch, batches in enumerate(epochs(real_loaders.train)):
        assert len(batches) == len(real_loaders.train) == sampler.n_batches
        assert batches == sampler.epoch(epoch).reshape(-1, 6).tolist()
    for rows, groups in real_loaders.train:
        assert all(GROUPS[row] == group for row, group in zip(rows.tolist(), groups.tolist()))


@pytest.mark.parametrize(
    'make_sampler',
    [
        lambda: PKSampler(GROUPS, 3, 2, seed=5),
        lambda: WeightedSampler(GROUPS, seed=5),
        lambda: OverSampler(GROUPS, 5, 4),
    ],
)
def test_workers_change_nothing(make_sampler):
    assert epochs(make_loaders(make_sampler(), 0).train) == epochs(make_loaders(make_sampler(), 2).train)


@pytest.mark.parametrize('drop_last', [True, False])
def test_length_is_what_comes(drop_last):
    for sampler in (WeightedSampler(GROUPS, 0), OverSampler(GROUPS, 0, 5), PKSampler(GROUPS, 5, 3, 0)):
        loader = make_loaders(sampler, drop_last=drop_last).train
        assert len(loader) == len(list(loader))


def test_validation_and_unshuffled_loaders_stay_plain():
    real_loaders = make_loaders(PKSampler(GROUPS, 3, 2, seed=5))
    assert real_loaders.valid.sampler is None
    assert sum(epochs(real_loaders.valid, 1)[0], []) == list(range(len(GROUPS), len(GROUPS) + 20))
    plain = real_loaders.train.new(shuffle=False, drop_last=False)
    assert sum(epochs(plain, 1)[0], []) == list(range(len(GROUPS))) and len(plain) == -(-len(GROUPS)//6)
    assert real_loaders.train.new().sampler is real_loaders.train.sampler
    assert sum(epochs(real_loaders.test_dl(list(range(5))), 1)[0], []) == list(range(5))
    assert make_loaders(None).train.bs == 8 and len(epochs(make_loaders(None).train, 1)[0]) == len(GROUPS)//8


def test_a_sampler_for_other_listings_is_refused():
    with pytest.raises(InputError, match=f'knows 4 listings, its dataset holds {len(GROUPS)}'):
        make_loaders(PKSampler([0, 0, 1, 1], 2, 2))


def skewed_lengths(n, seed=0): return np.random.default_rng(seed).gamma(2., 10., n).astype(np.int64) + 2


def padded(rows, lengths, bs):
    "Tokens of the full batches of an epoch, padding included, batch by batch."
    return sum(bs*max(lengths[row] for row in rows[start:start + bs])
               for start in range(0, len(rows)//bs*bs, bs))


def test_buckets_hold_every_row_once_and_save_half():
    lengths = skewed_lengths(6_410)
    drawn = np.random.default_rng(0).permutation(6_410)
    rows = in_buckets(drawn.copy(), lengths, 32, np.random.default_rng(1))
    assert sorted(rows.tolist()) == list(range(6_410))
    # no more than a tenth above titles that are not padded at all, where shuffled ones take over twice that
    assert padded(rows, lengths, 32) < 1.1*lengths[rows[:6_400]].sum()
    assert padded(drawn, lengths, 32) > 2*lengths[drawn[:6_400]].sum()
    # what fills no batch is what the shuffle left, long or short
    assert rows[6_400:].tolist() == drawn[6_400:].tolist()
    # the batches come in no order of length
    longest = lengths[rows[:6_400]].reshape(-1, 32).max(1)
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < .2


@pytest.mark.parametrize('n_batches, n_windows', [(3, 4), (40, 4), (200, 4), (300, 6), (1000, 20)])
def test_rows_move_within_their_window_alone(n_batches, n_windows):
    lengths = skewed_lengths(n_batches*4)
    drawn = np.random.default_rng(0).permutation(n_batches*4)
    rows = in_buckets(drawn.copy(), lengths, 4, np.random.default_rng(1))
    batches = {frozenset(batch) for batch in rows.reshape(-1, 4).tolist()}
    for window in np.array_split(drawn.reshape(-1, 4), n_windows):
        by_length = sorted(window.ravel().tolist(), key=lambda row: lengths[row])
        for start in range(0, len(by_length), 4): assert frozenset(by_length[start:start + 4]) in batches


@settings(deadline=None)
@given(LABELS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 5))
def test_buckets_of_groups_keep_what_a_batch_is(labels, p, k, number):
    labels = np.array(labels)
    if len(set(labels)) < p: return
    sampler = PKSampler(labels, p, k, seed=0)
    lengths = skewed_lengths(len(labels))
    plain, bucketed = sampler.one_pass(number), sampler.one_pass(number, lengths)
    # the same parts of the same groups, in other batches
    def parts(batches): return sorted(batches.reshape(-1, k).tolist())
    assert parts(plain) == parts(bucketed)
    for batch in bucketed:
        groups = Counter(labels[batch].tolist())
        assert len(groups) == p and set(groups.values()) == {k}
        # a part stays together
        assert (labels[batch].reshape(p, k) == labels[batch][::k, None]).all()


def test_groups_of_like_length_meet():
    labels = np.repeat(np.arange(4_000), 2)
    lengths = np.repeat(skewed_lengths(4_000), 2)
    sampler = PKSampler(labels, 16, 2, seed=0)
    rows = sampler.bucketed(0, lengths)
    assert padded(rows, lengths, 32) < .6*padded(sampler.epoch(0), lengths, 32)
    # which groups meet is drawn anew in each pass
    def partners(number):
        batches = labels[sampler.one_pass(number, lengths)]
        return {(batch[0], group) for batch in np.sort(batches) for group in batch[1:]}
    assert len(partners(0) & partners(1)) < .2*len(partners(0))


def test_the_one_huge_group_keeps_out_of_its_own_batches_in_buckets():
    "It begins in one line of parts and ends in the next, with the same length: each of its places clashes."
    labels = np.array([0]*60 + list(range(1, 60)))
    lengths = np.where(labels == 0, 20, np.arange(len(labels)))
    sampler = PKSampler(labels, 3, 2, seed=0)
    clashes = 0
    for number in range(30):
        batches = labels[sampler.one_pass(number, lengths)]
        for batch in batches: assert len(set(batch)) == 3
        clashes += int((batches == 0).any(1).sum())
    assert clashes > 300


@pytest.mark.parametrize('make_sampler', [
    lambda: PKSampler(GROUPS, 3, 2, seed=5), lambda: WeightedSampler(GROUPS, seed=5),
    lambda: OverSampler(GROUPS, 5, 4)])
def test_samplers_in_buckets(make_sampler):
    lengths = skewed_lengths(len(GROUPS))
    def loader(num_workers=0, lengths=lengths):
        return make_loaders(make_sampler(), num_workers, lengths=lengths).train
    drawn = epochs(loader())
    assert drawn == epochs(loader(2)) and drawn[0] != drawn[1]
    sampler, bs = make_sampler(), loader().bs
    n_batches = len(drawn[0])
    for number, batches in enumerate(drawn):
        expected = sampler.bucketed(number, lengths, bs)[:n_batches*bs].reshape(-1, bs)
        assert batches == expected.tolist()
    plain = epochs(loader(lengths=None))
    # nobody is drawn who wasn't
    if not isinstance(sampler, PKSampler): assert Counter(sum(drawn[0], [])) == Counter(sum(plain[0], []))
    resumed = loader()
    resumed.sampler.i = 1
    assert epochs(resumed, 1)[0] == drawn[1]


def test_a_plain_shuffle_in_buckets():
    lengths = skewed_lengths(len(GROUPS))
    def drawn(seed, num_workers=0, lengths=lengths):
        seed_everything(seed)
        loader = make_loaders(None, num_workers, lengths=lengths).train
        return epochs(loader)
    assert drawn(0) == drawn(0) == drawn(0, 2) != drawn(1)
    # the shuffle itself is the one without lengths, and so is the next epoch's
    for bucketed, plain in zip(drawn(0), drawn(0, lengths=None)):
        assert sorted(sum(bucketed, [])) == sorted(sum(plain, [])) and bucketed != plain


def test_lengths_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=f'lengths: 3 of them, the dataset holds {len(GROUPS)}'):
        make_loaders(None, lengths=np.arange(3))


def test_lengths_stay_with_their_items():
    loaders = make_loaders(None, lengths=skewed_lengths(len(GROUPS)))
    assert loaders.valid.lengths is None and loaders.train.new().lengths is loaders.train.lengths
    assert sum(epochs(loaders.valid, 1)[0], []) == list(range(len(GROUPS), len(GROUPS) + 20))
WEIGHTS = st.lists(st.floats(0, 3), min_size=1, max_size=30).filter(lambda weights: sum(weights) >= 1)


@settings(deadline=None)
@given(WEIGHTS, st.integers(0, 5))
def test_rows_by_weight(weights, epoch):
    sampler = RowSampler(weights, seed=1)
    drawn = sampler.epoch(epoch)
    counts = np.bincount(drawn, minlength=len(weights))
    shares = np.array(weights) % 1
    assert len(drawn) == len(sampler) == sum(map(int, weights)) + round(shares.sum())
    assert (counts >= np.floor(weights)).all() and counts[np.array(weights) == 0].sum() == 0
    # where rounding has raised the sum, a row can come once more
    most = 1 + (shares.sum() < round(shares.sum()))
    assert (counts <= np.floor(weights) + np.where(shares > 0, most, 0)).all()
    np.testing.assert_array_equal(drawn, RowSampler(weights, seed=1).epoch(epoch))


def test_each_row_as_often_as_its_weight():
    weights = np.array([1., 0., .1, .25, .65, 2.5, .5, 1.])
    counts = np.bincount(np.concatenate([RowSampler(weights, 3).epoch(epoch) for epoch in range(4000)]))
    # a row's number is one of two neighbors: a deviation of at most .5 / sqrt(epochs), five of them
    np.testing.assert_allclose(counts / 4000, weights, atol=5 * .5 / 4000**.5)


@pytest.mark.parametrize('weights', [[], [.2, .3], [1., -1., 2.], [1., np.nan], [[1., 2.]]])
def test_weights_that_are_none(weights):
    with pytest.raises(InputError, match='one number for each listing, 0 or above'): RowSampler(weights)
