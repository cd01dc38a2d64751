"Index: each kind against the whole n x n product, what it says of its recall, removing and adding, and files that don't fit."
import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Index,
    Keys,
    Pool,
    Rule,
    Step,
    Tfidf,
    augment,
    blend,
    candidates,
    cross_mean,
    ensemble,
    expand,
    fuse,
)
from fastmatch.match.neighbors import check_self_first
from fastmatch.match.spaces import approx
from fastmatch.store import fingerprint, write_sealed
from tests.match.cases import asked, halves_of_one, noisy
from tests.reference import match as ref
from tests.reference import search as slow

KINDS = approx.KINDS
NEAR = KINDS[1:]


def clustered(n=700, d=12, seed=0, spread=.5):
    "Groups of about seven, some of them exact copies."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n // 7, d))[rng.integers(0, n // 7, n)] + spread * rng.normal(size=(n, d))
    x[:n // 35] = x[n // 35:n // 35 * 2]
    return x


@functools.cache
def whole():
    "The n x n cosines of `clustered()`."
    return ref.cosine(clustered(), clustered())


def promises(nb, ix, queries=None):
    "What holds however many are missed: order, padding, exact scores, ties to the smaller id, nothing removed."
    own = queries is None
    nb.check(own)
    first = int(own)
    np.testing.assert_array_equal(nb.scores[:, first:], ix.scores(np.arange(len(nb.ids))[:, None], nb.ids[:, first:], queries))
    tied = (nb.scores[:, first:-1] == nb.scores[:, first + 1:]) & (nb.ids[:, first + 1:] >= 0)
    assert (nb.ids[:, first:-1] < nb.ids[:, first + 1:])[tied].all()
    assert not ix.dead[nb.ids[:, first:][nb.ids[:, first:] >= 0]].any()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 40), d=st.integers(4, 6), k=st.integers(1, 45), seed=st.integers(0, 999), share=st.sampled_from([0., .3, .9]))
def test_exact_among_the_living(n, d, k, seed, share):
    x, rng = halves_of_one(n, d, seed), np.random.default_rng(seed)
    dead = np.flatnonzero(rng.random(n) < share)[:n - 1]
    ix = Index(x)
    if len(dead): ix.remove(dead)
    sim = x @ x.T / 4
    sim[:, dead] = -np.inf
    sim[dead] = -np.inf
    np.fill_diagonal(sim, 1)
    ids, scores = ref.nearest(sim, k)
    nb = asked(ix.search, k, n)
    np.testing.assert_array_equal(nb.ids, ids)
    np.testing.assert_array_equal(nb.scores, scores)
    q = halves_of_one(5, d, seed + 1)
    sim = q @ x.T / 4
    sim[:, dead] = -np.inf
    ids, scores = ref.nearest(sim, k, self_join=False)
    nb = asked(lambda k: ix.search(k, Dense(q)), k, n)
    np.testing.assert_array_equal(nb.ids, ids)
    np.testing.assert_array_equal(nb.scores, scores)
    assert asked(ix.recall, k, n).mean == 1 and ix.kind == 'exact'


def test_exact_in_parts_is_exact(monkeypatch):
    x = noisy(90, 6, 0, 60)
    ix, dead = Index(x), [0, 5, 6, 7, 88]
    monkeypatch.setattr(approx, 'FLOATS', 12)
    ix.remove(dead)
    kept = ix.alive
    want = Dense(x[kept]).search(9)
    got = ix.search(9)
    np.testing.assert_array_equal(got.ids[kept], kept[want.ids])
    np.testing.assert_array_equal(got.scores[kept], want.scores)
    assert (got.ids[dead] == np.array([[o] + [-1] * 8 for o in dead])).all()


@pytest.mark.parametrize('kind', NEAR)
@pytest.mark.parametrize('k', [1, 2, 10, 60])
def test_recall_is_what_it_says(kind, k):
    x = clustered()
    ix, sim = Index(x, 'pics', kind), whole()
    nb = ix.search(k)
    promises(nb, ix)
    said, told = ix.reached[k], ix.recall(k)
    rows = np.arange(700)
    truth = slow.recall(nb.ids, sim, k, rows)
    # fewer listings than the sample asks for: all of them were looked at
    assert said.rows == told.rows == 700 and said.mean == told.mean == pytest.approx(truth, abs=1e-4)
    assert truth >= .98 and said.mean - 2 * said.se >= .98 and f'{kind}, recall@{k} {truth:.3f}' in repr(ix)
    part = ix.recall(k, sample=50, seed=3)
    drawn = np.sort(np.random.default_rng(3).choice(700, 50, replace=False))
    share = [slow.recall(nb.ids, sim, k, [i]) for i in drawn]
    assert part.rows == 50 and part.mean == pytest.approx(np.mean(share), abs=1e-3) and part.se == pytest.approx(np.std(share) / 50**.5, abs=1e-4)


