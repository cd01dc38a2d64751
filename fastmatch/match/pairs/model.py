"A classifier over candidate pairs, whose probability of being the same product is a score like any other."
import numpy as np

from ...core import InputError, preview, require_package
from ...store import read_sealed, write_sealed
from ..candidates import Candidates
from ..fuse import sorted_neighbors
from ..judge.groups import Groups
from ..judge.heldout import HeldOut, clusters_of, random_halves
from ..judge.score import map_at_r, recall_at
from ..matches import MAX_MATCHES
from ..neighbors import Neighbors
from ..thresholds.base import row_mask
from ..thresholds.sweep import Sweep
from .features import pair_features, radii_of, usable_features
from .saving import FILES, SavedClassifier

FORMAT = 1  # raised with every change that older code can't read
CHECKED = 500  # pairs that a saved model must score as the fitted one does


def boosted():
    """The default classifier: 80 small boosted trees.

    Trees of 15 leaves and twice as many scored lower on the sample and took ten times as long.
    """
    ensemble = require_package('sklearn.ensemble', 'a pair model', 'scikit-learn')
    # no early stopping: it would draw its pairs from all groups
    return ensemble.HistGradientBoostingClassifier(
        max_iter=80, learning_rate=.06, max_leaf_nodes=8, min_samples_leaf=40, l2_regularization=5.,
        early_stopping=False, random_state=0)


