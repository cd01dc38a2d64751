"Close pairs of two tables read again, and a pair model taught by that: as by hand, and nothing else changes."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.link import match_tables
from fastmatch.link.rescore import (
    CloseScores,
    Rereading,
    fitted_weights,
    hard_pairs,
    learn_close,
    log_odds,
    unseen_scores,
    weighed,
)
from tests.link.shops import labelled, two_shops

LEFT, RIGHT, PAIRS = two_shops(n_left=90, n_right=110, n_same=60, seed=1)
KNOWN = labelled(LEFT, RIGHT, PAIRS, each=8)


class ByWords:
    "Reads pairs by the words that they share; remembers what it was fitted to."
    fingerprint = 'words'

    def __init__(self): self.fits = []

    def unfitted(self):
        new = ByWords()
        self.fits.append(new)
        return new

    def fit(self, first, second, same, **options):
        self.learned, self.same, self.options = set(zip(first, second)), same, options
        return self

    def scores(self, first, second):
        assert all(first) and all(second)
        self.read = list(zip(first, second))
        return np.array([_shared(*pair) for pair in self.read], np.float32)


def _shared(one, other):
    words, others = set(one.split()), set(other.split())
    return len(words & others) / len(words | others)


def made(n=400, seed=0):
    "Labelled pairs: texts, labels, probabilities that say something of them, parts by text."
    rng = np.random.default_rng(seed)
    first = [f'listing {number // 4} of the left shop' for number in range(n)]
    second = [f'listing {rng.integers(0, 50)} of the right shop' for _ in range(n)]
    same = rng.random(n) < .25
    probabilities = np.clip(.45 * same + rng.normal(.25, .2, n), 0, 1).astype(np.float32)
    return first, second, same, probabilities, (np.arange(n) // 4) % 5


def test_only_close_pairs_change():
    first, second, _, probabilities, _ = made()
    first[7] = ''
    scorer, weights = ByWords(), (.1, .7, .4)
    rescored = CloseScores(scorer, weights).rescored(
        probabilities, lambda rows: ([first[row] for row in rows], [second[row] for row in rows]))
    close = (probabilities >= .02) & (probabilities <= .98)
    for row, (before, after) in enumerate(zip(probabilities, rescored)):
        if not close[row] or row == 7: assert after == before
        else:
            read = np.float32(_shared(first[row], second[row]))
            total = .1 + .7 * np.log(before / (1 - before)) + .4 * np.log(read / (1 - read))
            assert after == pytest.approx(1 / (1 + np.exp(-total)), abs=1e-5)
    assert rescored.dtype == np.float32 and len(scorer.read) == close.sum() - close[7]


def test_weights_of_the_pair_model_alone_change_nothing():
    probabilities = np.array([.1, .5, .9])
    np.testing.assert_allclose(weighed((0, 1, 0), probabilities, np.array([1., 0., .5])), probabilities)
    assert np.isfinite(log_odds([0., 1.])).all()
    few = np.array([True, False, True])
    assert fitted_weights(probabilities, probabilities, few) == (0., 1., 0.)


def test_weights_go_to_what_tells():
    rng = np.random.default_rng(0)
    same = rng.random(600) < .5
    telling = np.clip(.3 * same + .35 + rng.normal(0, .1, 600), .01, .99)
    noise = rng.uniform(.1, .9, 600)
    _, of_noise, of_telling = fitted_weights(noise, telling, same)
    assert of_telling > 1 and abs(of_noise) < .3


def test_hard_pairs_are_the_likeliest():
    _, _, same, probabilities, _ = made()
    learned = hard_pairs(probabilities, same, 2)
    assert same[learned].sum() == same.sum() and len(learned) == 3 * same.sum()
    left_out = np.setdiff1d(np.flatnonzero(~same), learned)
    assert probabilities[left_out].max() <= probabilities[learned][~same[learned]].min()
    assert (np.diff(learned) > 0).all()


def test_nobody_scores_what_it_learned():
    first, second, same, probabilities, parts = made()
    scorer, learned = ByWords(), hard_pairs(probabilities, same)
    scored = probabilities > .1
    scores = unseen_scores(scorer, first, second, same, learned, parts, scored, epochs=7)
    assert (np.isnan(scores) == ~scored).all() and len(scorer.fits) == 5
    for part, fit in enumerate(scorer.fits):
        listings = {first[row] for row in range(len(first)) if parts[row] == part}
        assert not listings & {one for one, _ in fit.learned} and {one for one, _ in fit.read} <= listings
        assert fit.options == {'epochs': 7}


def test_learned_from_all_but_judged_by_others():
    first, second, same, probabilities, parts = made()
    scorer = ByWords()
    close, rescored = learn_close(scorer, first, second, same, probabilities, parts, seed=4)
    assert len(scorer.fits) == 3 and close.cross_encoder is scorer.fits[2]
    assert scorer.fits[2].learned == {(first[row], second[row]) for row in hard_pairs(probabilities, same)}
    far = ~close.is_close(probabilities)
    np.testing.assert_array_equal(rescored[far], probabilities[far])
    with pytest.raises(InputError, match='CrossEncoder'):
        learn_close('MiniLM', first, second, same, probabilities, parts)


@pytest.fixture(scope='module')
def plain(): return match_tables(LEFT, RIGHT, known=KNOWN, k=10)


@pytest.fixture(scope='module')
def reread(): return match_tables(LEFT, RIGHT, known=KNOWN, k=10,
                                  model=Rereading(ByWords(), options={'epochs': 1}))


def test_in_match_tables(plain, reread):
    assert plain.learnt.close is None
    np.testing.assert_array_equal(plain.candidates.pairs.ids, reread.candidates.pairs.ids)
    close = reread.learnt.close
    expected = close.rescored(plain.probabilities, reread.texts.at(reread.candidates))
    np.testing.assert_array_equal(reread.probabilities, expected)
    assert close.cross_encoder.options['epochs'] == 1 and 'pair_f1' in reread.learnt.figures
    text = reread.texts.left[0]
    assert text.startswith('title: ') and ' | brand: ' in text


def test_any_pair_gets_the_same_probability(reread):
    some = KNOWN.head(30)
    scored = reread.score(some).probability.to_numpy()
    places = reread.candidates.places(
        *(np.array([list(ids).index(listing) for listing in column]) for ids, column in (
            (reread.tables.left_ids, some.left_id), (reread.tables.right_ids, some.right_id))))
    np.testing.assert_array_equal(scored, reread.probabilities[places])


def test_what_was_learned_is_used_again(reread):
    again = match_tables(LEFT, RIGHT, k=10, model=reread.learnt)
    assert again.learnt.close is reread.learnt.close
    assert again.learnt.threshold == reread.learnt.threshold and again.learnt.figures == {}
    some = KNOWN.head(20)
    assert again.score(some).probability.between(0, 1).all()


@pytest.mark.slow
def test_distilled_needs_no_cross_encoder():
    scorer = ByWords()
    taught = match_tables(LEFT, RIGHT, known=KNOWN, k=10, model=Rereading(scorer, distil=True))
    assert taught.learnt.close is None and scorer.fits
    np.testing.assert_array_equal(taught.probabilities,
                                  taught.candidates.pairs.probabilities(taught.learnt.model))
    again = match_tables(LEFT, RIGHT, known=KNOWN, k=10, model=Rereading(ByWords(), distil=True))
    np.testing.assert_array_equal(again.probabilities, taught.probabilities)


def test_what_can_not_be_is_named(reread):
    for match, options in (('give known', {'model': Rereading(ByWords())}),
                           ('give a PairModel, a Rereading', {'model': reread.learnt.close, 'known': KNOWN})):
        with pytest.raises(InputError, match=match): match_tables(LEFT, RIGHT, **options)
    with pytest.raises(InputError, match="cross_encoder='MiniLM': give a CrossEncoder"): Rereading('MiniLM')