@pytest.mark.parametrize('kind', NEAR)
def test_new_against_catalogue(kind):
    x, q = clustered(), clustered(seed=1)[:60]
    q[:5] = x[:5]
    ix, new = Index(x, 'pics', kind), Dense(q)
    nb = ix.search(8, new)
    promises(nb, ix, new)
    sim = ref.cosine(q, x)
    truth = slow.recall(nb.ids, sim, 8, np.arange(60), self_join=False)
    assert ix.recall(8, 60, new).mean == pytest.approx(truth) and truth > .9
    np.testing.assert_allclose(nb.scores[:5, 0], 1, atol=1e-6)


@pytest.mark.parametrize('kind', ['ivf', 'ivfpq'])
def test_all_cells_are_exact(kind, monkeypatch):
    monkeypatch.setattr(approx, 'REFINE', 1000)
    x = noisy(300, 5, 0, 40)
    ix = Index(x, kind=kind, recall=1.)
    want, got = Dense(x).search(9), ix.search(9)
    np.testing.assert_array_equal(got.scores, want.scores)
    np.testing.assert_array_equal(got.ids, want.ids)
    # though each block is searched cell by cell
    order = ix._order(ix, True)
    assert sorted(order) == list(range(300)) and (order != np.arange(300)).any()


@pytest.mark.parametrize('kind', NEAR)
def test_row_order_matters_to_none_of_the_found(kind, monkeypatch):
    monkeypatch.setattr(approx, 'REFINE', 1000)
    x, order = noisy(200, 5, 3), np.random.default_rng(3).permutation(200)
    back = np.argsort(order)
    a, b = Index(x, kind=kind, recall=1.), Index(x[order], kind=kind, recall=1.)
    np.testing.assert_array_equal(a.search(5).scores, b.search(5).scores[back])
    np.testing.assert_array_equal(a.search(5).ids, order[b.search(5).ids[back]])


@pytest.mark.parametrize('kind, most', [('hnsw', .9995), ('ivf', .98), ('ivfpq', .98)])
def test_effort_follows_the_recall_asked_for(kind, most):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 48))
    low, high = Index(x, kind=kind, recall=.3), Index(x, kind=kind, recall=most)
    low.search(10), high.search(10)
    assert low._effort[10] < high._effort[10] and low.reached[10].mean < high.reached[10].mean and high.reached[10].mean >= most
    # a search of another size is tried out anew
    high.search(30)
    assert set(high.reached) == {10, 30} and high.reached[30].mean >= most


def test_what_cannot_be_reached_is_said(monkeypatch):
    monkeypatch.setattr(approx, 'REFINE', 1)
    monkeypatch.setattr(approx, 'MORE', 0)
    x = np.random.default_rng(0).normal(size=(900, 32))
    ix = Index(x, 'pics', 'ivfpq', recall=.99)
    with pytest.warns(UserWarning, match=r"pics: recall@10 0\.\d+ .* is all that 'ivfpq' can reach, below 0.99"): ix.search(10)
    assert ix._effort[10] == ix._ix.nlist


@pytest.mark.parametrize('kind', KINDS)
def test_copies(kind):
    "Hundreds of equal listings, as shops have titles: whichever are found, they are of the best."
    x = clustered()
    x[100:300] = x[100]
    ix = Index(x[:420], kind=kind)
    if kind == 'hnsw':
        # its links are used up inside the crowd, and it says so
        with pytest.warns(UserWarning, match='below 0.98'): nb = ix.search(20)
    else: nb = ix.search(20)
    promises(nb, ix)
    truth = slow.recall(nb.ids, ref.cosine(x[:420], x[:420]), 20, np.arange(420))
    assert (truth >= .98) == (kind != 'hnsw') and ix.recall(20).mean == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('built', [False, True])
