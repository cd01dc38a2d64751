"Exact search beside bare faiss."
import numpy as np

from tests.bench.harness import Case, bench


@bench('main')
def search(quick):
    "Exact search of 34,250 x 512 vectors for 50 neighbours, against faiss' flat index on normalised vectors."
    import faiss

    from fastmatch.match import Dense
    n, d, k = (400, 32, 10) if quick else (34_250, 512, 50)
    v = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)

    # both from the raw float32 array to ids and scores: normalising a copy is work that both have
    def flat():
        x = v.copy()
        faiss.normalize_L2(x)
        index = faiss.IndexFlatIP(d)
        index.add(x)
        return index.search(x, k)

    yield Case(
        'search', {'Dense': lambda: lambda: Dense(v).search(k), 'faiss': lambda: flat}, ref='faiss', bar=1.1
    )
