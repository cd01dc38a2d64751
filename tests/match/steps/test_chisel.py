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
@given(case=cases(smallest=1), share=st.lists(st.sampled_from([0., .1, .34, .5, .8, 1.]), max_size=4))
def test_chisel(case, share):
    neighbors, labels = case
    share = sorted(share, reverse=True)
    assert [row.tolist() for row in chisel(decide(neighbors, 9), neighbors, share)] == ref.chisel(
        neighbors.ids, neighbors.scores, share
    )


def test_chisel_gives_the_sizes_asked_for():
    labels = np.repeat(np.arange(20), [1, 2, 3, 4, 5] * 4)
    neighbors = Dense(noisy(60, 6, 0)).search(20)
    want = shares(labels)
    got = np.diff(chisel(decide(neighbors, 9), neighbors, want).indptr)
    assert want == [(np.bincount(labels)[labels] >= item).mean() for item in (2, 3, 4, 5)]
    assert np.bincount(got)[1:].tolist() == np.bincount(np.bincount(labels)[labels])[1:].tolist()
    assert shares([1, 2, 3]) == [] and shares([1] * 9, max_matches=3) == [1., 1.]