def test_remove_add_rebuild(kind, built):
    x = clustered()
    ix = Index(x, kind=kind)
    if built: ix.search(6)
    removed = np.arange(100, 400)
    ix.remove(removed)
    nb = ix.search(6)
    promises(nb, ix)
    assert (nb.ids[removed, 0] == removed).all() and (nb.ids[removed, 1:] == -1).all() and (nb.scores[removed, 1:] == -np.inf).all()
    np.testing.assert_allclose(nb.scores[removed, 0], 1, atol=1e-6)
    sim = whole()
    assert slow.recall(nb.ids, sim, 6, ix.alive, set(removed)) >= .95
    new = 3 * x[[150, 5]]
    assert ix.add(new).tolist() == [700, 701]
    nb = ix.search(6)
    promises(nb, ix)
    # behind 25 or fewer copies of itself, the added one is found from where it lies
    assert 701 in nb.ids[5] and 5 in nb.ids[701] and nb.ids.shape == (702, 6) and 150 not in nb.ids[700]
    kept = ix.rebuild()
    assert kept.tolist() == [*range(100), *range(400, 702)] and len(ix) == 402 and not ix.dead.any()
    again = ix.search(6)
    promises(again, ix)
    both = np.concatenate([x, new])[kept]
    np.testing.assert_array_equal(ix.vectors, Dense(both).vectors)
    assert slow.recall(again.ids, ref.cosine(both, both), 6, np.arange(402)) >= .97


def test_refuses_to_remove():
    ix = Index(clustered(40), 'pics')
    ix.remove(3)
    for rows, says in [([3], 'pics: rows 3 were removed before'), ([40], 'numbers from 0 to 39'), ([-1], 'numbers'), ([.5], 'numbers'),
                       ([o for o in range(40) if o != 3], 'no listing')]:
        with pytest.raises(InputError, match=says): ix.remove(rows)
    assert ix.dead.sum() == 1
    # nobody is not too many
    for rows in ([], np.zeros(0, int)): ix.remove(rows)
    assert ix.dead.sum() == 1


def test_picks_by_size_and_memory(monkeypatch):
    monkeypatch.setattr(approx, 'EXACT_ROWS', 100)
    x = clustered(400)
    assert [Index(x[:n]).kind for n in (100, 101)] == ['exact', 'ivfpq']
    monkeypatch.setattr(approx, 'ROOM', 0)
    ix = Index(x[:150])
    needs = {o: ix.needs(o) for o in KINDS}
    assert needs['exact'] == 0 < needs['ivfpq'] < needs['hnsw'] and needs['ivfpq'] < needs['ivf']
    assert Index(x[:150], memory=needs['ivfpq']).kind == 'ivfpq' and Index(x[:150], kind='hnsw', memory=needs['hnsw']).kind == 'hnsw'
    with pytest.raises(InputError, match="pics: 150 x 12 by 'ivfpq' takes more than memory=.* GB; in GB: {'exact'"): Index(x[:150], 'pics', memory=needs['ivfpq'] * .9)
    with pytest.raises(InputError, match="'hnsw' takes more than"): Index(x[:90], kind='hnsw', memory=1e-9)
    # it follows the size until something is built
    ix = Index(x[:90])
    ix.search(5)
    ix.add(x[90:150])
    assert ix.kind == 'ivfpq'
    ix.search(5)
    ix.remove(np.arange(100))
    assert ix.kind == 'ivfpq' and ix.take(np.arange(50)).kind == 'exact'
    ix.rebuild()
    assert ix.kind == 'exact'


@pytest.mark.parametrize('built', [False, True])
def test_the_bound_holds_as_it_grows(built, monkeypatch):
    monkeypatch.setattr(approx, 'ROOM', 0)
    x = clustered(700)
    ix = Index(x[:400], 'pics', 'ivfpq', memory=Index(x[:500], kind='ivfpq').needs('ivfpq'))
    assert ix.needs('ivfpq', 500) == ix.memory > ix.needs('ivfpq')
    if built: ix.search(5)
    ix.add(x[400:500])
    with pytest.raises(InputError, match="pics: 501 x 12 by 'ivfpq' takes more than memory="): ix.add(x[500:501])
    assert len(ix) == 500 == len(ix.search(5).ids) and ix._ix.ntotal == 500


