"Exact search beside bare faiss."
import numpy as np

from tests.bench.harness import Case, bench


@bench('main')
def search(quick):
    "Exact search of 34,250 x 512 vectors for 50 neighbours, against faiss' flat index on normalised vectors."
    import faiss

    from fastmatch.match import Dense
    n, width, k = (400, 32, 10) if quick else (34_250, 512, 50)
    vectors = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)

    # both from the raw float32 array to ids and scores: normalising a copy is work that both have
    def flat():
        normalized = vectors.copy()
        faiss.normalize_L2(normalized)
        index = faiss.IndexFlatIP(width)
        index.add(normalized)
        return index.search(normalized, k)

    yield Case(
        'search',
        {'Dense': lambda: lambda: Dense(vectors).search(k), 'faiss': lambda: flat},
        reference='faiss',
        bar=1.1,
    )
