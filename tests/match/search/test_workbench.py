"The workbench: what it gives for a structure is what the rule of that structure gives in use."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Groups, Keys, Setting, Step, row_f1
from fastmatch.match.search.structure import RuleStructure
from fastmatch.match.search.workbench import Workbench
from tests.match.search.made import listings, settings

MEAN = RuleStructure('mean', (('image', .5), ('title', .3), ('tfidf', .2)))
STRUCTURES = {
    'plain': MEAN,
    'power': RuleStructure('power', (('image', 0.6), ('title', 0.7), ('tfidf', 0.8)), 2.0),
    'augment': RuleStructure(
        MEAN.how, MEAN.weights, vector_steps=(Step('augment', by=MEAN.fusion, k=2),), ranks=2
    ),
    'twice': RuleStructure(
        MEAN.how, MEAN.weights, vector_steps=(Step('augment', k=3), Step('expand', by=MEAN.fusion, k=2))
    ),
    'veto': RuleStructure(MEAN.how, MEAN.weights, score_steps=(Step('veto'),)),
    'reranked': RuleStructure(
        MEAN.how,
        MEAN.weights,
        vector_steps=(Step('augment', by={'how': 'mean', 'weights': {'image': 1.0}}, k=2),),
        score_steps=(Step('k_reciprocal', k1=3, k2=2), Step('mutual', k=9)),
        ranks=2,
    ),
}


@pytest.mark.parametrize('setting_number', [0, 1])
@pytest.mark.parametrize('structure', STRUCTURES.values(), ids=STRUCTURES)
def test_what_it_gives_is_what_the_rule_does(structure, setting_number):
    setting = settings(listings())[setting_number]
    bench = Workbench(setting, 15)
    search = bench.threshold_search(structure)
    thresholds, value = search.best()
    rule = bench.rule(structure, thresholds)
    matches = rule.run(setting.spaces).matches
    assert row_f1(matches, setting.groups).mean() == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(row_f1(matches, setting.groups), search.at(thresholds), atol=1e-9)
    # again from what is kept
    assert bench.threshold_search(structure).best() == (thresholds, value)


def test_little_is_kept():
    bench = Workbench(settings(listings())[1], 15)
    for k in range(2, 20):
        bench.threshold_search(RuleStructure(MEAN.how, MEAN.weights, vector_steps=(Step('augment', k=k),)))
    assert len(bench._spaces.results) <= 6 and len(bench._candidates.results) <= 12


def test_keys_alone_are_refused():
    keys = Keys(['a', 'a', 'b'])
    setting = Setting('keys', {'phash': keys}, Groups([0, 0, 1]), np.arange(3))
    with pytest.raises(InputError, match='exact keys alone'): Workbench(setting)
    assert isinstance(Workbench(settings(listings())[0]).spaces()['image'], Dense)
