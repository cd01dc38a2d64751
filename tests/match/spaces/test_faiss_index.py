"The indexes of faiss behind `Index`: what they take, what they propose, and that more effort finds more."
import numpy as np
import pytest

from fastmatch.match import Dense
from fastmatch.match.spaces import faiss_index
from fastmatch.match.spaces.faiss_index import (
    KINDS,
    add_vectors,
    build_index,
    cell_order,
    effort_steps,
    memory_needed,
    proposal_count,
    propose,
)
from tests.match.spaces.promises import clustered

BUILT = KINDS[1:]
NOBODY = np.zeros(700, bool)


@pytest.fixture(scope='module')
def vectors(): return Dense(clustered()).vectors


def test_memory_needed(monkeypatch):
    monkeypatch.setattr(faiss_index, 'ROOM', 0)
    needs = {kind: memory_needed(kind, 150, 12) for kind in KINDS}
    assert needs['exact'] == 0 < needs['ivfpq'] < needs['hnsw'] and needs['ivfpq'] < needs['ivf']
    for kind in BUILT: assert memory_needed(kind, 1000, 12) > memory_needed(kind, 150, 12)


def test_proposal_count():
    for index_kind, count in ((None, 18), ('hnsw', 18), ('ivf', 18), ('ivfpq', 104)):
        assert proposal_count(index_kind, 10, 1000) == count and proposal_count(index_kind, 10, 15) == 15


@pytest.mark.parametrize('index_kind', BUILT)
def test_proposes_the_nearest_and_nobody_removed(index_kind, vectors):
    index = build_index(index_kind, vectors, np.arange(700), 0)
    efforts = effort_steps(index_kind, index, 10)
    assert efforts == sorted(efforts)
    expected = np.argsort(-vectors @ vectors.T, axis=1)[:, :10]
    def share(effort):
        ids = propose(index_kind, index, vectors, 60, effort, NOBODY)
        assert ids.shape == (700, 60)
        both = zip(ids.tolist(), expected.tolist())
        return np.mean([len(set(row) & set(expected_row)) / 10 for row, expected_row in both])

    assert share(efforts[-1]) > .95 and share(efforts[-1]) >= share(efforts[0])
    removed = np.arange(700) % 3 == 0
    ids = propose(index_kind, index, vectors[:50], 60, efforts[-1], removed)
    assert not removed[ids[ids >= 0]].any()
    add_vectors(index, vectors[:9])
    assert index.ntotal == 709


@pytest.mark.parametrize('index_kind', ['ivf', 'ivfpq'])
def test_cell_order(index_kind, vectors):
    index = build_index(index_kind, vectors, np.arange(700), 0)
    order = cell_order(index)
    assert sorted(order) == list(range(700)) and (order != np.arange(700)).any()


@pytest.mark.parametrize('index_kind', ['ivf', 'ivfpq'])
def test_the_seed_decides_what_is_trained_on(index_kind, vectors):
    first, again, other = (
        cell_order(build_index(index_kind, vectors, np.arange(700), seed)) for seed in (0, 0, 1)
    )
    assert first.tolist() == again.tolist() != other.tolist()
