"Close pairs read again: as a naive loop, in a pool as in one self-join, kept with the very scorer."
import json

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Neighbors, Pool, Rule, Step, Titles, cross_encoder
from fastmatch.match.spaces.asymmetric import AsymmetricSpace
from tests.match.steps.test_step import PLAIN, SPACES, TEXTS, WEIGHTS, assert_same_matches, decided, pools

LOW, HIGH = .3, .6


class ByLetters:
    "Probability by the letters that two texts share; counts what it reads."
    def __init__(self, mark=None):
        self.read = []
        if mark is not None: self.fingerprint = mark

    def scores(self, first, second):
        self.read += zip(first, second)
        return [len(set(one) & set(other)) / len(set(one) | set(other)) for one, other in zip(first, second)]


def by_loop(neighbors, texts, scorer):
    "The step, one pair after the other."
    ids, scores = neighbors.ids.copy(), neighbors.scores.copy()
    for row in range(len(ids)):
        found = []
        for listing, score in zip(ids[row, 1:], scores[row, 1:]):
            if listing < 0: continue
            if LOW <= score < HIGH and texts[row].strip() and texts[listing].strip():
                score = np.float32(LOW + (HIGH - LOW) * scorer.scores([texts[row]], [texts[listing]])[0])
            found.append((-score, listing))
        for column, (negative, listing) in enumerate(sorted(found), 1):
            ids[row, column], scores[row, column] = listing, -negative
        scores[row, 0] = max(scores[row, 0], *(-negative for negative, _ in found))
    return Neighbors(ids, scores)


def assert_same(actual, expected):
    np.testing.assert_array_equal(actual.ids, expected.ids)
    np.testing.assert_array_equal(actual.scores, expected.scores)


def test_as_a_loop_over_the_pairs():
    scorer = ByLetters()
    rescored = cross_encoder(PLAIN, SPACES['titles'], scorer, LOW, HIGH)
    assert_same(rescored, by_loop(PLAIN, TEXTS, ByLetters()))
    assert len(scorer.read) == len({frozenset(pair) for pair in scorer.read}) > 0
    # what is not close stays, and on its side of what is
    before = dict(zip(zip(*(array.tolist() for array in PLAIN.pairs()[:2])), PLAIN.pairs()[2]))
    changed = 0
    for row, listing, score in zip(*rescored.pairs()):
        if row == listing: continue
        old = before[row, listing]
        if LOW <= old < HIGH: changed += bool(score != old)
        else: assert score == old
        assert (old < LOW) == (score < LOW) and (old >= HIGH) <= (score >= HIGH)
    assert changed


def rule(scorer, **params):
    step = Step('cross_encoder', scorer=scorer, **{'low': LOW, 'high': HIGH, **params})
    return Rule('mean', WEIGHTS, .45, 8, steps=[step])


def test_in_a_rule_and_kept_as_json():
    scorer = ByLetters('abc')
    chosen = rule(scorer)
    assert 'titles' in chosen.reads and chosen.scores_end_at_one
    assert not rule(scorer, high=2).scores_end_at_one
    expected = decided(by_loop(PLAIN, TEXTS, scorer))
    assert_same_matches(chosen.apply(SPACES), expected)
    saved = json.loads(json.dumps(chosen.to_dict()))
    again = Rule.from_dict(saved, {'cross_encoder': scorer})
    assert again == chosen and again.steps[0].scorer is scorer
    assert_same_matches(again.apply(SPACES), expected)
    with pytest.raises(InputError, match='hand in'): Rule.from_dict(saved)
    with pytest.raises(InputError, match='another cross-encoder'):
        Rule.from_dict(saved, {'cross_encoder': ByLetters('other')})


@pytest.mark.parametrize('new_count', [1, 15])
@pytest.mark.parametrize('further', [(), ('mutual',), ('min2',)])
def test_a_pool_is_one_self_join(new_count, further):
    chosen = rule(ByLetters())
    chosen = Rule('mean', WEIGHTS, .45, 8, steps=[*chosen.steps, *further])
    assert_same_matches(chosen.apply(pools(new_count)), chosen.apply(SPACES).head(new_count))


def test_the_band_moves_with_the_threshold():
    scorer = ByLetters()
    moved = rule(scorer).steps[0].moved(.125)
    assert moved.params['low'] == LOW + .125 and moved.params['high'] == HIGH + .125
    assert moved.scorer is scorer and Step('veto').moved(.1) == Step('veto')
    assert Step('min2', threshold=.5).moved(.25).params['threshold'] == .75
    assert Step('min2').moved(.25) == Step('min2')


def test_missing_texts_keep_their_scores():
    scorer = ByLetters()
    blank = Titles(['' if row % 2 else text for row, text in enumerate(TEXTS)])
    cross_encoder(PLAIN, blank, scorer, LOW, HIGH)
    assert all(one and other for one, other in scorer.read)
    empty = Titles(['' for _ in TEXTS])
    assert_same(cross_encoder(PLAIN, empty, scorer, LOW, HIGH), PLAIN)


def test_titles_come_in_any_space():
    expected = cross_encoder(PLAIN, SPACES['titles'], ByLetters(), LOW, HIGH)
    titles = SPACES['titles']
    pool = Pool(titles.take(np.arange(40) < 10), titles.take(np.arange(40) >= 10))
    both = AsymmetricSpace(titles, titles.take(np.arange(10)))
    for space in (pool, both):
        assert_same(cross_encoder(PLAIN.head(10), space, ByLetters(), LOW, HIGH), expected.head(10))
    with pytest.raises(InputError, match='Tfidf'):
        cross_encoder(PLAIN, SPACES['tfidf'], ByLetters(), LOW, HIGH)


def test_what_can_not_be_is_named():
    scorer = ByLetters()
    for wrong in ({'low': .5, 'high': .4}, {'low': .5, 'high': .5}, {'low': None, 'high': 1}, {'low': .5}):
        with pytest.raises(InputError, match='low'): Step('cross_encoder', scorer=scorer, **wrong)
    for wrong in (None, 'model', len):
        with pytest.raises(InputError, match='scorer'): Step('cross_encoder', scorer=wrong, low=0, high=1)

    class Broken:
        def scores(self, first, second): return [2.] * len(first)
    with pytest.raises(InputError, match='Broken'): rule(Broken()).apply(SPACES)
