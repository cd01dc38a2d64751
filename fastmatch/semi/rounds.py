"""Pseudo-labels in rounds: train, label, train on both, as long as the validation score rises; and what each
round did, as tables."""
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..core import InputError
from ..data.classify import ClassifyDataLoaders
from ..metrics import macro_f1
from .keep import Keep
from .leaks import held_out_of
from .pseudo import ORIGIN, pseudo_label, soft_labelled, with_pseudo_labels
from .share import wilson


@dataclass
class PseudoRounds:
    "What `pseudo_rounds` returns."
    learner: object  # Of the best round
    labels: pd.DataFrame | None  # That it was trained with; None where the round without any was the best
    report: pd.DataFrame  # One row a round, see `pseudo_rounds`
    # One row a round and class: `round`, `label`, `labelled` (training items with the label), `kept`, `prob`
    classes: pd.DataFrame
    all_labels: list = field(default_factory=list)  # The table that each round was trained with, None first

    def __repr__(self): return f'PseudoRounds(best round {self.best})\n{self.report.round(3).to_string()}'
    def _repr_html_(self): return self.report.round(3)._repr_html_()

    @property
    def best(self) -> int:
        "The number of the best round."
        return int(self.report['score'].to_numpy().argmax())


def valid_macro_f1(
    learn,  # `ClassifyLearner`
) -> float:
    "Macro-F1 of the validation items."
    predicted, truth = _predicted_and_true(learn)[1:]
    return macro_f1(predicted, truth)


def pseudo_rounds(
    make_learner: Callable,  # `ClassifyDataLoaders` -> a trained learner, made anew each time
    dls: ClassifyDataLoaders,  # With labelled items, validation items and, as `unlabelled`, the others
    *,
    keep: Keep | None = None,  # As for `pseudo_label`
    rounds: int = 3,  # Most rounds with pseudo-labels
    score: Callable = valid_macro_f1,  # Learner -> its score on validation items, the higher the better
    # 'mixed': labels and pseudo-labels together; 'first': pseudo-labels alone, then the labels, for which
    # `train(learner)` trains on
    use: str = 'mixed',
    train: Callable | None = None,  # Learner -> trains it further, for `use='first'`
    held_out=(),  # As for `pseudo_label`; twins of items held out are left out of the candidates
    target: str = 'soft',  # As for `with_pseudo_labels`
    weight: float = 1.,  # As for `with_pseudo_labels`
) -> PseudoRounds:
    """Train, label, and train anew with the pseudo-labels, until the score doesn't rise or after `rounds`.

    The report has a row for each round, 0 without pseudo-labels. `score` is of the validation items; as the
    round is chosen by it, it flatters the best one a little: judge on another fold. Of the labels that the
    round was trained with: `candidates` and `kept`, `prob` and `margin` (means), `classes` (that have some),
    `agree` (share of the items labelled in the round before too that have the same label still), `new` and
    `gone` (items that weren't labelled in the round before, or aren't any more). And how right they may be,
    by the validation items that the same rule would have kept, which no model was trained on: `valid_kept`,
    `precision` and its 95% interval by Wilson, `precision_low` and `precision_high`. From the second round on
    the items themselves were trained on with their pseudo-labels and come out surer than validation items.
    """
    if use not in ('mixed', 'first'): raise InputError(f"use={use!r}: choose 'mixed' or 'first'")
    if (use == 'first') != (train is not None):
        raise InputError("use='first' wants train=, a function that trains a learner on; 'mixed' takes none")
    if rounds < 1: raise InputError(f'rounds={rounds}: 1 or more')
    held_out = held_out_of(dls, held_out)
    learner = best = make_learner(dls)
    rows = [{'round': 0, 'score': score(learner)}]
    all_labels, of_classes = [None], []
    for number in range(1, rounds + 1):
        labels = pseudo_label(learner, dls.unlabelled, keep=keep, held_out=held_out, on_leak='skip')
        if not len(labels): break
        row = {'round': number, **label_report(labels, learner, all_labels[-1])}
        learner = _train_with(make_learner, dls, labels, train, target=target, weight=weight,
                              held_out=held_out)
        rows.append({**row, 'score': score(learner)})
        of_classes.append(class_report(labels, dls).assign(round=number))
        all_labels.append(labels)
        if not rows[-1]['score'] > max(each['score'] for each in rows[:-1]): break
        best = learner
    report = pd.DataFrame(rows)
    classes = pd.concat(of_classes, ignore_index=True) if of_classes else class_report(None, dls)
    found = PseudoRounds(best, None, report, classes, all_labels)
    found.labels = all_labels[found.best]
    return found


