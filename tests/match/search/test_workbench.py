"The workbench: what it gives for a structure is what the rule of that structure gives in use."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Codes,
    Dense,
    Groups,
    Keys,
    Setting,
    Step,
    among_themselves,
    in_the_catalogue,
    row_f1,
)
from fastmatch.match.search import remembered, workbench
from fastmatch.match.search.ladder import ladder
from fastmatch.match.search.structure import RuleStructure
from fastmatch.match.search.workbench import Workbench
from tests.match.fielded import fielded
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


@pytest.mark.parametrize('room, n_kept', [(0, (6, 12)), (1 << 28, (18, 18))])
def test_little_is_kept(monkeypatch, room, n_kept):
    monkeypatch.setattr(workbench, 'KEPT_BYTES', room)
    bench = Workbench(settings(listings())[1], 15)
    for k in range(2, 20):
        bench.threshold_search(RuleStructure(MEAN.how, MEAN.weights, vector_steps=(Step('augment', k=k),)))
    assert (len(bench._spaces.results), len(bench._candidates.results)) == n_kept
    for kept in (bench._spaces, bench._candidates): assert set(kept.sizes) == set(kept.results)


def test_the_oldest_goes_first():
    kept = workbench._Kept(1, lambda result: workbench.KEPT_BYTES // 2)
    made = []
    def get(key): return kept.get(key, lambda: made.append(key) or key)
    for key in 'abacab': get(key)
    assert made == ['a', 'b', 'c', 'b'] and list(kept.results) == ['a', 'b']


def assert_same_arrays(first, second):
    np.testing.assert_array_equal(first.ids, second.ids)
    assert list(first.scores) == list(second.scores)
    for name in first.scores: np.testing.assert_array_equal(first.scores[name], second.scores[name])


@pytest.mark.parametrize('source', [None, [f'shop {row % 4}' for row in range(72)]])
@pytest.mark.parametrize('rows', [None, np.arange(72) % 6 < 3], ids=['among themselves', 'in the catalogue'])
@pytest.mark.parametrize('most_pairs', [0, 900, 1 << 22])
def test_what_is_remembered_has_the_bits_of_what_is_made_anew(monkeypatch, source, rows, most_pairs):
    monkeypatch.setattr(remembered, 'MOST_PAIRS', most_pairs)
    embeddings = fielded(source=source)
    embeddings.phash = np.array([f'h{row % 9}' if row % 2 else None for row in range(72)], object)
    setting = among_themselves(embeddings) if rows is None else in_the_catalogue(embeddings, rows)
    bench = Workbench(setting, 8)
    fusion = {'how': 'mean', 'weights': {'image': .5, 'tfidf': .5}}
    refinements = [(), (Step('augment', by=fusion, k=2),), (Step('augment', on=('image',), k=3),),
                   (Step('augment', on=('notes',), by=fusion, k=2),),
                   (Step('augment', k=2), Step('expand', by=fusion, k=3)),
                   (Step('blend', k=4, threshold=.3),)]
    for vector_steps in refinements:
        anew = Workbench(setting, 8)
        for whole in (False, True):
            spaces = anew.spaces(vector_steps) if whole else anew._first_rows(vector_steps)
            assert_same_arrays(bench.candidates(vector_steps, whole), anew._search(spaces))
    n_pairs = [len(each._keys) for each in bench._remembered.values()]
    assert max(n_pairs) <= most_pairs and (most_pairs < 1 << 22 or min(n_pairs) > 0 or rows is None)


def test_columns_are_searched_once_and_their_pairs_scored_once(monkeypatch):
    bench = Workbench(in_the_catalogue(fielded(), np.arange(72) % 6 < 3), 8)
    bench.candidates((Step('augment', k=2),), whole=True)
    known = bench._remembered[True]._keys
    scored, pair_scores = [], Codes._pair_scores
    def counted(space, queries, rows, ids):
        # each listing with itself is asked for to see which listings have a code
        scored.append((rows * len(space) + ids)[rows != ids])
        return pair_scores(space, queries, rows, ids)
    def refuse(*args, **options): raise AssertionError('searched again')
    monkeypatch.setattr(Codes, '_pair_scores', counted)
    monkeypatch.setattr(Codes, 'search', refuse)
    for k in (3, 4): bench.candidates((Step('augment', k=k),), whole=True)
    scored = np.concatenate(scored)
    assert len(scored) and len(np.unique(scored)) == len(scored) and not np.isin(scored, known).any()


@pytest.mark.parametrize('menu', ['full', 'short'])
def test_a_ladder_climbs_the_same_whatever_is_kept(monkeypatch, menu):
    setting = in_the_catalogue(fielded(), np.arange(72) % 6 < 3)
    kept = ladder(setting, menu, halvings=2, pools=False)
    monkeypatch.setattr(workbench, 'KEPT_BYTES', 0)
    monkeypatch.setattr(workbench, 'KEPT_WHOLE', 1)
    monkeypatch.setattr(Workbench, '_remembered', {True: None, False: None})
    anew = ladder(setting, menu, halvings=2, pools=False)
    assert kept.rule.to_dict() == anew.rule.to_dict() and kept.structure == anew.structure
    for first, second in zip(kept.rungs, anew.rungs, strict=True):
        np.testing.assert_array_equal(first.heldout.row_f1, second.heldout.row_f1)
        assert first.heldout.picks == second.heldout.picks


def test_steps_on_neighbors_go_on_from_what_was_made():
    setting = settings(listings())[1]
    first, veto, last = Step('k_reciprocal', k1=3, k2=2), Step('veto'), Step('mutual', k=9)
    for steps in ((first,), (first, veto), (veto, first), (first, veto, last), (veto,)):
        structure = RuleStructure(MEAN.how, MEAN.weights, score_steps=steps)
        bench = Workbench(setting, 15)
        bench.neighbors(RuleStructure(MEAN.how, MEAN.weights, score_steps=(first,)))
        expected = Workbench(setting, 15).rule(structure).run(setting.spaces).neighbors
        for one, other in zip(bench.neighbors(structure), expected): np.testing.assert_array_equal(one, other)


def test_keys_alone_are_refused():
    keys = Keys(['a', 'a', 'b'])
    setting = Setting('keys', {'phash': keys}, Groups([0, 0, 1]), np.arange(3))
    with pytest.raises(InputError, match='exact keys alone'): Workbench(setting)
    assert isinstance(Workbench(settings(listings())[0]).spaces()['image'], Dense)
