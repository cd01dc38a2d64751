"Index: each kind against the whole n x n product, what it says of its recall, and listings that come and go."
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Index, Tfidf
from fastmatch.match.spaces import approx, faiss_index
from fastmatch.match.spaces.faiss_index import KINDS
from tests.match.cases import checked_search, halves_of_one, noisy
from tests.match.spaces.promises import assert_keeps_promises, assert_same, clustered
from tests.reference import match as ref
from tests.reference import search as search_reference

BUILT = KINDS[1:]


@functools.cache
def all_cosines():
    "The n x n cosines of `clustered()`."
    return ref.cosine(clustered(), clustered())


@settings(max_examples=40, deadline=None)
@given(
    listing_count=st.integers(2, 40),
    dim=st.integers(4, 6),
    k=st.integers(1, 45),
    seed=st.integers(0, 999),
    removed_share=st.sampled_from([0.0, 0.3, 0.9]),
)
def test_exact_among_those_that_remain(listing_count, dim, k, seed, removed_share):
    vectors = halves_of_one(listing_count, dim, seed)
    drawn = np.random.default_rng(seed).random(listing_count)
    removed = np.flatnonzero(drawn < removed_share)[:listing_count - 1]
    index = Index(vectors)
    if len(removed): index.remove(removed)
    similarity = vectors @ vectors.T / 4
    similarity[:, removed] = -np.inf
    similarity[removed] = -np.inf
    np.fill_diagonal(similarity, 1)
    assert_same(checked_search(index.search, k, listing_count), ref.nearest(similarity, k))
    new_vectors = halves_of_one(5, dim, seed + 1)
    similarity = new_vectors @ vectors.T / 4
    similarity[:, removed] = -np.inf
    neighbors = checked_search(lambda k: index.search(k, Dense(new_vectors)), k, listing_count)
    assert_same(neighbors, ref.nearest(similarity, k, self_join=False))
    assert checked_search(index.recall, k, listing_count).mean == 1 and index.kind == 'exact'


def test_exact_in_parts_is_exact(monkeypatch):
    vectors, removed = noisy(90, 6, 0, 60), [0, 5, 6, 7, 88]
    index = Index(vectors)
    monkeypatch.setattr(approx, 'BLOCK_FLOATS', 12)
    index.remove(removed)
    kept = index.remaining
    expected = Dense(vectors[kept]).search(9)
    actual = index.search(9)
    assert_same((actual.ids[kept], actual.scores[kept]), (kept[expected.ids], expected.scores))
    assert (actual.ids[removed] == np.array([[i] + [-1] * 8 for i in removed])).all()


@pytest.mark.parametrize('index_kind', BUILT)
@pytest.mark.parametrize('k', [1, 2, 10, 60])
def test_recall_is_what_it_says(index_kind, k):
    index = Index(clustered(), 'pics', index_kind)
    neighbors = index.search(k)
    assert_keeps_promises(neighbors, index)
    reached, measured = index.reached[k], index.recall(k)
    truth = search_reference.recall(neighbors.ids, all_cosines(), k, np.arange(700))
    # fewer listings than the sample asks for: all of them were looked at
    assert reached.rows == measured.rows == 700
    assert reached.mean == measured.mean == pytest.approx(truth, abs=1e-4)
    assert truth >= .98 and reached.mean - 2 * reached.se >= .98
    assert f'{index_kind}, recall@{k} {truth:.3f}' in repr(index)
    sampled = index.recall(k, sample=50, seed=3)
    drawn = np.sort(np.random.default_rng(3).choice(700, 50, replace=False))
    shares = [search_reference.recall(neighbors.ids, all_cosines(), k, [i]) for i in drawn]
    assert sampled.rows == 50 and sampled.mean == pytest.approx(np.mean(shares), abs=1e-3)
    assert sampled.se == pytest.approx(np.std(shares) / 50**.5, abs=1e-4)