def test_refuses():
    x = clustered(50)
    for kwargs, says in [(dict(kind='flat'), "kind='flat': choose one of auto, exact"), (dict(recall=0), 'recall=0'), (dict(recall=98), 'recall=98'), (dict(memory=0), 'memory=0')]:
        with pytest.raises(InputError, match=says): Index(x, **kwargs)
    for kind in KINDS:
        ix = Index(x, 'pics', kind)
        with pytest.raises(InputError, match='pics: queries have 3 dimensions, the listings 12'): ix.search(2, Dense(noisy(5, 3, 1)))
        with pytest.raises(InputError, match='pics: queries are Tfidf'): ix.search(2, Tfidf(['a bag']))
        for f in (ix.search, ix.recall):
            for k, says in ((0, 'give'), (51, 'there are 50 listings')):
                with pytest.raises(InputError, match=f'k={k}: {says}'): f(k)
        with pytest.raises(InputError, match='sample=0'): ix.recall(5, 0)
        with pytest.raises(InputError, match='rows 1 are all zero'): ix.add(np.eye(12)[:2] * [[1], [0]])
        with pytest.raises(InputError, match='rows 0 are not finite'): ix.add(np.full((1, 12), np.nan))
        with pytest.raises(InputError, match='3 dimensions'): ix.add(np.ones((1, 3)))
        assert len(ix) == 50 and ix.search().ids.shape == (50, 50)
    with pytest.raises(InputError, match='pics: rows 2 are all zero'): Index(np.concatenate([x[:2], x[:1] * 0]), 'pics')


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_is_changed_in_place(kind):
    x, q = clustered().astype(np.float32), clustered(seed=2)[:9].astype(np.float32)
    before = x.copy(), q.copy()
    ix, new = Index(x, kind=kind), Dense(q)
    held = ix.vectors.copy(), new.vectors.copy()
    ix.search(5), ix.search(5, new), ix.add(q), ix.remove([0]), ix.search(5)
    for a, b in zip((*before, *held), (x, q, ix.vectors[:700], new.vectors)): np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('kind', NEAR)
def test_is_a_space_like_any_other(kind):
    x, t = clustered(210), [f'bag {i // 7}' for i in range(210)]
    a, b = Index(x, kind=kind, recall=1.), Dense(x)
    got, want = (fuse(candidates({'image': o, 'tfidf': Tfidf(t)}, 8)) for o in (a, b))
    assert (got.ids[:, :5] == want.ids[:, :5]).mean() > .97
    # parts and more of it are indexes of the same kind, and removed stays removed
    a.remove([4])
    part, more = a.take(np.arange(100)), a.append(b.take([1, 2]))
    assert part.kind == more.kind == kind and part.dead.tolist() == [i == 4 for i in range(100)] and more.dead.sum() == 1 and len(more) == 212
    for o in (part, more): promises(o.search(4), o)
    assert a.search(4).ids.shape == (210, 4)


@pytest.mark.parametrize('kind', NEAR)
def test_as_the_catalogue_of_a_pool(kind):
    x, new = clustered(), Dense(clustered(seed=4)[:30])
    got, want = (Pool(new, o).search(8) for o in (Index(x, kind=kind), Dense(x)))
    check_self_first(got.check(), 730)
    assert np.mean([len(set(a) & set(b)) / 8 for a, b in zip(got.ids.tolist(), want.ids.tolist())]) > .9
    assert Pool(new, Index(x, kind=kind)).pool == 730


STEPS = {'none': [], 'augment': [Step('augment', k=3)], 'blend by fused': [Step('blend', threshold=.3, by='fused')], 'expand': [Step('expand', k=3)],
         'cross_mean': [Step('cross_mean', keys='same', on='image')], 'all': [Step('blend', threshold=.3, by='fused'), Step('k_reciprocal', k1=3), Step('components')]}


