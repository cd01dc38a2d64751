"A search for a least similarity finds all that the search of everything finds above it, and sooner."
import numpy as np
import pytest
from scipy import sparse

from fastmatch.match import Tfidf
from fastmatch.match.spaces import tfidf
from fastmatch.match.spaces.rare import rare_part, reached_without


def titles(n, seed):
    "Titles of a few words each, so that many are similar."
    rng = np.random.default_rng(seed)
    words = 'red blue bag shoe lamp green tea 500ml oak chair steel cup wool hat xl'.split()
    return [' '.join(rng.choice(words, rng.integers(1, 6))) for _ in range(n)]


def pairs_above(neighbors, least):
    rows, ids, scores = neighbors.pairs()
    return {(row, listing): score for row, listing, score in zip(rows, ids, scores) if score >= least}


@pytest.mark.parametrize('least', [.35, .6, .83, .95, 1.])
@pytest.mark.parametrize('most', [4096, 4])
def test_all_that_are_similar_enough_are_found(least, most, monkeypatch):
    monkeypatch.setattr(tfidf, 'MOST_PROPOSED', most)
    known = Tfidf([*titles(300, 0), ''])
    new = known.transform([*titles(80, 1), 'something new', ''])
    for queries in (None, new):
        everything = known.search(301, queries)
        found = known.at_least(least).search(301, queries).check(self_join=queries is None)
        assert pairs_above(found, least) == pairs_above(everything, least)
        few = known.at_least(least).search(5, queries)
        assert pairs_above(few, least) == pairs_above(known.search(5, queries), least)
    assert len(pairs_above(found, least)) >= 20


def test_little_is_looked_at(monkeypatch):
    known, scored = Tfidf(titles(300, 0)), []
    monkeypatch.setattr(Tfidf, 'scores', lambda self, rows, *others, scores=Tfidf.scores: (
        scored.append(np.size(rows)), scores(self, rows, *others))[1])
    known.at_least(.9).search(10)
    assert sum(scored) < 300 * 300 / 4
    # below this it would look at nearly all
    assert known.at_least(.2) is known


def test_the_rarest_are_kept():
    vectors = sparse.csr_matrix(np.array([[.6, .8, 0], [0, 0, 1.], [0, 0, 0], [.1, 0, .99**.5]], np.float32))
    counts = np.array([5, 1, 9])
    left_out = rare_part(vectors, counts, .65).toarray()
    kept = np.array([[0, .8, 0], [0, 0, 1], [0, 0, 0], [.1, 0, .99**.5]], np.float32)
    assert left_out.tolist() == kept.tolist()
    assert (rare_part(vectors, counts, .5) != vectors).nnz == 0


@pytest.mark.parametrize('left_out, least', [(.3, .5), (.58, .83), (.7, 1.), (.1, .95)])
def test_what_the_rare_part_reaches(left_out, least):
    rng = np.random.default_rng(0)
    reached = reached_without(left_out, least)
    title = np.array([(1 - left_out**2)**.5, left_out, 0])
    others = rng.normal(size=(200_000, 3))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    rare = (others[:, 0] * title[0])[others @ title >= least]
    # never below, and nearly so: a larger number would lose some
    assert (rare >= reached - 1e-9).all()
    angle = np.arccos(least) + np.arcsin(left_out)
    nearest = np.array([np.cos(angle), np.sin(angle), 0])
    assert nearest @ title == pytest.approx(least) and nearest[0] * title[0] == pytest.approx(reached)