@pytest.mark.parametrize('index_kind', BUILT)
def test_new_against_catalogue(index_kind):
    vectors, new_vectors = clustered(), clustered(seed=1)[:60]
    new_vectors[:5] = vectors[:5]
    index, queries = Index(vectors, 'pics', index_kind), Dense(new_vectors)
    neighbors = index.search(8, queries)
    assert_keeps_promises(neighbors, index, queries)
    truth = search_reference.recall(
        neighbors.ids, ref.cosine(new_vectors, vectors), 8, np.arange(60), self_join=False
    )
    assert index.recall(8, 60, queries).mean == pytest.approx(truth) and truth > .9
    np.testing.assert_allclose(neighbors.scores[:5, 0], 1, atol=1e-6)


@pytest.mark.parametrize('index_kind', ['ivf', 'ivfpq'])
def test_all_cells_are_exact(index_kind, monkeypatch):
    monkeypatch.setattr(faiss_index, 'REFINE', 1000)
    vectors = noisy(300, 5, 0, 40)
    index = Index(vectors, kind=index_kind, recall=1.)
    assert_same(index.search(9), Dense(vectors).search(9))
    # though each block is searched cell by cell
    order = index._query_order(index, True)
    assert sorted(order) == list(range(300)) and (order != np.arange(300)).any()


@pytest.mark.parametrize('index_kind', BUILT)
def test_row_order_matters_to_none_of_the_found(index_kind, monkeypatch):
    monkeypatch.setattr(faiss_index, 'REFINE', 1000)
    vectors, permutation = noisy(200, 5, 3), np.random.default_rng(3).permutation(200)
    inverse = np.argsort(permutation)
    plain = Index(vectors, kind=index_kind, recall=1.).search(5)
    permuted = Index(vectors[permutation], kind=index_kind, recall=1.).search(5)
    assert_same(plain, (permutation[permuted.ids[inverse]], permuted.scores[inverse]))


@pytest.mark.parametrize('index_kind, high_recall', [('hnsw', .9995), ('ivf', .98), ('ivfpq', .98)])
def test_effort_follows_the_recall_asked_for(index_kind, high_recall):
    vectors = np.random.default_rng(0).normal(size=(3000, 48))
    low_recall_index = Index(vectors, kind=index_kind, recall=.3)
    high_recall_index = Index(vectors, kind=index_kind, recall=high_recall)
    for index in (low_recall_index, high_recall_index): index.search(10)
    assert low_recall_index._effort_for[10] < high_recall_index._effort_for[10]
    assert low_recall_index.reached[10].mean < high_recall_index.reached[10].mean
    assert high_recall_index.reached[10].mean >= high_recall
    # the effort for another k is found anew
    high_recall_index.search(30)
    assert set(high_recall_index.reached) == {10, 30} and high_recall_index.reached[30].mean >= high_recall


def test_what_cannot_be_reached_is_said(monkeypatch):
    monkeypatch.setattr(faiss_index, 'REFINE', 1)
    monkeypatch.setattr(faiss_index, 'REFINE_MORE', 0)
    index = Index(np.random.default_rng(0).normal(size=(900, 32)), 'pics', 'ivfpq', recall=.99)
    message = r"pics: recall@10 0\.\d+ .* is all that 'ivfpq' can reach, below 0.99"
    with pytest.warns(UserWarning, match=message): index.search(10)
    assert index._effort_for[10] == index._faiss_index.nlist


@pytest.mark.parametrize('index_kind', KINDS)
def test_copies(index_kind):
    "Hundreds of equal listings, as shops have titles: whichever are found, they are of the best."
    vectors = clustered()
    vectors[100:300] = vectors[100]
    index = Index(vectors[:420], kind=index_kind)
    if index_kind == 'hnsw':
        # its links are used up inside the crowd, and it says so
        with pytest.warns(UserWarning, match='below 0.98'): neighbors = index.search(20)
    else: neighbors = index.search(20)
    assert_keeps_promises(neighbors, index)
    truth = search_reference.recall(
        neighbors.ids, ref.cosine(vectors[:420], vectors[:420]), 20, np.arange(420)
    )
    assert (truth >= .98) == (index_kind != 'hnsw')
    assert index.recall(20).mean == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize('index_kind', KINDS)
