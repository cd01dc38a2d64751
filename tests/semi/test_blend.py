"Blends: formulas, weights against a grid, scores that don't know their own fold."
import numpy as np
import pytest
from sklearn.metrics import f1_score

from fastmatch.core import InputError
from fastmatch.semi.blend import best_weights, blend_probabilities, find_blend
from tests.semi.made import of, truth, way


def grid(n_ways, steps=20):
    "All weights of sum 1 on a grid."
    axes = np.meshgrid(*[np.arange(steps + 1)] * n_ways)
    cells = np.stack([axis.ravel() for axis in axes], 1)
    return cells[cells.sum(1) == steps] / steps


def test_formulas():
    first, second = np.array([[.9, .1], [.5, .5]]), np.array([[.2, .8], [.5, .5]])
    np.testing.assert_allclose(blend_probabilities([first, second], [3, 1]), .75 * first + .25 * second)
    powers = first**.75 * second**.25
    np.testing.assert_allclose(blend_probabilities([first, second], [3, 1], 'logits'),
                               powers / powers.sum(1, keepdims=True))
    for options in (dict(how='mean'), dict(weights=[1]), dict(weights=[-1, 2])):
        with pytest.raises(InputError, match='=.*(choose one of|2 numbers)'):
            blend_probabilities([first, second], **options)


@pytest.mark.parametrize('how', ['probabilities', 'logits'])
@pytest.mark.parametrize('metric', ['log_loss', 'macro_f1'])
def test_weights_are_no_worse_than_a_grids(how, metric):
    targets, folds = truth()
    parts = [way(targets, folds, strength, seed) for strength, seed in ((2, 1), (1.5, 2), (.1, 3))]

    def score(weights):
        found = blend_probabilities([part.probabilities for part in parts], weights, how)
        if metric == 'log_loss': return np.log(found[range(len(targets)), targets]).mean()
        return f1_score(targets, found.argmax(1), average='macro', zero_division=0)
    for chosen in (parts[:2], parts):
        weights = best_weights([part.probabilities for part in chosen], targets, how, metric)
        assert weights.min() >= 0 and abs(weights.sum() - 1) < 1e-9
        parts = chosen
        best = max(map(score, grid(len(chosen))))
        # three weights one by one may end below the best of all
        slack = 1e-9 if metric == 'log_loss' or len(chosen) == 2 else .01
        assert score(weights) >= best - slack
        if metric == 'macro_f1': assert score(weights) >= score(None)


def test_a_useless_way_gets_no_weight_by_log_loss():
    targets, folds = truth(600)
    parts = [way(targets, folds, 2.5, 1), way(targets, folds, -2., 2)]
    assert find_blend(parts).weights[1] < .02


def test_the_honest_score_does_not_know_its_own_fold():
    targets, folds = truth()
    parts = [way(targets, folds, 1., seed) for seed in range(4)]
    found = find_blend(parts, 'macro_f1')
    assert found.chosen_on.macro_f1 >= max(part.macro_f1 for part in parts)
    for fold in range(5):
        is_own = folds == fold
        # by hand, without anything of this fold
        weights = best_weights([part.probabilities[~is_own] for part in parts], targets[~is_own],
                               metric='macro_f1')
        wanted = blend_probabilities([part.probabilities[is_own] for part in parts], weights)
        np.testing.assert_array_equal(found.heldout.probabilities[is_own], wanted)
        # other labels in this fold change nothing
        other = np.where(is_own, (targets + 1) % 4, targets)
        relabelled = find_blend([of(part.probabilities, other, folds) for part in parts], 'macro_f1')
        np.testing.assert_array_equal(relabelled.heldout.probabilities[is_own], wanted)
    np.testing.assert_allclose(found([part.probabilities for part in parts]), found.chosen_on.probabilities)
