"Chiselled sizes against loops over rows."
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.match import (
    Dense,
    chisel,
    decide,
    shares,
)
from tests.match.cases import cases, noisy
from tests.reference import match as ref


@settings(max_examples=100, deadline=None)
@given(
    random_case=cases(smallest=1),
    kept_shares=st.lists(st.sampled_from([0.0, 0.1, 0.34, 0.5, 0.8, 1.0]), max_size=4),
)
def test_chisel(random_case, kept_shares):
    neighbors, labels = random_case
    kept_shares = sorted(kept_shares, reverse=True)
    matches = chisel(decide(neighbors, 9), neighbors, kept_shares)
    expected = ref.chisel(neighbors.ids, neighbors.scores, kept_shares)
    assert [matched_ids.tolist() for matched_ids in matches] == expected


def test_chisel_gives_the_sizes_asked_for():
    labels = np.repeat(np.arange(20), [1, 2, 3, 4, 5] * 4)
    neighbors = Dense(noisy(60, 6, 0)).search(20)
    expected = shares(labels)
    actual = np.diff(chisel(decide(neighbors, 9), neighbors, expected).indptr)
    assert expected == [(np.bincount(labels)[labels] >= size).mean() for size in (2, 3, 4, 5)]
    assert np.bincount(actual)[1:].tolist() == np.bincount(np.bincount(labels)[labels])[1:].tolist()
    assert shares([1, 2, 3]) == [] and shares([1] * 9, max_matches=3) == [1., 1.]