@pytest.mark.parametrize('built', [False, True])
def test_remove_add_rebuild(index_kind, built):
    vectors = clustered()
    index = Index(vectors, kind=index_kind)
    if built: index.search(6)
    removed = np.arange(100, 400)
    index.remove(removed)
    neighbors = index.search(6)
    assert_keeps_promises(neighbors, index)
    assert (neighbors.ids[removed, 0] == removed).all() and (neighbors.ids[removed, 1:] == -1).all()
    assert (neighbors.scores[removed, 1:] == -np.inf).all()
    np.testing.assert_allclose(neighbors.scores[removed, 0], 1, atol=1e-6)
    assert search_reference.recall(neighbors.ids, all_cosines(), 6, index.remaining, set(removed)) >= .95
    new_vectors = 3 * vectors[[150, 5]]
    assert index.add(new_vectors).tolist() == [700, 701]
    neighbors = index.search(6)
    assert_keeps_promises(neighbors, index)
    # behind 25 or fewer copies of itself, the added one is found from where it lies
    assert 701 in neighbors.ids[5] and 5 in neighbors.ids[701]
    assert neighbors.ids.shape == (702, 6) and 150 not in neighbors.ids[700]
    kept = index.rebuild()
    assert kept.tolist() == [*range(100), *range(400, 702)] and len(index) == 402 and not index.removed.any()
    rebuilt = index.search(6)
    assert_keeps_promises(rebuilt, index)
    all_vectors = np.concatenate([vectors, new_vectors])[kept]
    np.testing.assert_array_equal(index.vectors, Dense(all_vectors).vectors)
    truth = search_reference.recall(rebuilt.ids, ref.cosine(all_vectors, all_vectors), 6, np.arange(402))
    assert truth >= .97


def test_refuses_to_remove():
    index = Index(clustered(40), 'pics')
    index.remove(3)
    assert index.remaining.tolist() == [i for i in range(40) if i != 3]
    for rows, message in [([3], 'pics: rows 3 were removed before'), ([40], 'numbers from 0 to 39'),
                       ([-1], 'numbers'), ([.5], 'numbers'), (index.remaining, 'no listing')]:
        with pytest.raises(InputError, match=message): index.remove(rows)
    assert index.removed.sum() == 1
    # nobody is not too many
    for rows in ([], np.zeros(0, int)): index.remove(rows)
    assert index.removed.sum() == 1


def test_picks_by_size_and_memory(monkeypatch):
    monkeypatch.setattr(approx, 'EXACT_ROWS', 100)
    vectors = clustered(400)
    assert [Index(vectors[:count]).kind for count in (100, 101)] == ['exact', 'ivfpq']
    monkeypatch.setattr(faiss_index, 'ROOM', 0)
    index = Index(vectors[:150])
    needs = {kind: index.needs(kind) for kind in KINDS}
    assert needs['exact'] == 0 < needs['ivfpq'] < needs['hnsw'] and needs['ivfpq'] < needs['ivf']
    assert Index(vectors[:150], memory=needs['ivfpq']).kind == 'ivfpq'
    assert Index(vectors[:150], kind='hnsw', memory=needs['hnsw']).kind == 'hnsw'
    message = "pics: 150 x 12 by 'ivfpq' takes more than memory=.* GB; in GB: {'exact'"
    with pytest.raises(InputError, match=message): Index(vectors[:150], 'pics', memory=needs['ivfpq'] * .9)
    with pytest.raises(InputError, match="'hnsw' takes more than"):
        Index(vectors[:90], kind='hnsw', memory=1e-9)
    # it follows the size until something is built
    index = Index(vectors[:90])
    index.search(5)
    index.add(vectors[90:150])
    assert index.kind == 'ivfpq'
    index.search(5)
    index.remove(np.arange(100))
    assert index.kind == 'ivfpq' and index.take(np.arange(50)).kind == 'exact'
    index.rebuild()
    assert index.kind == 'exact'


