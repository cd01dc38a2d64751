"A study of rules beside the objective that notebooks hand to Optuna."
import numpy as np

from tests.bench.bench_rule import QUICK, listings
from tests.bench.bench_threshold import shopee_like
from tests.bench.harness import Case, Value, bench

TRIALS, PART = 100, 10  # trials of a study; the objective's run is for one of so many parts of the listings


def objective(vectors, groups, rows, cuts, k=50):
    """Mean row F1 over `rows` of the union of two modalities above their cuts: search, then python sets, all
    of it in each trial."""
    import faiss
    near = [faiss.knn(v[rows], v, k, faiss.METRIC_INNER_PRODUCT) for v in vectors]
    f1 = 0.
    for i, row in enumerate(rows):
        found = {row}
        for (scores, ids), cut in zip(near, cuts): found |= set(ids[i][scores[i] > cut])
        f1 += 2 * len(found & groups[row]) / (len(found) + len(groups[row]))
    return f1 / len(rows)


def study_of_sets(vectors, groups, rows, cut):
    "One trial of a study with that objective; the same two numbers each time."
    import optuna
    from optuna.distributions import FloatDistribution
    space = {k: FloatDistribution(0, 1) for k in ('image', 'title')}
    def one():
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction='maximize')
        trial = study.ask(space)
        study.tell(trial, objective(vectors, groups, rows, (cut, cut)))
    return one


@bench('studies')
def rules(quick):
    """A trial of `tune_rule`, its share of the one search included, on 34,250 listings of two modalities;
    against an objective that searches and scores sets."""
    from fastmatch.match import Embeddings
    from fastmatch.study.rule import tune_rule
    size = QUICK[:3] if quick else (34_250, 11_014, 51)
    vectors, labels = listings(*QUICK if quick else ()), shopee_like(*size)
    embeddings = Embeddings(dict(zip(('image', 'title'), vectors)), np.arange(len(labels)), groups=labels)
    groups = {g: set(np.flatnonzero(labels == g).tolist()) for g in range(labels.max() + 1)}
    groups = [groups[g] for g in labels]
    # queries cost what they cost one by one, and so do sets: every tenth listing stands for all
    rows = np.arange(0, len(labels), PART)
    n, last = 5 if quick else TRIALS, []
    def tuned():
        last[:] = [tune_rule(embeddings, n, halvings=0, steps='none')[1]]

    yield Case(
        'a trial',
        {'tune_rule': lambda: tuned, 'search and sets': lambda: study_of_sets(vectors, groups, rows, 0.6)},
        ref='search and sets',
        bar=0.02,
        scale={'tune_rule': 1 / n, 'search and sets': PART},
        pairs=2,
    )
    # the first trial waits for the search
    ends = [t.datetime_complete.timestamp() for t in last[0].trials]
    seconds = (ends[-1] - ends[0]) / (n - 1)
    yield Value('trials a second', 'tune_rule', 1 / seconds, '1/s')
    yield Value('a trial without the search', 'tune_rule', 1000 * seconds, 'ms', 25.)