@pytest.mark.parametrize('name', STEPS)
@pytest.mark.parametrize('pooled', [False, True])
@pytest.mark.parametrize('both', [False, True])
def test_removed_is_as_if_it_had_never_been(name, pooled, both):
    "Whatever is refined, fused, or matched with new listings: the same as without the listings, also where only one modality knows of it."
    x, y, removed = noisy(40, 6, 0, 12), noisy(40, 5, 1), np.array([7, 8, 20, 39])
    kept, same = np.setdiff1d(np.arange(40), removed), [f'p{i % 9}' for i in range(40)]
    # a step by a modality's own neighbours knows what that modality knows
    steps = [Step(o.do, on='image', **o.params) if name in ('augment', 'expand') and not both else o for o in STEPS[name]]
    rule = Rule('mean', {'image': .6, 'title': .4}, .35, 40, steps=steps)
    def spaces(rows, m, removed=()):
        "The first `m` new, the others known; `removed` of these removed."
        res = {}
        for k, v, of in (('image', x, Index), ('title', y, Index if both else Dense)):
            known = of(v[rows[m:]], k)
            if len(removed) and of is Index: known.remove(removed - m)
            res[k] = Pool(Dense(v[rows[:m]], k), known) if m else known
        keys = Keys([same[i] for i in rows])
        return res | {'same': Pool(keys.take(np.arange(m)), keys.take(np.arange(m, len(rows)))) if m else keys}
    m = 5 if pooled else 0
    got, want = rule.apply(spaces(np.arange(40), m, removed)), rule.apply(spaces(kept, m))
    found = {i: set(o.tolist()) for i, o in enumerate(got) if i not in removed}
    assert found == {kept[i]: set(kept[o].tolist()) for i, o in enumerate(want)} and max(map(len, found.values())) > 1
    assert all(got[i].tolist() == [i] for i in removed if i < len(got))


@pytest.mark.parametrize('kind', KINDS)
def test_refined_is_an_index_again(kind):
    "Of its kind, built anew, with what was removed: nothing turns to an exact search of all."
    x = clustered(350)
    ix = Index(x, 'pics', kind)
    ix.search(5)
    ix.remove([3, 4])
    made = {'augment': augment(ix), 'blend': blend(ix), 'cross_mean': cross_mean(ix, Keys(['a'] * 5 + [None] * 345)), 'both': ensemble([Dense(x[:, :3]), ix], name='both'),
            'behind': Dense(x[:9], 'pics').append(ix)}
    for name, o in made.items():
        assert type(o) is Index and o.kind == kind and o._ix is None, name
        assert o.alive.tolist() == [i for i in range(len(o)) if i not in ((12, 13) if name == 'behind' else (3, 4))], name
        promises(o.search(5), o)
        assert (o._ix is None) == (kind == 'exact')
    assert made['both'].name == 'both' and made['blend'].name == 'pics' and not np.shares_memory(made['blend'].dead, ix.dead)
    # nor does what was removed teach others, or look anybody up
    np.testing.assert_allclose(made['cross_mean'].vectors[0], Dense(Dense(x[:3]).vectors.mean(0)[None]).vectors[0], atol=1e-6)
    nb = expand(ix).search(4).check(self_join=True)
    assert (nb.ids[[3, 4], 1:] == -1).all() and not np.isin(nb.ids[5:], [3, 4]).any()


def same(a, b, k=6):
    x, y = a.search(k), b.search(k)
    np.testing.assert_array_equal(x.ids, y.ids)
    np.testing.assert_array_equal(x.scores, y.scores)
    assert repr(a) == repr(b)


@pytest.mark.parametrize('kind', KINDS)
def test_save_and_load(kind, tmp_path):
    x = clustered()
    ix = Index(x, 'pics', kind, recall=.9, memory=2., seed=3)
    ix.save(tmp_path/'fresh')
    assert Index.load(tmp_path/'fresh')._ix is None
    ix.search(6)
    ix.remove([3, 4]), ix.add(x[3:5])
    for folder in ('a', 'fresh'):
        ix.save(tmp_path/folder)
        assert ('index.faiss' in {o.name for o in (tmp_path/folder).iterdir()}) == (kind != 'exact')
        for got in (Index.load(tmp_path/folder), Index.load(tmp_path/folder, np.concatenate([x, x[3:5]]))):
            assert (got.kind, got.asked, got.target, got.memory, got.seed) == (kind, kind, .9, 2., 3)
            same(ix, got)
            np.testing.assert_array_equal(got.vectors, ix.vectors)
    # and goes on from there
    got = Index.load(tmp_path/'a')
    got.remove([10])
    got.add(x[10:11])
    assert 702 in got.search(6).ids[702] and 10 not in got.search(6).ids[9]