class PairModel:
    """Scores candidate pairs by `pair_features`: `fit` on listings with groups, then `score` others.

    The scores of the candidates must come from encoders that saw neither these listings nor those.
    """
    def __init__(
        self,
        classifier=None,  # Any of scikit-learn's with `predict_proba`; default `boosted`
        use: list | None = None,  # Some of `FEATURES`; default all that can be had
        top: int = 5,  # Nearest others whose mean and deviation are features
        *,
        names: list | None = None,  # Features of a model that was saved; None: not fitted yet
        radii: dict | None = None,  # Modality -> radii, of a model that was saved
        saved: SavedClassifier | None = None,  # Classifier of a model that was saved
    ):
        if classifier is not None and not hasattr(classifier, 'predict_proba'):
            raise InputError(f'classifier={classifier!r}: has no predict_proba')
        self.classifier = classifier
        self.use = use
        self.top = top
        self.names = names  # of the features it was fitted on
        self.radii = radii  # modality -> radii, those of the listings it was fitted on
        self.model = None  # the fitted classifier, in a model that was fitted here
        self._saved = saved  # the fitted classifier, in a model that was loaded

    def __repr__(self):
        kind = self._saved.kind if self._saved else self.classifier or 'boosted'
        return f'PairModel({kind}, {"not fitted" if self.names is None else f"{len(self.names)} features"})'

    def features(
        self,
        candidates: Candidates,  # Of a self-join
        titles=None,  # (n,) strings, where it reads them
    ) -> tuple:  # As `pair_features` gives them
        "The features this model reads; raises `InputError` where they are not those it was fitted on."
        all_features = pair_features(candidates, titles, self.use, self.radii, self.top)
        feature_names = all_features[3]
        if self.names is None or feature_names == self.names: return all_features
        lacking_features = [feature for feature in self.names if feature not in feature_names]
        if lacking_features:
            raise InputError(f'pair model: lacks the features {preview(lacking_features)}: '
                             'give titles and modalities as in fitting')
        unknown = preview(feature for feature in feature_names if feature not in self.names)
        raise InputError(f'pair model: was fitted without the features {unknown}, or in another order')

    def fit(
        self,
        candidates: Candidates,  # Of a self-join; scores of encoders that were not trained on these listings
        groups,  # (n,) groups, or `Groups`
        titles=None,  # (n,) strings
        rows=None,  # bool (n,) or row numbers: the listings to learn from, whole groups; default all
        trained_on=None,  # bool (n,), listings that an encoder was trained on: they are refused
    ) -> 'PairModel':
        "Learn which candidates of `rows` are of the row's group."
        if trained_on is not None and np.any(trained_on):
            raise InputError(f'pair model: {np.sum(trained_on)} listings were trained on, '
                             'their scores sit near 1: fit on others')
        groups = Groups.of(groups, len(candidates.ids))
        self.names = None
        self.model = None
        self._saved = None
        self.radii = radii_of(candidates)
        pair_rows, pair_columns, features, self.names = self.features(candidates, titles)
        if self.use is None: self.use = usable_features(titles)
        is_learned = slice(None) if rows is None else row_mask(rows, len(groups))[pair_rows]
        same_group = _same_group(candidates, groups, pair_rows, pair_columns)
        self.fit_pairs(features[is_learned], same_group[is_learned])
        return self

    def fit_pairs(
        self,
        features: np.ndarray,  # float32 (m,f), as `features` gives them
        same: np.ndarray,  # bool (m,), whether the pair is of one group
    ):
        "Fit the classifier to pairs whose features are known."
        from sklearn.base import clone
        if len(np.unique(same)) < 2:
            share = 'all' if same.all() and len(same) else 'none'
            raise InputError(f'pair model: of {len(same)} candidate pairs {share} are of one group')
        self.model = clone(self.classifier) if self.classifier is not None else boosted()
        self.model.fit(features, same.astype(np.int64))
        # a few of the pairs: what is saved must score them as the fitted classifier does
        self._check = features[np.linspace(0, len(features) - 1, min(len(features), CHECKED)).astype(int)]

    def probabilities(
        self,
        features: np.ndarray,  # float32 (m,f), as `features` gives them
    ) -> np.ndarray:  # float32 (m,)
        "The probability that a pair is of one group."
        if self.model is None and self._saved is None: raise InputError('pair model: not fitted')
        if not len(features): return np.empty(0, np.float32)
        if self._saved: probabilities = self._saved.probabilities(features)
        else: probabilities = self.model.predict_proba(features)[:, 1]
        return np.asarray(probabilities, np.float32)

    def unseen_probabilities(
        self,
        features: np.ndarray,  # float32 (m,f)
        same: np.ndarray,  # bool (m,)
        part: np.ndarray,  # int (m,), the part that the row of each pair is in
        folds: int,  # How many parts
    ) -> np.ndarray:  # float32 (m,)
        "The probability of each pair by a classifier fitted on all other parts."
        result = np.empty(len(features), np.float32)
        other_model = PairModel(self.classifier, self.use, self.top)
        for fold in range(folds):
            in_fold = part == fold
            if not in_fold.any(): continue
            other_model.fit_pairs(features[~in_fold], same[~in_fold])
            result[in_fold] = other_model.probabilities(features[in_fold])
        return result

    def score(
        self,
        candidates: Candidates,  # Of a self-join, with the modalities it was fitted on
        titles=None,  # (n,) strings, where it was fitted with them
    ) -> Neighbors:
        """The candidates by their probability of being the same product.

        Listings that it was fitted on score too well: choose no threshold on them, but on `score_unseen`.
        """
        if self.names is None: raise InputError('pair model: not fitted')
        pair_rows, pair_columns, features, _ = self.features(candidates, titles)
        return _neighbors(candidates, pair_rows, pair_columns, self.probabilities(features))

    def score_unseen(
        self,
        candidates: Candidates,  # Of a self-join
        groups,  # (n,) groups, or `Groups`
        titles=None,  # (n,) strings
        folds: int = 5,  # Parts of the groups
        seed: int = 0,  # Of the parts
    ) -> Neighbors:
        """Fit on all, and score each listing by a model that did not see its group.

        This is what a threshold is chosen on; the model itself stays fitted on all listings.
        """
        groups = Groups.of(groups, len(candidates.ids))
        self.fit(candidates, groups, titles)
        pair_rows, pair_columns, features, _ = self.features(candidates, titles)
        same_group = _same_group(candidates, groups, pair_rows, pair_columns)
        pair_parts = random_parts(groups.codes, folds, seed)[pair_rows]
        probabilities = self.unseen_probabilities(features, same_group, pair_parts, folds)
        return _neighbors(candidates, pair_rows, pair_columns, probabilities)

    def save(
        self,
        path,  # Folder; one that a pair model was saved to before is replaced
    ):
        "Save without pickle; raises `InputError` for a classifier that can't be, see `SavedClassifier`."
        if self.names is None: raise InputError('pair model: not fitted')
        saved = self._saved or SavedClassifier.of(self.model, self._check)
        content = {
            'format': FORMAT, 'kind': saved.kind, 'use': self.use, 'top': self.top, 'names': self.names,
            'radii': self.radii}
        write_sealed(path, 'pair.json', content, {FILES[saved.kind]: saved.data})

    @classmethod
    def load(
        cls,
        path,  # Folder that `save` wrote
    ) -> 'PairModel':
        "Load a saved model after its hashes were checked; it scores as the one that was saved."
        content, files = read_sealed(path, 'pair.json', FORMAT)
        saved = SavedClassifier(content['kind'], files[FILES[content['kind']]])
        return cls(use=content['use'], top=content['top'], names=content['names'], radii=content['radii'],
                   saved=saved)