@pytest.mark.parametrize('built', [False, True])
def test_the_bound_holds_as_it_grows(built, monkeypatch):
    monkeypatch.setattr(faiss_index, 'ROOM', 0)
    vectors = clustered(700)
    index = Index(vectors[:400], 'pics', 'ivfpq', memory=Index(vectors[:500], kind='ivfpq').needs('ivfpq'))
    assert index.needs('ivfpq', 500) == index.memory > index.needs('ivfpq')
    if built: index.search(5)
    index.add(vectors[400:500])
    message = "pics: 501 x 12 by 'ivfpq' takes more than memory="
    with pytest.raises(InputError, match=message): index.add(vectors[500:501])
    assert len(index) == 500 == len(index.search(5).ids) and index._faiss_index.ntotal == 500


@pytest.mark.parametrize('options, message', [
    ({'kind': 'flat'}, "kind='flat': choose one of auto, exact"), ({'recall': 0}, 'recall=0'),
    ({'recall': 98}, 'recall=98'), ({'memory': 0}, 'memory=0')])
def test_refuses_options(options, message):
    with pytest.raises(InputError, match=message): Index(clustered(50), **options)


@pytest.mark.parametrize('index_kind', KINDS)
def test_refuses(index_kind):
    index = Index(clustered(50), 'pics', index_kind)
    with pytest.raises(InputError, match='pics: queries have 3 dimensions, the listings 12'):
        index.search(2, Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='pics: queries are Tfidf'): index.search(2, Tfidf(['a bag']))
    for search in (index.search, index.recall):
        for k, message in ((0, 'give'), (51, 'there are 50 listings')):
            with pytest.raises(InputError, match=f'k={k}: {message}'): search(k)
    with pytest.raises(InputError, match='sample=0'): index.recall(5, 0)
    with pytest.raises(InputError, match='rows 1 are all zero'): index.add(np.eye(12)[:2] * [[1], [0]])
    with pytest.raises(InputError, match='rows 0 are not finite'): index.add(np.full((1, 12), np.nan))
    with pytest.raises(InputError, match='3 dimensions'): index.add(np.ones((1, 3)))
    assert len(index) == 50 and index.search().ids.shape == (50, 50)
    zero_row = np.concatenate([clustered(50)[:2], np.zeros((1, 12))])
    with pytest.raises(InputError, match='pics: rows 2 are all zero'): Index(zero_row, 'pics')


@pytest.mark.parametrize('index_kind', KINDS)
def test_nothing_is_changed_in_place(index_kind):
    vectors, new_vectors = clustered().astype(np.float32), clustered(seed=2)[:9].astype(np.float32)
    index, queries = Index(vectors, kind=index_kind), Dense(new_vectors)
    before = [array.copy() for array in (vectors, new_vectors, index.vectors, queries.vectors)]
    index.search(5)
    index.search(5, queries)
    index.add(new_vectors)
    index.remove([0])
    index.search(5)
    assert_same((vectors, new_vectors, index.vectors[:700], queries.vectors), before)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
@pytest.mark.parametrize('kind', KINDS)
def test_memory_stays_within_what_it_needs(kind):
    code = f'''
import numpy as np
from tests.bench.harness import memory
from fastmatch.match import Dense, Index
Index(np.random.default_rng(0).normal(size=(500, 8)), kind={kind!r}, recall=.1).search(5)
vectors = Dense(np.random.default_rng(0).normal(size=(60_000, 128)).astype('f')).vectors
open('/proc/self/clear_refs', 'w').write('5')
base = memory('VmRSS')
index = Index(vectors, kind={kind!r}, recall=.1, normalized=True)
found = index.search(50, Dense(vectors[:20_000], normalized=True))
print(memory('VmHWM') - base - (found.ids.nbytes + found.scores.nbytes) / 1e6, index.needs({kind!r}) * 1000)
'''
    repository = Path(__file__).parents[3]
    completed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=repository)
    assert completed.returncode == 0, completed.stderr
    used_memory, promised_memory = map(float, completed.stdout.split())
    assert used_memory < promised_memory, (used_memory, promised_memory)