@pytest.mark.parametrize('kind', KINDS)
def test_a_flipped_bit_is_seen(kind, tmp_path):
    ix = Index(clustered(280, 4), kind=kind)
    ix.search(5)
    ix.save(tmp_path/'ix')
    rng = np.random.default_rng(0)
    for file in sorted((tmp_path/'ix').iterdir()):
        whole = file.read_bytes()
        # headers are where faiss reads on
        for at in {*range(0, 60), *rng.integers(0, len(whole), 60).tolist()}:
            bad = bytearray(whole)
            bad[at] ^= 1 << rng.integers(8)
            file.write_bytes(bad)
            with pytest.raises(InputError, match=file.name): Index.load(tmp_path/'ix')
        for bad in (whole[:-1], whole[:50], b'', whole + b' '):
            file.write_bytes(bad)
            with pytest.raises(InputError, match=file.name): Index.load(tmp_path/'ix')
        file.unlink()
        with pytest.raises(InputError, match=file.name): Index.load(tmp_path/'ix')
        file.write_bytes(whole)
        assert len(Index.load(tmp_path/'ix')) == 280


def test_an_index_of_other_vectors_is_refused(tmp_path):
    x = clustered()
    ix = Index(x, kind='hnsw')
    ix.search(5)
    ix.save(tmp_path/'ix')
    other = x.copy()
    other[5] += 1e-3
    for bad, says in [(other, r'made from other vectors \(700 x 12\)'), (x[::-1], 'other vectors'), (x[:-1], 'other vectors'),
                      (x[:, :5], 'an index of 12 dimensions, the vectors are of shape'), (x[0], '12 dimensions')]:
        with pytest.raises(InputError, match=says): Index.load(tmp_path/'ix', bad)
    # a length is no matter of the index
    same(Index.load(tmp_path/'ix', 2 * x), ix)
    # another index' file under its right hash: the numbers of listings tell
    Index(x[:300], kind='hnsw').search(5)
    small = Index(x[:300], kind='hnsw')
    small.search(5)
    small.save(tmp_path/'small')
    content, files = approx.read_sealed(tmp_path/'ix', 'index.json', 1)
    vectors = (tmp_path/'ix'/'vectors.safetensors').read_bytes()
    write_sealed(tmp_path/'mixed', 'index.json', {k: v for k, v in content.items() if k != 'files'},
                 {'index.faiss': (tmp_path/'small'/'index.faiss').read_bytes(), 'vectors.safetensors': lambda f: f.write_bytes(vectors)})
    with pytest.raises(InputError, match='index.faiss: holds 300 x 12'): Index.load(tmp_path/'mixed')


def test_places(tmp_path):
    ix = Index(clustered(30))
    with pytest.raises(InputError, match='missing'): Index.load(tmp_path/'nothing')
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.docx').write_text('x')
    with pytest.raises(InputError, match='something else'): ix.save(tmp_path/'mine')
    ix.save(tmp_path/'ix')
    file = tmp_path/'ix'/'index.json'
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, 'format': 99}))
    with pytest.raises(InputError, match='saved in format 99, this version of fastmatch reads 1'): Index.load(tmp_path/'ix')
    file.write_text('[]')
    with pytest.raises(InputError, match='index.json: damaged'): Index.load(tmp_path/'ix')


def test_fingerprints():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    alike = [x, x.copy(), np.asfortranarray(x), x.reshape(4, 6).reshape(6, 4)]
    other = [x.reshape(4, 6), x[::-1], x[:, ::-1], x + np.float32(1e-7), x[:5], x.view(np.int32)]
    assert len({fingerprint(o) for o in alike}) == 1 and len({fingerprint(o) for o in [x, *other]}) == 7


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
@pytest.mark.parametrize('kind', KINDS)
def test_memory_stays_within_what_it_needs(kind):
    code = f'''
import numpy as np
from tests.bench.harness import memory
from fastmatch.match import Dense, Index
Index(np.random.default_rng(0).normal(size=(500, 8)), kind={kind!r}, recall=.1).search(5)
x = Dense(np.random.default_rng(0).normal(size=(60_000, 128)).astype('f')).vectors
open('/proc/self/clear_refs', 'w').write('5')
base = memory('VmRSS')
ix = Index(x, kind={kind!r}, recall=.1, normalized=True)
nb = ix.search(50, Dense(x[:20_000], normalized=True))
print(memory('VmHWM') - base - (nb.ids.nbytes + nb.scores.nbytes) / 1e6, ix.needs({kind!r}) * 1000)
'''
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert res.returncode == 0, res.stderr
    took, said = map(float, res.stdout.split())
    assert took < said, (took, said)