def _same_group(candidates, groups, pair_rows, pair_columns):
    "Whether each pair is of one group, bool (m,)."
    return groups.codes[pair_rows] == groups.codes[candidates.ids[pair_rows, pair_columns]]


def random_parts(
    codes: np.ndarray,  # int (n,), the group of each listing, from 0
    folds: int,  # How many parts
    seed: int,  # Of the draw
) -> np.ndarray:  # int (n,), from 0
    "A part for each listing: whole groups together, about as many groups in each part."
    n_groups = codes.max() + 1
    if not 2 <= folds <= n_groups:
        raise InputError(f'folds={folds}: from 2 to the number of groups, {n_groups}')
    # dealt here and not by `group_folds`, which needs a table and balances listings, nor by scikit-learn's
    # KFold, which draws other parts from the same seed: all figures of pair models would move
    return np.random.default_rng(seed).permutation(np.arange(n_groups) % folds)[codes]


def _neighbors(candidates, pair_rows, pair_columns, probabilities):
    "The candidates sorted by the probability of each pair; a listing itself has 1."
    scores = np.full(candidates.ids.shape, -np.inf, np.float32)
    scores[pair_rows, pair_columns] = probabilities
    scores[:, 0] = 1
    return sorted_neighbors(candidates.ids, scores)


def heldout_pairs(
    candidates: Candidates,  # Of a self-join; scores of encoders that were not trained on these listings
    groups,  # (n,) groups, or `Groups`
    titles=None,  # (n,) strings
    model: PairModel | None = None,  # What is fitted on each half; default `PairModel()`
    clusters=None,  # (n,) larger groups, kept on one side and counted as one; default `groups`
    halvings: int = 10,  # Random halvings, as `heldout` draws them
    seed: int = 0,  # Of the halvings
    folds: int = 3,  # Parts of a half: its threshold is chosen on scores of models that did not see them
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> HeldOut:
    "The held-out protocol of a pair model: fitted and given a threshold on one half, scored on the other."
    groups = Groups.of(groups, len(candidates.ids))
    clusters = clusters_of(groups, clusters)
    if halvings < 1: raise InputError(f'halvings={halvings}: 1 or more')
    given_model = model or PairModel()
    model = PairModel(given_model.classifier, given_model.use, given_model.top)
    pair_rows, pair_columns, features, _ = model.features(candidates, titles)
    same_group = _same_group(candidates, groups, pair_rows, pair_columns)
    pair_parts = random_parts(clusters, folds, seed)[pair_rows]
    totals = np.zeros((3, len(groups)))
    picks = []
    for on_side in random_halves(clusters, halvings, seed):
        for chosen_on in (on_side, ~on_side):
            on_chosen = chosen_on[pair_rows]
            probabilities = np.empty(len(pair_rows), np.float32)
            probabilities[on_chosen] = model.unseen_probabilities(
                features[on_chosen], same_group[on_chosen], pair_parts[on_chosen], folds)
            model.fit_pairs(features[on_chosen], same_group[on_chosen])
            probabilities[~on_chosen] = model.probabilities(features[~on_chosen])
            neighbors = _neighbors(candidates, pair_rows, pair_columns, probabilities)
            sweep = Sweep(neighbors, groups, max_matches)
            threshold, _ = sweep.best(chosen_on)
            scores_by_kind = sweep.at(threshold), recall_at(neighbors, groups), map_at_r(neighbors, groups)
            for sums, scores in zip(totals, scores_by_kind): sums[~chosen_on] += scores[~chosen_on]
            picks.append(('pair model', threshold))
    return HeldOut(totals[0] / halvings, clusters, totals[1] / halvings, totals[2] / halvings, picks)
