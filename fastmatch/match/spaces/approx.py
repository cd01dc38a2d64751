"Embeddings as a space to search at any size: exact or by an index of faiss', by one call, with the recall against exact stated."
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...core import InputError, preview, require_package
from ...store import fingerprint, read_sealed, write_sealed
from ..neighbors import resolve_k
from .base import FLOATS, SPARE
from .dense import Dense

KINDS = ['exact', 'hnsw', 'ivf', 'ivfpq']
# An exact self-join costs n*n*d: a second for 10,000 x 384 on two cores, under a minute here (the competition's test set has 70,000 listings), hours for a
# million. IVF-PQ is quicker from about 25,000, but what is found in a minute need not be missed. HNSW cost more than IVF-PQ at every size tried, takes
# ten times its memory, and loses listings that more others equal than it has links: it is for catalogues that grow by a few listings at a time.
EXACT_ROWS = 75_000
LINKS = 32  # HNSW: links a listing, twice as many on the ground level (faiss' own default)
BUILD = 80  # HNSW: listings looked at to place one; with faiss' 40 more of them can't be reached
POINTS = 40  # IVF: listings to train on for each cell; faiss warns below 39
REFINE, MORE = 4, 64  # IVF-PQ: its codes propose this many times k and this many more, the vectors themselves decide
SAMPLE = 1000  # listings that are also looked up exactly: a recall of .98 is known to about .002
ROOM = 1 << 28  # bytes for blocks of queries and all that is small
FORMAT = 1  # raised with every change that older code can't read


@dataclass
class Recall:
    "The share of the exact neighbours that a search found, and on how many rows it was looked at."
    k: int  # Neighbours asked for, the listing itself included in a self-join
    mean: float  # Over the rows; a found one as near as the last exact one counts, whichever of equals it is
    se: float  # Standard error of the mean
    rows: int  # Looked at

    def __repr__(self): return f'recall@{self.k} {self.mean:.3f} (s.e. {self.se:.3f}, {self.rows} rows)'


