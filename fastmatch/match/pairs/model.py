"A classifier over candidate pairs, whose probability of being the same product is a score like any other."
import numpy as np

from ...core import InputError, preview, require_package
from ...store import read_sealed, write_sealed
from ..candidates import Candidates
from ..fuse import sorted_neighbors
from ..judge.groups import Groups
from ..judge.heldout import HeldOut, clusters_of, random_halves
from ..judge.score import recall_and_precision
from ..matches import MAX_MATCHES
from ..neighbors import Neighbors, refuse_trained_on
from ..thresholds.base import row_mask
from ..thresholds.sweep import Sweep
from .features import FEATURES, TITLES, pair_features, usable_features
from .learning import KnownPairs, random_parts, sampled_pairs
from .saving import FILES, SavedClassifier
from .surroundings import radii_of

FORMAT = 1  # raised with every change that older code can't read
# what a saved model holds beside its classifier
SETTINGS = ('use', 'top', 'names', 'radii', 'medians', 'kept')
CHECKED = 500  # pairs that a saved model must score as the fitted one does


def boosted():
    """The default classifier: 80 small boosted trees, each split chosen among a fifth of the features.

    Features say much the same in many ways, and trees that may not all take the best one are worth more
    together: .005 row F1 on the sample, .008 on five folds of 117 listings. Trees of 15 leaves and twice as
    many scored lower on the sample and took ten times as long.
    """
    ensemble = require_package('sklearn.ensemble', 'a pair model', 'scikit-learn')
    # no early stopping: it would draw its pairs from all groups
    return ensemble.HistGradientBoostingClassifier(
        max_iter=80, learning_rate=.06, max_leaf_nodes=8, min_samples_leaf=40, l2_regularization=5.,
        max_features=.2, early_stopping=False, random_state=0)


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
        self.medians = None  # of each feature over the pairs it was fitted to, floats (f,)
        # share of the pairs of different groups that it was fitted to; probabilities allow for the others
        self.kept = 1.
        self.model = None  # the fitted classifier, in a model that was fitted here
        self._saved = saved  # the fitted classifier, in a model that was loaded

    def __repr__(self):
        kind = self._saved.kind if self._saved else self.classifier or 'boosted'
        return f'PairModel({kind}, {"not fitted" if self.names is None else f"{len(self.names)} features"})'

    @property
    def reads_titles(self) -> bool:
        "Whether some of its features are made from titles."
        return bool(TITLES & set(self.use or ()))

    def unfitted(self) -> 'PairModel':
        "A model with the settings of this one, to be fitted to other pairs."
        return PairModel(self.classifier, self.use, self.top)

    def features(
        self,
        candidates: Candidates,  # Of a self-join
        titles=None,  # (n,) strings, where it reads them
    ) -> tuple:  # As `pair_features` gives them
        "The features this model reads; raises `InputError` where they are not those it was fitted on."
        all_features = pair_features(candidates, titles, self.use, self.radii, self.top)
        self.check_names(all_features[3])
        return all_features

    def check_names(
        self,
        feature_names: list,  # Of the features that it is going to be given
    ):
        "Raise `InputError` where these are not the features that it was fitted on."
        if self.names is None or feature_names == self.names: return
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
        # bool (n,) or row numbers: the listings to learn from, whole groups; default all. No pair with one of
        # the others is learned from
        rows=None,
        trained_on=None,  # bool (n,), listings that an encoder was trained on: they are refused
    ) -> 'PairModel':
        "Learn which candidates of `rows` are of the row's group."
        groups = Groups.of(groups, len(candidates.ids))
        refuse_trained_on(trained_on, 'a pair model')
        refuse_trained_on(candidates.trained_on, 'a pair model', rows=rows)
        self.names = None
        self.model = None
        self._saved = None
        self.radii = radii_of(candidates)
        pairs, _, self.names = self._known_pairs(candidates, groups, titles)
        if self.use is None: self.use = usable_features(titles)
        on_rows = np.ones(len(groups), bool) if rows is None else row_mask(rows, len(groups))
        return pairs.fit(self, on_rows)

    def _known_pairs(self, candidates, groups, titles):
        "The candidate pairs as `KnownPairs`, their columns, and the names of their features."
        pair_rows, pair_columns, features, names = self.features(candidates, titles)
        pair_ids = candidates.ids[pair_rows, pair_columns]
        return KnownPairs(pair_rows, pair_ids, features, groups), pair_columns, names

    def fit_pairs(
        self,
        features: np.ndarray,  # float32 (m,f), as `features` gives them
        same: np.ndarray,  # bool (m,), whether the pair is of one group
        kept: float = 1.,  # Share of the pairs of different groups that these are: probabilities allow for it
        # float (m,), how much each pair counts, for a classifier that takes `sample_weight`; None: all alike
        weights: np.ndarray | None = None,
    ):
        "Fit the classifier to pairs whose features are known; of very many others than mates to a sample."
        from sklearn.base import clone
        if len(np.unique(same)) < 2:
            share = 'all' if same.all() and len(same) else 'none'
            raise InputError(f'pair model: of {len(same)} candidate pairs {share} are of one group')
        taken, share_taken = sampled_pairs(same)
        features, same = features[taken], same[taken]
        weighted = {} if weights is None else {'sample_weight': np.asarray(weights, np.float64)[taken]}
        self.kept = kept * share_taken
        self.medians = np.median(features, axis=0).astype(float).tolist()
        self._saved = None
        self.model = clone(self.classifier) if self.classifier is not None else boosted()
        self.model.fit(features, same.astype(np.int64), **weighted)
        # a few of the pairs: what is saved must score them as the fitted classifier does
        self._check = features[np.linspace(0, len(features) - 1, min(len(features), CHECKED)).astype(int)]

    def fit_soft(
        self,
        features: np.ndarray,  # float32 (m,f), as `features` gives them
        probabilities: np.ndarray,  # float (m,), how likely each pair is of one group, as a teacher says
    ):
        """Fit the classifier to probabilities instead of labels: each pair stands once for a match and once
        for none, and counts as much as its probability says; a sure pair stands once. That is the
        cross-entropy of https://arxiv.org/abs/1503.02531 (distillation)."""
        probabilities = np.asarray(probabilities, np.float64)
        if len(features) != len(probabilities) or not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise InputError(f'pair model: {len(features)} pairs: give as many probabilities from 0 to 1')
        as_match, as_none = np.flatnonzero(probabilities > 0), np.flatnonzero(probabilities < 1)
        rows = np.concatenate([as_match, as_none])
        self.fit_pairs(features[rows], np.arange(len(rows)) < len(as_match),
                       weights=np.concatenate([probabilities[as_match], 1 - probabilities[as_none]]))

    def probabilities(
        self,
        features: np.ndarray,  # float32 (m,f), as `features` gives them
    ) -> np.ndarray:  # float32 (m,)
        "The probability that a pair is of one group."
        return self._exact_probabilities(features).astype(np.float32)

    def _exact_probabilities(self, features):
        if self.model is None and self._saved is None: raise InputError('pair model: not fitted')
        if not len(features): return np.empty(0)
        if self._saved: probabilities = self._saved.probabilities(features)
        else: probabilities = self.model.predict_proba(features)[:, 1]
        probabilities = np.asarray(probabilities, np.float64)
        if self.kept == 1: return probabilities
        # among fewer pairs of different groups the odds of a match are higher
        weighted = probabilities * self.kept
        return weighted / (weighted + 1 - probabilities)

    def moved(
        self,
        features: np.ndarray,  # float32 (m,f), as `features` gives them
    ) -> np.ndarray:  # float64 (m,f), in log-odds; above 0 where the feature speaks for a match
        """What each feature did to the probability of each pair: how far its log-odds lie above those with
        the median of all fitted pairs in the feature's place.

        It asks nothing of the classifier. Features that say the same share what they do, so these numbers do
        not add up to the log-odds. Raises `InputError` for a model that was saved without medians.
        """
        if self.medians is None:
            raise InputError('pair model: saved by an earlier version, without medians: fit it again')
        n_pairs, n_features = features.shape
        changed = np.repeat(features[None], n_features, 0)  # (f,m,f)
        each = np.arange(n_features)
        changed[each, :, each] = np.asarray(self.medians, np.float32)[:, None]
        without = self._exact_probabilities(changed.reshape(-1, n_features)).reshape(n_features, n_pairs)
        return (_log_odds(self._exact_probabilities(features)) - _log_odds(without)).T

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
        pairs, pair_columns, _ = self._known_pairs(candidates, groups, titles)
        every_row = np.ones(len(groups), bool)
        probabilities = pairs.unseen(self, every_row, random_parts(groups.codes, folds, seed))
        return _neighbors(candidates, pairs.rows, pair_columns, probabilities)

    def to_dict(self) -> dict:
        """The fitted model as json takes it, for a step of a rule; raises `InputError` for a classifier that
        can't be saved, see `SavedClassifier`."""
        return {**self._settings(), **self._as_saved().to_dict()}

    @classmethod
    def from_dict(
        cls,
        saved: dict,  # As `to_dict` gives it
    ) -> 'PairModel':
        "The model that `to_dict` wrote; raises `InputError` for what can't be one."
        if not isinstance(saved, dict) or set(saved) != {*SETTINGS, 'kind', 'content'}:
            raise InputError('pair model: give what `PairModel.to_dict` gave')
        names, radii = saved['names'], saved['radii']
        unknown = set(saved['use']) - set(FEATURES)
        if unknown: raise InputError(f'pair model: use={sorted(unknown)}: choose from {", ".join(FEATURES)}')
        if len(saved['medians'] or names) != len(names) or not isinstance(radii, dict):
            raise InputError('pair model: its names, radii and medians do not fit together')
        return cls._of(saved, SavedClassifier.from_dict(saved, len(names)))

    def save(
        self,
        path,  # Folder; one that a pair model was saved to before is replaced
    ):
        "Save without pickle; raises `InputError` for a classifier that can't be, see `SavedClassifier`."
        saved = self._as_saved()
        content = {'format': FORMAT, 'kind': saved.kind, **self._settings()}
        write_sealed(path, 'pair.json', content, {FILES[saved.kind]: saved.data})

    @classmethod
    def load(
        cls,
        path,  # Folder that `save` wrote
    ) -> 'PairModel':
        "Load a saved model after its hashes were checked; it scores as the one that was saved."
        content, files = read_sealed(path, 'pair.json', FORMAT)
        return cls._of(content, SavedClassifier(content['kind'], files[FILES[content['kind']]]))

    def _settings(self): return {name: getattr(self, name) for name in SETTINGS}

    def _as_saved(self):
        if self.names is None: raise InputError('pair model: not fitted')
        return self._saved or SavedClassifier.of(self.model, self._check)

    @classmethod
    def _of(cls, settings, saved):
        model = cls(use=settings['use'], top=settings['top'], names=settings['names'],
                    radii=settings['radii'], saved=saved)
        # models of the first versions lack both
        model.medians, model.kept = settings.get('medians'), settings.get('kept', 1.)
        return model


