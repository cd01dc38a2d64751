"Intervals of the held-out protocol under the null, many times: 95% of them hold what is true."
import numpy as np
import pytest

from fastmatch.match import Dense, heldout, paired
from fastmatch.match.judge.compare import compare

WIDTH = 16


def two_ways(n_groups, rng, noise, kinship, shared):
    """Two embeddings of the same listings, neither better than the other, and the groups.

    Groups come in families of three that are near each other by `kinship`; `shared` is how much of the noise
    both embeddings have in common.
    """
    groups = np.repeat(np.arange(n_groups), rng.integers(2, 6, n_groups))
    families = rng.normal(size=(n_groups, WIDTH))[rng.integers(0, max(1, n_groups // 3), n_groups)]
    centers = np.sqrt(kinship) * families + np.sqrt(1 - kinship) * rng.normal(size=(n_groups, WIDTH))
    common, *own = noise * rng.normal(size=(3, len(groups), WIDTH))
    return [centers[groups] + np.sqrt(shared) * common + np.sqrt(1 - shared) * each for each in own], groups


@pytest.mark.slow
@pytest.mark.parametrize('noise, kinship, shared', [(.9, .5, .5), (.6, .8, .5), (.9, .5, 0.)])
@pytest.mark.parametrize('n_groups', [60, 150])
def test_coverage(n_groups, noise, kinship, shared):
    "Both `paired` and `compare`; of one way the interval around its mean holds the mean of all draws."
    n_draws, held, means = 400, np.zeros((2, 400), bool), []
    for draw in range(n_draws):
        rng = np.random.default_rng([draw, n_groups])
        vectors, groups = two_ways(n_groups, rng, noise, kinship, shared)
        first, second = (heldout(Dense(each).search(20), groups, seed=draw) for each in vectors)
        for place, figures in enumerate((paired(first, second, n_boot=1000), compare(first, second))):
            held[place, draw] = figures.low <= 0 <= figures.high
        means.append((first.mean, first.se))
    # the standard error of a share of 400 is .011
    assert (np.abs(held.mean(1) - .95) < .035).all(), held.mean(1)
    mean, standard_error = np.array(means).T
    assert .9 < (np.abs(mean - mean.mean()) < 1.96 * standard_error).mean() < .99
