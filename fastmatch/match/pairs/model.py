"A classifier over candidate pairs: are these two listings the same product? Its probability is a score like any other."
import numpy as np

from ...core import InputError, preview, require_package
from ...store import read_sealed, write_sealed
from ..candidates import Candidates
from ..fuse import sorted_neighbors
from ..judge.heldout import HeldOut, _whole, random_halves
from ..judge.score import map_at_r, recall_at
from ..matches import MAX_MATCHES
from ..neighbors import Neighbors, group_codes
from ..thresholds.sweep import Sweep, row_mask
from .features import pair_features, radii_of
from .trees import arrays_of, proba

FORMAT = 1  # raised with every change that older code can't read
CHECKED = 500  # pairs that a saved model must score as the fitted one did


def boosted():
    "The default: few small boosted trees (of 15 leaves and twice as many they scored lower on the sample, and took ten times as long)."
    # no early stopping: it would draw its pairs from all groups
    return require_package('sklearn.ensemble', 'a pair model', 'scikit-learn').HistGradientBoostingClassifier(
        max_iter=80, learning_rate=.06, max_leaf_nodes=8, min_samples_leaf=40, l2_regularization=5., early_stopping=False, random_state=0)


class PairModel:
    "Scores candidate pairs by `pair_features`: `fit` on listings with groups, `score` others; give it scores of encoders that saw neither."
    def __init__(
        self,
        classifier=None,  # Any of scikit-learn's with `predict_proba`; default `boosted`
        use: list | None = None,  # Some of `FEATURES`; default all that can be had
        top: int = 5,  # Nearest others whose mean and deviation are features
    ):
        if classifier is not None and not hasattr(classifier, 'predict_proba'): raise InputError(f'classifier={classifier!r}: has no predict_proba')
        self.classifier, self.use, self.top, self.names, self.radii, self._saved = classifier, use, top, None, None, None

    def __repr__(self): return f'PairModel({self._saved[0] if self._saved else self.classifier or "boosted"}, {"not fitted" if self.names is None else f"{len(self.names)} features"})'

    def features(
        self,
        cand: Candidates,  # Of a self-join
        titles=None,  # (n,) strings, where it reads them
    ) -> tuple:  # As `pair_features` gives them
        "The features this model reads."
        res = pair_features(cand, titles, self.use, self.radii, self.top)
        if self.names is not None and res[3] != self.names:
            if lacking := [o for o in self.names if o not in res[3]]: raise InputError(f'pair model: lacks the features {preview(lacking)}: give titles and modalities as in fitting')
            raise InputError(f'pair model: was fitted without the features {preview(o for o in res[3] if o not in self.names)}, or in another order')
        return res

    def fit(
        self,
        cand: Candidates,  # Of a self-join; scores of encoders that were not trained on these listings
        groups,  # (n,) groups
        titles=None,  # (n,) strings
        rows=None,  # bool (n,) or row numbers: the listings to learn from, whole groups; default all
        trained_on=None,  # bool (n,), as in `Embeddings`: such listings are refused
    ) -> 'PairModel':
        "Learn which candidates of `rows` are of the row's group."
        if trained_on is not None and np.any(trained_on): raise InputError(f'pair model: {np.sum(trained_on)} listings were trained on, their scores sit near 1: fit on others')
        y = group_codes(groups, len(cand.ids))
        self.names, self._saved, self.radii = None, None, radii_of(cand)
        at, cols, x, self.names = self.features(cand, titles)
        if self.use is None: self.use = [o for o in ('score', 'rank', 'density', 'top', 'pagerank', *(['title', 'length'] if titles is not None else []))]
        keep = slice(None) if rows is None else row_mask(rows, len(y))[at]
        self._fit(x[keep], (y[at] == y[cand.ids[at, cols]])[keep])
        return self

    def _fit(self, x, same):
        from sklearn.base import clone
        if len(np.unique(same)) < 2: raise InputError(f'pair model: of {len(same)} candidate pairs {"all" if same.all() and len(same) else "none"} are of one group')
        self.model = clone(self.classifier) if self.classifier is not None else boosted()
        self.model.fit(x, same.astype(np.int64))
        # the same pairs, whatever was fitted: a save is checked by them
        self._check = x[np.linspace(0, len(x) - 1, min(len(x), CHECKED)).astype(int)]

    def _proba(self, x):
        if self.names is None: raise InputError('pair model: not fitted')
        if not len(x): return np.empty(0, np.float32)
        return np.asarray(_load_proba(*self._saved)(x) if self._saved else self.model.predict_proba(x)[:, 1], np.float32)

    def score(
        self,
        cand: Candidates,  # Of a self-join, with the modalities it was fitted on
        titles=None,  # (n,) strings, where it was fitted with them
    ) -> Neighbors:
        "The candidates by their probability of being the same product. Rows it was fitted on score too well: choose no threshold on them."
        if self.names is None: raise InputError('pair model: not fitted')
        at, cols, x, _ = self.features(cand, titles)
        return _neighbors(cand, at, cols, self._proba(x))

    def score_unseen(
        self,
        cand: Candidates,  # Of a self-join
        groups,  # (n,) groups
        titles=None,  # (n,) strings
        folds: int = 5,  # Parts of the groups
        seed: int = 0,  # Of the parts
    ) -> Neighbors:
        "Fit, and score each listing by a model that didn't see its group: what a threshold is chosen on. The model itself is fitted on all."
        y = group_codes(groups, len(cand.ids))
        self.fit(cand, groups, titles)
        at, cols, x, _ = self.features(cand, titles)
        return _neighbors(cand, at, cols, self._unseen(x, y[at] == y[cand.ids[at, cols]], _parts(y, folds, seed)[at], folds))

    def _unseen(self, x, same, part, folds):
        "Probabilities of each pair by a model of the other parts; the one that is left is of all."
        out, other = np.empty(len(x), np.float32), PairModel(self.classifier, self.use, self.top)
        other.names = self.names
        for f in range(folds):
            if not (mine := part == f).any(): continue
            other._fit(x[~mine], same[~mine])
            out[mine] = other._proba(x[mine])
        return out

    def save(
        self,
        path,  # Folder; one that a pair model was saved to before is replaced
    ):
        "Save without pickle: boosted trees as arrays, LightGBM's as its text, others as ONNX where skl2onnx knows them; what comes back is compared first."
        if self.names is None: raise InputError('pair model: not fitted')
        kind, data = self._saved or _dump(self.model, self._check)
        if not self._saved:
            off = np.abs(_load_proba(kind, data)(self._check) - self.model.predict_proba(self._check)[:, 1]).max()
            if not off < 1e-4: raise InputError(f'pair model: {type(self.model).__name__} saved as {kind} gives other probabilities (off by {off:.1g}): take HistGradientBoostingClassifier or LGBMClassifier')
        content = {'format': FORMAT, 'kind': kind, 'use': self.use, 'top': self.top, 'names': self.names, 'radii': self.radii}
        write_sealed(path, 'pair.json', content, {FILES[kind]: data})

    @classmethod
    def load(
        cls,
        path,  # Folder that `save` wrote
    ) -> 'PairModel':
        "Load a saved model after its hashes were checked; it scores, and is fitted no more."
        content, files = read_sealed(path, 'pair.json', FORMAT)
        res = cls(None, content['use'], content['top'])
        res.names, res.radii, res._saved = content['names'], content['radii'], (content['kind'], files[FILES[content['kind']]])
        return res