def _log_odds(probabilities):
    bounded = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.log(bounded / (1 - bounded))


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
    candidates.refuse_trained_on('judging a pair model')
    groups = Groups.of(groups, len(candidates.ids))
    clusters = clusters_of(groups, clusters)
    if halvings < 1: raise InputError(f'halvings={halvings}: 1 or more')
    model = (model or PairModel()).unfitted()
    pairs, pair_columns, _ = model._known_pairs(candidates, groups, titles)
    parts = random_parts(clusters, folds, seed)
    totals = np.zeros((3, len(groups)))
    picks = []
    for on_side in random_halves(clusters, halvings, seed):
        for chosen_on in (on_side, ~on_side):
            unseen = pairs.unseen(model, chosen_on, parts)
            fitted = pairs.fit(model.unfitted(), chosen_on)
            probabilities = np.where(chosen_on[pairs.rows], unseen, fitted.probabilities(pairs.features))
            neighbors = _neighbors(candidates, pairs.rows, pair_columns, probabilities)
            sweep = Sweep(neighbors, groups, max_matches)
            threshold, _ = sweep.best(chosen_on)
            scores_by_kind = sweep.at(threshold), *recall_and_precision(neighbors, groups)
            for sums, scores in zip(totals, scores_by_kind): sums[~chosen_on] += scores[~chosen_on]
            picks.append(('pair model', threshold))
    return HeldOut(totals[0] / halvings, clusters, totals[1] / halvings, totals[2] / halvings, picks)
