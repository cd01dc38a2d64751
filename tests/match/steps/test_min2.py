"Forced matches against loops over rows."

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.match import (
    decide,
    min2,
)
from tests.match.cases import cases
from tests.reference import match as ref


def as_lists(matches): return [match.tolist() for match in matches]


THRESHOLDS = st.sampled_from([-1., -.75, 0., .25, .5, .5 + 2**-24, 1., 101.])


@settings(max_examples=100, deadline=None)
@given(
    random_case=cases(smallest=1),
    decide_threshold=THRESHOLDS,
    threshold=st.none() | THRESHOLDS,
    mutual=st.booleans(),
    gap=st.none() | st.sampled_from([0.0, 2**-24, 0.25]),
)
def test_min2(random_case, decide_threshold, threshold, mutual, gap):
    neighbors, _ = random_case
    matches = decide(neighbors, decide_threshold)
    actual = min2(matches, neighbors, threshold, mutual, gap)
    assert as_lists(actual) == ref.min2(
        as_lists(matches), neighbors.ids, neighbors.scores, threshold, mutual, gap
    )
    for i in range(len(matches)):
        np.testing.assert_array_equal(
            actual.scores[actual.indptr[i] : actual.indptr[i + 1]],
            [neighbors.scores[i, neighbors.ids[i].tolist().index(neighbor)] for neighbor in actual[i]],
        )