FILES = {'trees': 'trees.safetensors', 'lightgbm': 'lightgbm.txt', 'onnx': 'model.onnx'}


def _dump(model, x):
    "A fitted classifier as (kind, bytes)."
    name = f'{type(model).__module__.split(".")[0]}.{type(model).__name__}'
    if name == 'sklearn.HistGradientBoostingClassifier':
        from safetensors.numpy import save
        return 'trees', save(arrays_of(model))
    if name == 'lightgbm.LGBMClassifier': return 'lightgbm', model.booster_.model_to_string().encode()
    onnx = require_package('skl2onnx', f'saving a {type(model).__name__}', 'skl2onnx onnxruntime')
    require_package('onnxruntime', f'saving a {type(model).__name__}')
    # it raises errors of many types, its own and others', for what it doesn't know
    try: return 'onnx', onnx.to_onnx(model, x[:1], options={id(model): {'zipmap': False}}).SerializeToString()
    except Exception as e:
        raise InputError(f"pair model: {type(model).__name__} can't be saved without pickle, skl2onnx says: {str(e).splitlines()[0][:200]}. "
                         'Take HistGradientBoostingClassifier, LGBMClassifier, or one that skl2onnx knows') from e


def _load_proba(kind, data):
    "The function (m,f) -> (m,) that was saved."
    if kind == 'trees':
        from safetensors.numpy import load
        trees = load(data)
        return lambda x: proba(trees, x)
    if kind == 'lightgbm':
        booster = require_package('lightgbm', 'a pair model of LightGBM').Booster(model_str=data.decode())
        return booster.predict
    run = require_package('onnxruntime', 'a pair model in ONNX').InferenceSession(data, providers=['CPUExecutionProvider'])
    return lambda x: run.run(None, {run.get_inputs()[0].name: np.asarray(x, np.float32)})[1][:, 1]


