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
    nearest = [faiss.knn(modality[rows], modality, k, faiss.METRIC_INNER_PRODUCT) for modality in vectors]
    f1 = 0.
    for i, row in enumerate(rows):
        found = {row}
        for (scores, ids), cut in zip(nearest, cuts): found |= set(ids[i][scores[i] > cut])
        f1 += 2 * len(found & groups[row]) / (len(found) + len(groups[row]))
    return f1 / len(rows)


def study_of_sets(vectors, groups, rows, cut):
    "One trial of a study with that objective; the same two numbers each time."
    import optuna
    from optuna.distributions import FloatDistribution
    space = {modality: FloatDistribution(0, 1) for modality in ('image', 'title')}

    def one_trial():
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction='maximize')
        trial = study.ask(space)
        study.tell(trial, objective(vectors, groups, rows, (cut, cut)))
    return one_trial


@bench('studies')
def rules(quick):
    """A trial of `tune_rule`, its share of the one search included, on 34,250 listings of two modalities;
    against an objective that searches and scores sets."""
    from fastmatch.match import Embeddings
    from fastmatch.study.rule import tune_rule
    size = QUICK[:3] if quick else (34_250, 11_014, 51)
    vectors, labels = listings(*QUICK if quick else ()), shopee_like(*size)
    embeddings = Embeddings(dict(zip(('image', 'title'), vectors)), np.arange(len(labels)), groups=labels)
    members = [set(np.flatnonzero(labels == label).tolist()) for label in range(labels.max() + 1)]
    groups = [members[label] for label in labels]
    # queries cost what they cost one by one, and so do sets: every tenth listing stands for all
    rows = np.arange(0, len(labels), PART)
    n_trials = 5 if quick else TRIALS
    last_study = []

    def tuned():
        last_study[:] = [tune_rule(embeddings, n_trials, halvings=0, steps='none')[1]]

    yield Case(
        'a trial',
        {'tune_rule': lambda: tuned, 'search and sets': lambda: study_of_sets(vectors, groups, rows, 0.6)},
        reference='search and sets',
        bar=0.02,
        scale={'tune_rule': 1 / n_trials, 'search and sets': PART},
        pairs=2,
    )
    # the first trial waits for the search
    ends = [trial.datetime_complete.timestamp() for trial in last_study[0].trials]
    seconds = (ends[-1] - ends[0]) / (n_trials - 1)
    yield Value('trials a second', 'tune_rule', 1 / seconds, '1/s')
    yield Value('a trial without the search', 'tune_rule', 1000 * seconds, 'ms', 25.)