class Index(Dense):
    "Embeddings to search approximately where exact search would take long: scores are exact, neighbours may be missed, `reached` says how many."
    def __init__(
        self,
        vectors,  # float (n,d), one row a listing; any norm but 0
        name: str = 'vectors',  # What to call them in messages
        kind: str = 'auto',  # One of `KINDS`; 'auto': exact up to `EXACT_ROWS` listings, IVF-PQ above
        recall: float = .98,  # To be reached on a sample: a search looks at more until it is
        memory: float | None = None,  # GB that index and search may hold beside the vectors and what is found; None: no bound
        seed: int = 0,  # Of the samples to train on and to try out on
        normalized: bool = False,  # They were normalised by another `Dense`: keep their very bits
    ):
        super().__init__(vectors, name, normalized)
        if kind not in ('auto', *KINDS): raise InputError(f"kind={kind!r}: choose one of auto, {', '.join(KINDS)}")
        if not 0 < recall <= 1: raise InputError(f'recall={recall}: above 0, 1 at most')
        if memory is not None and not memory > 0: raise InputError(f'memory={memory}: GB, above 0')
        self.asked, self.target, self.memory, self.seed, self.dead = kind, recall, memory, seed, np.zeros(len(self), bool)
        self._reset()
        self._pick(len(self))  # a bound that nothing fits in is told before the work

    def _reset(self): self._ix, self._built, self._effort, self.reached = None, None, {}, {}

    def __repr__(self):
        return ', '.join([f'Index({self.name!r}', f'{len(self)} x {self.dim}', *([f'{self.dead.sum()} removed'] if self.dead.any() else []),
                          self.kind, *map(repr, self.reached.values())]) + ')'

    @property
    def removed(self): return self.dead

    @property
    def alive(self) -> np.ndarray:
        "The numbers of the listings that weren't removed."
        return np.flatnonzero(~self.dead)

    @property
    def kind(self) -> str:
        "How it searches: one of `KINDS`; follows the size until an index is built."
        return self._built or self._pick(len(self))

    def _pick(self, n):
        kind = self.asked
        if kind == 'auto': kind = 'exact' if n <= EXACT_ROWS else 'ivfpq'
        return self._fits(kind, n)

    def _fits(self, kind, n):
        if self.memory is not None and self.needs(kind, n) > self.memory:
            raise InputError(f'{self.name}: {n} x {self.dim} by {kind!r} takes more than memory={self.memory} GB; in GB: {({o: round(self.needs(o, n), 2) for o in KINDS})}')
        return kind

    def needs(
        self,
        kind: str,  # One of `KINDS`
        n: int | None = None,  # Listings; default those there are
    ) -> float:
        "About how many GB an index of this kind takes while it is built and searched, beside the vectors and what is found."
        n, d = len(self) if n is None else n, self.dim
        # lists grow by doubling; what is trained on is a copy, and faiss makes another
        each = {'exact': 0, 'hnsw': 4 * d + 8 * LINKS + 16, 'ivf': 2 * (4 * d + 8), 'ivfpq': 2 * (_codes(d) // 2 + 8)}[kind]
        return (n * each + ('ivf' in kind) * _cells(n) * (2 * POINTS + 1) * 4 * d + ROOM) / 1e9

    def search(self, k=None, queries=None):
        "The `k` nearest of each row, missed ones as `reached` says; the first search of a size builds and tries out. A removed listing stands alone."
        k = resolve_k(k, len(self))
        if self.kind != 'exact': self._prepare(k)
        res = super().search(k, queries)
        if queries is None and self.dead.any():
            res.ids[self.dead, 1:], res.scores[self.dead, 1:] = -1, -np.inf
            res.scores[self.dead, 0] = self.scores(at := np.flatnonzero(self.dead), at)
        return res

    def recall(
        self,
        k: int | None = None,  # Neighbours a row, as `search` takes it
        sample: int = SAMPLE,  # Rows to look at, drawn at random
        queries: Dense | None = None,  # New listings to draw from; default the listings themselves
        seed: int = 1,  # Of the draw: other rows than the search was tried out on
    ) -> Recall:
        "Compare with exact search on a sample."
        k = resolve_k(k, len(self))
        if sample < 1: raise InputError(f'sample={sample}: 1 or more')
        if self.kind != 'exact': self._prepare(k)
        q = self if queries is None else self._check_compatible(queries)
        rows = _draw(self.alive if q is self else np.arange(len(q)), sample, seed)
        return self._compare(rows, q, k, self._exact(rows, q, k))

    def _exact(self, rows, q, k): return super()._search(rows, q, k, q is self).scores[:, int(q is self):]

    def _compare(self, rows, q, k, exact):
        found = self._search(rows, q, k, q is self).scores[:, int(q is self):]
        # one kernel scores both: what is as near as the last exact one is one of them, or its equal
        last, total = np.where(exact > -np.inf, exact, np.inf).min(1, initial=np.inf), (exact > -np.inf).sum(1)
        share = np.minimum((found >= last[:, None]).sum(1), total) / np.maximum(total, 1)
        share[total == 0] = 1
        return Recall(k, float(share.mean()), float(share.std() / np.sqrt(len(rows))), len(rows))

    def _prepare(self, k):
        "Build what isn't built, and find the least effort that reaches the recall."
        if self._ix is None: self._build()
        if k in self._effort: return
        rows = _draw(self.alive, SAMPLE, self.seed)
        exact = self._exact(rows, self, k)
        for effort in self._efforts(k):
            self._effort[k] = effort
            self.reached[k] = o = self._compare(rows, self, k, exact)
            # one that passes by luck doesn't count
            if o.mean - 2 * o.se >= self.target: return
        if o.mean < self.target: warnings.warn(f'{self.name}: {o!r} is all that {self._built!r} can reach, below {self.target}', stacklevel=4)

    def _efforts(self, k):
        # how many listings a graph's search keeps in view; how many cells are looked into
        if self._built == 'hnsw': return [k + SPARE << j for j in range(8)]
        return [*(1 << j for j in range(2, 20) if 1 << j < self._ix.nlist), self._ix.nlist]

    def _build(self):
        faiss = require_package('faiss', 'searching embeddings', 'faiss-cpu')
        kind, n, d, ip = self.kind, len(self), self.dim, faiss.METRIC_INNER_PRODUCT
        if kind == 'hnsw':
            ix = faiss.IndexHNSWFlat(d, LINKS, ip)
            ix.hnsw.efConstruction = BUILD
        else:
            # codes of 4 bits for every two dimensions, of what a listing differs from its cell's centre
            ix = faiss.index_factory(d, f'IVF{_cells(n)},' + ('Flat' if kind == 'ivf' else f'PQ{_codes(d)}x4fsr'), ip)
            ix.cp.max_points_per_centroid, ix.cp.min_points_per_centroid, ix.cp.seed = POINTS, 1, 1234 + self.seed
            if kind == 'ivfpq': ix.pq.cp.min_points_per_centroid = 1
            ix.train(self.vectors[_draw(self.alive, _cells(n) * POINTS, self.seed)])
        self._put(ix, self.vectors)
        self._ix, self._built = ix, kind

    def _put(self, ix, vectors):
        # in blocks: faiss holds as much again of what it is given
        size = max(1, 4 * FLOATS // self.dim)
        for i in range(0, len(vectors), size): ix.add(vectors[i:i + size])

    def _fetch(self, k): return min(len(self), REFINE * k + MORE if self._built == 'ivfpq' else k + SPARE)
    def _block(self, k): return super()._block(self._fetch(k))

    def _order(self, q, self_join):
        if not self_join or self._built not in ('ivf', 'ivfpq'): return super()._order(q, self_join)
        # cell by cell: neighbours in time look into the same lists
        faiss, lists = require_package('faiss', 'searching embeddings', 'faiss-cpu'), self._ix.invlists
        return np.concatenate([faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy() for i in range(self._ix.nlist) if lists.list_size(i)])

    def _search(self, rows, q, k, self_join):
        if self._ix is None: return super()._search(rows, q, k, self_join)
        faiss = require_package('faiss', 'searching embeddings', 'faiss-cpu')
        sel = faiss.IDSelectorBitmap(np.packbits(~self.dead, bitorder='little')) if self.dead.any() else None
        make, what = (faiss.SearchParametersHNSW, 'efSearch') if self._built == 'hnsw' else (faiss.SearchParametersIVF, 'nprobe')
        _, ids = self._ix.search(q.vectors[rows], self._fetch(k), params=make(sel=sel, **{what: self._effort[k]}))
        return self._best(rows, ids, q, k, self_join)

    def _nearest(self, q, rows, k):
        if not self.dead.any(): return super()._nearest(q, rows, k)
        faiss, x, size = require_package('faiss', 'searching embeddings', 'faiss-cpu'), q.vectors[rows], max(1, 4 * FLOATS // self.dim)
        ids, near = np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), -np.inf, np.float32)
        # exact among the living, a part of them at a time
        for part in np.split(self.alive, range(size, len(self.alive), size)):
            more, at = faiss.knn(x, self.vectors[part], k, faiss.METRIC_INNER_PRODUCT)
            both, who = np.concatenate([near, np.where(at >= 0, more, -np.inf)], 1), np.concatenate([ids, np.where(at >= 0, part[at], -1)], 1)
            order = np.argsort(-both, axis=1)[:, :k]
            near, ids = np.take_along_axis(both, order, 1), np.take_along_axis(who, order, 1)
        return ids, near

    def _all_scores(self, q, rows):
        near = super()._all_scores(q, rows)
        near[:, self.dead] = -np.inf
        return near

    def add(
        self,
        vectors,  # float (m,d), or a `Dense`
    ) -> np.ndarray:  # int64 (m,), their numbers
        "Put listings behind the others; an index that is built takes them in, its cells stay where they are until `rebuild`."
        new = self._check_compatible(vectors if isinstance(vectors, Dense) else Dense(vectors, self.name)).vectors
        n, total = len(self), len(self) + len(new)
        self._fits(self._built, total) if self._built else self._pick(total)
        if self._ix is not None: self._put(self._ix, new)
        self.vectors, self.dead = np.concatenate([self.vectors, new]), np.concatenate([self.dead, np.zeros(len(new), bool)])
        return np.arange(n, len(self))

    def remove(
        self,
        rows,  # Row numbers
    ):
        "Let listings never be found again; the others keep their numbers, and the room stays taken until `rebuild`."
        rows = np.unique(np.atleast_1d(rows))
        if not rows.size: return
        if rows.dtype.kind not in 'iu' or rows.min() < 0 or rows.max() >= len(self): raise InputError(f'{self.name}: rows {preview(rows)} to remove: numbers from 0 to {len(self) - 1}')
        if (removed := self.dead[rows]).any(): raise InputError(f'{self.name}: rows {preview(rows[removed])} were removed before')
        if len(rows) == len(self.alive): raise InputError(f'{self.name}: that would leave no listing')
        self.dead[rows] = True

    def rebuild(self) -> np.ndarray:  # int64, the old number of each listing that is left
        "Drop what was removed and build anew at the next search; listings get new numbers."
        kept = self.alive
        self.vectors, self.dead = self.vectors[kept], np.zeros(len(kept), bool)
        self._reset()
        return kept

    def _with_vectors(self, vectors, removed=None):
        res = super()._with_vectors(vectors)
        res.dead = np.zeros(len(res), bool) if removed is None else removed.copy()
        res._reset()
        return res

    def save(
        self,
        path,  # Folder; one that an index was saved to before is replaced
    ):
        "Save vectors and index under their hashes; an exact one holds no more than its vectors."
        from safetensors.numpy import save_file
        faiss = require_package('faiss', 'saving an index', 'faiss-cpu')
        content = {'format': FORMAT, 'name': self.name, 'kind': self.asked, 'built': self._built, 'recall': self.target, 'memory': self.memory, 'seed': self.seed,
                   'effort': {str(k): v for k, v in self._effort.items()}, 'reached': [asdict(o) for o in self.reached.values()],
                   'removed': np.flatnonzero(self.dead).tolist(), 'shape': list(self.vectors.shape), 'fingerprint': fingerprint(self.vectors)}
        files = {'vectors.safetensors': lambda file: save_file({'vectors': self.vectors}, file)}
        if self._ix is not None: files['index.faiss'] = faiss.serialize_index(self._ix).tobytes()
        write_sealed(path, 'index.json', content, files)

    @classmethod
    def load(
        cls,
        path,  # Folder that `save` wrote
        vectors=None,  # The (n,d) vectors it was made from, where they are at hand; default the saved ones
    ) -> 'Index':
        "Load an index; faiss, which reads flipped bits without a word, is handed a file only when its hash and its vectors' fingerprint are right."
        content, files = read_sealed(path, 'index.json', FORMAT)
        (n, d), given = content['shape'], vectors is not None
        if not given: vectors = _saved_vectors(Path(path)/'vectors.safetensors', content['fingerprint'])
        elif np.ndim(vectors) != 2 or np.shape(vectors)[1] != d: raise InputError(f'{path}: an index of {d} dimensions, the vectors are of shape {np.shape(vectors)}')
        res = cls(vectors, content['name'], content['kind'], content['recall'], content['memory'], content['seed'], normalized=not given)
        if given and fingerprint(res.vectors) != content['fingerprint']: raise InputError(f'{path}: the index was made from other vectors ({n} x {d})')
        res.dead[content['removed']] = True
        res._effort, res.reached = {int(k): v for k, v in content['effort'].items()}, {o['k']: Recall(**o) for o in content['reached']}
        if content['built']:
            faiss = require_package('faiss', 'loading an index', 'faiss-cpu')
            res._ix, res._built = faiss.deserialize_index(np.frombuffer(files['index.faiss'], np.uint8)), content['built']
            if (res._ix.ntotal, res._ix.d) != (n, d): raise InputError(f'{path}/index.faiss: holds {res._ix.ntotal} x {res._ix.d}, the vectors are {n} x {d}')
        return res


def _saved_vectors(file, expected):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    try: vectors = load_file(file)['vectors']
    except (SafetensorError, OSError, KeyError) as e: raise InputError(f'{file}: missing or damaged ({e})') from e
    if fingerprint(vectors) != expected: raise InputError(f'{file}: damaged or changed since it was saved (its fingerprint differs)')
    return vectors


def _draw(rows, size, seed): return np.sort(np.random.default_rng(seed).choice(rows, min(size, len(rows)), replace=False))
def _cells(n): return max(1, min(round(4 * n**.5), n // POINTS))  # four for each root of n, as faiss advises
def _codes(d): return d // 2 if d % 2 == 0 else d