def _parts(y, folds, seed):
    "A part for each listing, whole groups together."
    if not 2 <= folds <= y.max() + 1: raise InputError(f'folds={folds}: from 2 to the number of groups, {y.max() + 1}')
    return np.random.default_rng(seed).permutation(np.arange(y.max() + 1) % folds)[y]


def _neighbors(cand, at, cols, p):
    score = np.full(cand.ids.shape, -np.inf, np.float32)
    score[at, cols], score[:, 0] = p, 1
    return sorted_neighbors(cand.ids, score)


def heldout_pairs(
    cand: Candidates,  # Of a self-join; scores of encoders that were not trained on these listings
    groups,  # (n,) groups
    titles=None,  # (n,) strings
    model: PairModel | None = None,  # What is fitted on each half; default `PairModel()`
    clusters=None,  # (n,) what is halved and clustered by; default `groups`
    halvings: int = 10,  # Random halvings, as `heldout` draws them
    seed: int = 0,  # Of the halvings
    folds: int = 3,  # Parts of a half: its threshold is chosen on scores of models that didn't see them
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> HeldOut:
    "The held-out protocol over a pair model: fitted, and its threshold chosen, on half of the groups, the other half scored; swap; the mean."
    y = group_codes(groups, len(cand.ids))
    g = y if clusters is None else group_codes(clusters, len(y), 'groups')
    if g.max() < 1: raise InputError('one group only: a model is fitted on some groups and scored on others')
    if halvings < 1: raise InputError(f'halvings={halvings}: 1 or more')
    _whole(y, g)
    base = model or PairModel()
    mine = PairModel(base.classifier, base.use, base.top)
    at, cols, x, mine.names = mine.features(cand, titles)
    same, part = y[at] == y[cand.ids[at, cols]], _parts(g, folds, seed)
    scores, picks = np.zeros((3, len(y))), []
    for side in random_halves(g, halvings, seed):
        for chosen_on in (side, ~side):
            here, p = chosen_on[at], np.empty(len(at), np.float32)
            p[here] = mine._unseen(x[here], same[here], part[at][here], folds)
            mine._fit(x[here], same[here])
            p[~here] = mine._proba(x[~here])
            nb = _neighbors(cand, at, cols, p)
            sweep = Sweep(nb, groups, max_matches)
            threshold, _ = sweep.best(chosen_on)
            for total, o in zip(scores, (sweep.at(threshold), recall_at(nb, groups), map_at_r(nb, groups))): total[~chosen_on] += o[~chosen_on]
            picks.append(('pair model', threshold))
    return HeldOut(scores[0] / halvings, g, scores[1] / halvings, scores[2] / halvings, picks)