def _train_with(make_learner, dls, labels, train, **options):
    "A learner trained on labels and pseudo-labels together, or on these first."
    if train is None: return make_learner(with_pseudo_labels(dls, labels, **options))
    learner = make_learner(with_pseudo_labels(dls, labels, labelled=False, **options))
    learner.dls = soft_labelled(dls) if learner.dls.is_soft and not dls.is_soft else dls
    train(learner)
    return learner


def label_report(
    labels: pd.DataFrame,  # From `pseudo_label`
    # The learner that they are of: its validation items tell how right they may be, as long as the table
    # wasn't written to a file in between
    learn=None,
    earlier: pd.DataFrame | None = None,  # Labels of the round before
) -> dict:
    "What there is to know of pseudo-labels, by the names of the columns of `pseudo_rounds`' report."
    origin = labels.attrs.get(ORIGIN)
    report = {'candidates': len(labels) if origin is None else origin.candidates, 'kept': len(labels),
              'prob': labels['prob'].mean(), 'margin': labels['margin'].mean(),
              'classes': labels['label'].nunique()}
    if earlier is not None:
        id_column = labels.columns[0]
        both = labels.merge(earlier, on=id_column, suffixes=('', ' before'))
        report |= {'agree': (both['label'] == both['label before']).mean() if len(both) else np.nan,
                   'new': len(labels) - len(both), 'gone': len(earlier) - len(both)}
    if origin is not None and learn is not None and len(learn.dls.valid_df):
        report |= _estimated_precision(origin, learn)
    return report


def _estimated_precision(origin, learn):
    "How many of the validation items that the rule would have kept have the label that was predicted."
    probabilities, predicted, truth = _predicted_and_true(learn)
    # by what the rule found in the items that were labelled, and not what it would find in these
    kept = origin.keep.above(probabilities, origin.cutoffs)
    n_right, n_kept = int((predicted == truth)[kept].sum()), int(kept.sum())
    low, high = wilson(n_right, n_kept)
    return {'valid_kept': n_kept, 'precision': n_right / n_kept if n_kept else np.nan,
            'precision_low': low, 'precision_high': high}


def class_report(
    labels: pd.DataFrame | None,  # From `pseudo_label`
    dls: ClassifyDataLoaders,  # With the labelled items
) -> pd.DataFrame:  # `label`, `labelled`, `kept`, `prob` (mean)
    "How many labels and pseudo-labels each class has; a class that gets far more than its share is suspect."
    vocab = list(dls.vocab)
    report = pd.DataFrame({'label': pd.Series(vocab, dtype=object)})
    counts = dls.train_df[dls.columns.group].value_counts()
    report['labelled'] = [int(counts.get(class_name, 0)) for class_name in vocab]
    if labels is None: return report.assign(kept=0, prob=np.nan)
    by_class = labels.groupby('label')['prob'].agg(['size', 'mean']).reindex(vocab)
    return report.assign(kept=by_class['size'].fillna(0).astype(int).to_numpy(),
                         prob=by_class['mean'].to_numpy())


def _predicted_and_true(learn):
    "Probabilities (n,c) of the validation items, the number of their likeliest and of their true class."
    vocab = list(learn.dls.vocab)
    probabilities = learn.predictions()[vocab].to_numpy(float)
    truth = pd.Categorical(learn.dls.valid_df[learn.dls.columns.group], vocab).codes.astype(np.int64)
    return probabilities, probabilities.argmax(1), truth
