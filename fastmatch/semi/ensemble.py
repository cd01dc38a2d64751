"The models of all folds as one: their probabilities blended, their embeddings joined, a matcher of all."
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..core import InputError, preview
from ..match.embeddings import Embeddings
from ..match.rule import Rule
from ..match.spaces.picture_sets import Pictures
from ..matcher import Matcher, SeveralEncoders
from ..matcher.several import checked_weights, joined_settings, joined_vectors
from ..models.views import Views
from .blend import HOWS, Blend, blend_probabilities, check_choice, find_blend
from .folds import FoldRuns, free_memory
from .heldout import embeddings_of
from .out_of_fold import OutOfFold, aligned, log_probabilities, normalized


class FoldEnsemble:
    """The models of one run of folds, or of several runs of different ways, used together.

    The models of a run count alike; `weights` are of runs. With the models of five folds an item is predicted
    five times: it costs as much, and is usually better than one of them.
    """
    def __init__(
        self,
        runs,  # `FoldRuns` with their `make_learner`, or a list of them
        weights=None,  # One for each run, 0 or more; default equal; see `find_weights`
        how: str = 'probabilities',  # What is averaged: 'probabilities', or 'logits': their logarithms
    ):
        self.runs = [runs] if isinstance(runs, FoldRuns) else list(runs)
        wrong = [type(run).__name__ for run in self.runs if not isinstance(run, FoldRuns)]
        if wrong or not self.runs: raise InputError(f'runs={wrong}: give FoldRuns, as train_folds gives them')
        unfinished = [str(run.folder) for run in self.runs if not run.seeds]
        if unfinished: raise InputError(f'runs: {preview(unfinished)} has not all folds of any seed yet')
        kinds = {run.about(*run.finished[0])['learner']['kind'] for run in self.runs}
        if len(kinds) > 1: raise InputError('runs: some classify and some match')
        [self.kind] = kinds
        check_choice(how, HOWS, 'how')
        self.weights = checked_weights(weights, len(self.runs))
        self.how = how

    def __repr__(self): return f'FoldEnsemble({len(self)} models of {len(self.runs)} runs)'
    def __len__(self): return sum(map(len, map(self._parts, self.runs)))
    def _parts(self, run): return [(fold, seed) for seed in run.seeds for fold in range(run.n_folds)]

    @property
    def shares(self) -> np.ndarray:
        "The weight of each model, float64, in the order of runs, seeds and folds; their sum is 1."
        counts = [len(self._parts(run)) for run in self.runs]
        return np.repeat(self.weights / counts, counts)

    def _learners(self):
        "One learner after the other, (number of its run, learner): a run's are one with other weights."
        with tqdm(total=len(self), desc='models', delay=2, leave=False) as progress_bar:
            for number, run in enumerate(self.runs):
                parts = self._parts(run)
                learner = run.learner(*parts[0])
                for fold, seed in parts:
                    run.put_weights(learner, fold, seed)
                    yield number, learner
                    progress_bar.update()
                del learner
                free_memory()

    def out_of_fold(self) -> OutOfFold:
        "The blended probabilities of all labelled items, by models that held them out."
        parts = aligned([run.out_of_fold() for run in self.runs])
        joined = blend_probabilities([part.probabilities for part in parts], self.weights, self.how)
        return parts[0].with_probabilities(joined)

    def find_weights(
        self,
        metric: str = 'log_loss',  # 'log_loss' or 'macro_f1'
    ) -> Blend:
        "Choose the weights of the runs on held-out items; the honest score is that of the blend's `heldout`."
        blend = find_blend([run.out_of_fold() for run in self.runs], metric, self.how)
        self.weights = blend.weights
        return blend

    def predict(
        self,
        df: pd.DataFrame,  # Items with the columns that the learners' `dls` were made with
        path=None,  # Folder of the images of `df`; default that of `dls`
        # Average the probabilities with those of each picture's mirror image, or of further `Views`
        tta: bool | Views = False,
    ) -> pd.DataFrame:  # As `ClassifyLearner.predictions`: id, `label`, `prob`, a column for each class
        """The blended probabilities of new items.

        Raises `InputError` for items that a model was trained on: of these, see `out_of_fold`.
        """
        if self.kind != 'classify': raise InputError('these are folds of a match_learner: see `embed`')
        sums, table = [None] * len(self.runs), None
        for number, learner in self._learners():
            id_column = learner.dls.columns.id
            if table is None: self._check_new(df, id_column)
            found = learner.predictions(df, path, tta)
            if table is None:
                table, names = found[[id_column]].copy(), list(learner.dls.vocab)
            unlike = set(names) ^ set(learner.dls.vocab)
            if unlike: raise InputError(f'runs: their classes differ: {preview(sorted(map(str, unlike)))}')
            part = found[names].to_numpy(np.float64)
            if self.how == 'logits': part = log_probabilities(part)
            part = part / len(self._parts(self.runs[number]))
            sums[number] = part if sums[number] is None else sums[number] + part
        mixed = sum(weight * part for weight, part in zip(self.weights, sums))
        if self.how == 'logits': mixed = normalized(mixed)
        label = np.array(names, dtype=object)[mixed.argmax(1)]
        return pd.concat([table.assign(label=label, prob=mixed.max(1)),
                          pd.DataFrame(mixed, columns=names, index=table.index)], axis=1)

    @property
    def trained_on(self) -> set:
        "The ids, as text, of the items that one model or another was trained on."
        return {name for run in self.runs for part in self._parts(run)
                for name in run.about(*part)['trained_on']['ids']}

    def _check_new(self, df, id_column):
        if id_column not in df: raise InputError(f'df lacks id_col={id_column!r}')
        seen = df[id_column][df[id_column].astype(str).isin(self.trained_on)]
        if len(seen):
            raise InputError(f'df: models were trained on {len(seen)} of its items ({preview(seen)}); '
                             'out_of_fold() has their honest probabilities')

    def embed(
        self,
        df: pd.DataFrame,  # Items with the columns that the learners' `dls` were made with
        path=None,  # Folder of the images of `df`; default that of `dls`
        how: str = 'concatenate',  # 'concatenate' side by side, or 'mean', see `matcher.several`
        # Average each picture's embedding with its mirror image's, or with further `Views`; of a
        # match_learner
        tta: bool | Views = False,
    ) -> Embeddings:
        """The models' embeddings of items as one by modality, each model's scaled to unit length first.

        Items that one model or another was trained on are flagged. A rule for the ensemble is chosen on items
        that no model saw.
        """
        found = [embeddings_of(learner, df, path, tta) for _, learner in self._learners()]
        first = found[0]
        vectors = joined_vectors([{name: each.pictures[name].vectors if name in each.pictures else array
                                   for name, array in each.items()} for each in found], self.shares, how)
        vectors = {name: Pictures(array, first.pictures[name].listings) if name in first.pictures else array
                   for name, array in vectors.items()}
        made_with = joined_settings([each.made_with or {} for each in found], self.shares, how)
        return Embeddings(vectors, first.ids, first.titles, first.groups,
                          np.any([each.trained_on for each in found], 0), first.phash, made_with=made_with,
                          fields=first.fields, source=first.source)

    def encoder(
        self,
        tta: bool | Views = False,  # As in the `embed` that the rule was chosen on
        device: str | None = None,  # Where it runs; default where the learners do
        how: str = 'concatenate',  # As in the `embed` that the rule was chosen on
    ) -> SeveralEncoders:
        "The encoders of all models as one, without fastai; raises `InputError` where a learner has none."
        if self.kind != 'match': raise InputError('these are folds of a classify_learner: see `predict`')
        return SeveralEncoders([learner.encoder(tta, device) for _, learner in self._learners()], self.shares,
                               how)

    def matcher(
        self,
        df: pd.DataFrame,  # The catalogue: listings with the columns that the learners' `dls` were made with
        rule: Rule,  # Chosen on `embed` of listings that no model was trained on
        path=None,  # Folder of the images; default that of `dls`
        *,
        tta: bool | Views = False,  # As in the `embed` that the rule was chosen on
        how: str = 'concatenate',  # As in the `embed` that the rule was chosen on
        device: str | None = None,  # Where the encoders run; default where the learners do
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used: they are in `info`
        info: dict | None = None,  # Kept with it: how it was trained, what it scored
    ) -> Matcher:
        "Encoders of all models, rule and catalogue as one object, which saves without pickle."
        if not isinstance(rule, Rule): raise InputError(f'rule={rule!r}: give a Rule')
        encoder = self.encoder(tta, device, how)
        run = self.runs[0]
        dls = run.learner(*self._parts(run)[0]).dls
        folder, columns = dls.image_folder if path is None else path, dls.table_columns
        matcher, skipped = Matcher.from_df(df, folder, rule, encoder, columns, info, on_error=on_error,
                                           trained_on=self.trained_on)
        if len(skipped): matcher.info['skipped'] = skipped.astype(str).to_dict('records')
        return matcher
