"""Pseudo-labels for classification: what a model says of items without a label, taken for their label.

`pseudo_label` makes a table that can be read and edited, `with_pseudo_labels` puts it into dataloaders,
`pseudo_rounds` does both again and again as long as that helps. https://arxiv.org/abs/1908.02983 gives the
reasons; that soft labels are the safer ones is also found in public competitions.
"""
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..core import InputError, preview
from ..data.classify import ClassifyDataLoaders
from ..data.soft import TOLERANCE
from ..match.cells import as_text, is_among, texts_of
from .keep import Confidence, Keep, margins
from .leaks import HeldOut, held_out_of

TARGETS = 'hard', 'soft', 'both'
# of a table of pseudo-labels, beside the id and the classes
OWN_COLUMNS = 'label', 'prob', 'margin', 'weight'
ORIGIN = 'origin'  # of the table's `attrs`: an `Origin`


@dataclass(eq=False)
class Origin:
    "Where pseudo-labels come from; a table keeps it in `attrs['origin']` until it is written to a file."
    candidates: int  # Items that were predicted
    keep: Keep  # The rule that they were kept by
    cutoffs: Any  # What it found in the predictions of all candidates
    trained_on: frozenset  # Ids, as text, of the items that the teacher was trained on

    # pandas copies `attrs` with every table that is made from another
    def __deepcopy__(self, memo): return self


def pseudo_label(
    learn,  # `ClassifyLearner`, or a list of them: their probabilities are averaged
    # Items to label, as `learn.predictions` takes them; None: `dls.unlabelled`
    df: pd.DataFrame | None = None,
    path=None,  # Folder of the images of `df`; None: that of `learn.dls`
    *,
    keep: Keep | None = None,  # Which predictions are sure enough; None: `Confidence(.9)`
    # A `HeldOut`, or tables of more items that must not be trained on, such as the test set; the validation
    # items of `learn.dls` never are
    held_out=(),
    on_leak: str = 'raise',  # 'raise' for items held out and their twins, or 'skip' them
) -> pd.DataFrame:  # the id column, `label`, `prob`, `margin`, and a column of probabilities for each class
    """The predictions that are sure enough, as a table: one row an item, the surest first.

    Rows may be taken out of it, and its `label` and `prob` changed; a column `weight` of your own says how
    much each row counts. Raises `InputError` with the ids of items that are held out, or twins of such.
    """
    learners = list(learn) if isinstance(learn, (list, tuple)) else [learn]
    dls = _same_classes(learners)
    if on_leak not in ('raise', 'skip'): raise InputError(f"on_leak={on_leak!r}: choose 'raise' or 'skip'")
    if df is None: items = dls.unlabelled
    else: items, path = dls.widen(df, path), None
    if items is None or not len(items): raise InputError('there are no items without a label: give df')
    for each in learners:
        held_of_learner = held_out_of(each.dls, held_out)
        if on_leak == 'raise': held_of_learner.refuse(items)
        else: items = _without(items, held_of_learner.leaks(items))
    if not len(items): raise InputError('every item to label is held out, or a twin of one that is')
    predictions = mean_predictions([each.predictions(items) for each in learners], list(dls.vocab))
    probabilities = predictions[list(dls.vocab)].to_numpy()
    keep = keep or Confidence()
    cutoffs = keep.cutoffs(probabilities)
    kept = keep.above(probabilities, cutoffs)
    table = predictions[kept].sort_values('prob', ascending=False, kind='stable', ignore_index=True)
    trained_on = frozenset().union(*map(_trained_on, learners))
    table.attrs[ORIGIN] = Origin(len(predictions), keep, cutoffs, trained_on)
    return table


def mean_predictions(
    tables: list[pd.DataFrame],  # As `learn.predictions` makes them, of the same items in any order
    classes: list,  # Their columns of probabilities
) -> pd.DataFrame:  # The id column, `label`, `prob`, `margin`, and a column for each class
    "The mean of several models' probabilities, with the margin of the likeliest class over the second."
    taken = set(classes) & set(OWN_COLUMNS)
    if taken:
        raise InputError(f'classes named {sorted(taken)}: columns of a table of labels have these names')
    first = tables[0]
    id_column = first.columns[0]
    by_id = [table.set_index(id_column).loc[first[id_column], classes].to_numpy(float) for table in tables]
    probabilities = np.mean(by_id, axis=0)
    likeliest = np.array(classes, dtype=object)[probabilities.argmax(1)]
    return pd.DataFrame({id_column: first[id_column].to_numpy(), 'label': likeliest,
                         'prob': probabilities.max(1), 'margin': margins(probabilities),
                         **dict(zip(classes, probabilities.T))})


def with_pseudo_labels(
    dls: ClassifyDataLoaders,  # With the labelled items; left as they are
    labels: pd.DataFrame,  # From `pseudo_label`, edited or read from a CSV; one of several rounds too
    df: pd.DataFrame | None = None,  # The items, where they are not those of `dls.unlabelled`
    path=None,  # Folder of the images of `df`; None: that of `dls`
    *,
    # 'hard': one class; 'soft': the probabilities; 'both': the mean of the two, which is the mean of both
    # losses. With the latter two the labelled items get soft labels too, 1 for their class
    target: str = 'soft',
    # How often a pseudo-labelled item is drawn, 1: as often as a labelled one. See `RowSampler`. A column
    # `weight` of `labels` counts beside it
    weight: float = 1.,
    labelled: bool = True,  # Keep the labelled items; False: pseudo-labels alone, to be trained on first
    held_out=(),  # As for `pseudo_label`
) -> ClassifyDataLoaders:
    """Loaders that train on pseudo-labels beside the labels; the validation items stay as they are.

    Raises `InputError` with the ids for items of the validation and their twins, for items that have a label
    already, for labels of a teacher that was trained on validation items, and for what is no label.
    """
    if not isinstance(dls, ClassifyDataLoaders):
        raise InputError('dls: make them with ClassifyDataLoaders.from_df')
    if target not in TARGETS: raise InputError(f'target={target!r}: choose one of {list(TARGETS)}')
    if not (np.isfinite(weight) and weight >= 0): raise InputError(f'weight={weight}: 0 or above')
    labels = _tidy_labels(labels, dls, target)
    _refuse_taught_on_valid(labels, dls)
    items = _items_of(labels, dls, df, path)
    held_out_of(dls, held_out).refuse(items)
    items = items.assign(**{dls.columns.group: labels['label'].to_numpy(object)})
    probabilities = None
    if target != 'hard':
        probabilities = labels[list(dls.vocab)].to_numpy(float)
        probabilities = probabilities / probabilities.sum(1, keepdims=True)
        if target == 'both': probabilities = (probabilities + dls._one_hot(items)) / 2
    weights = weight * labels.get('weight', pd.Series(1., labels.index)).to_numpy(float)
    if (weights == 1).all(): weights = None
    elif labelled: weights = np.concatenate([np.ones(int((~dls.is_valid).sum())), weights])
    return dls.with_training_items(items, probabilities, weights, labelled)


def soft_labelled(
    dls: ClassifyDataLoaders,  # Whose targets are one class
) -> ClassifyDataLoaders:  # Of the same items, with the probability 1 for their class
    """The same items with soft labels: a learner that was trained on soft pseudo-labels goes on with these
    (`learn.dls = soft_labelled(dls)`)."""
    return dls.with_training_items(dls.train_df.iloc[:0], np.empty((0, len(dls.vocab))))


def _tidy_labels(labels, dls, target):
    "A checked copy: ids as text, classes as in `dls`, columns of classes where soft labels are wanted."
    id_column, vocab = dls.columns.id, list(dls.vocab)
    # what was written to a CSV and read again has names as text
    by_text = {str(class_name): class_name for class_name in vocab}
    labels = labels.rename(columns={name: by_text[name] for name in labels.columns
                                    if isinstance(name, str) and name in by_text})
    wanted = [id_column, 'label', *(vocab if target != 'hard' else [])]
    lacking = [column for column in wanted if column not in labels.columns]
    if lacking: raise InputError(f'labels lacks the columns {preview(lacking)}: pseudo_label makes them')
    labels = labels.reset_index(drop=True).assign(**{id_column: texts_of(labels[id_column])})
    repeated = labels[id_column][labels[id_column].duplicated()]
    if len(repeated): raise InputError(f'labels: {preview(repeated.unique())} stand there more than once')
    of_class = {as_text(class_name): class_name for class_name in vocab}
    classes = [of_class.get(as_text(label)) for label in labels['label']]
    unknown = [f'row {row}: {label!r}' for row, (label, known) in
               enumerate(zip(labels['label'], classes)) if known is None]
    if unknown: raise InputError(f'labels: {len(unknown)} labels are no class of dls: {preview(unknown)}')
    labels['label'] = pd.Series(classes, labels.index, dtype=object)
    _check_numbers(labels, [column for column in ('weight',) if column in labels], np.inf)
    if target == 'hard': return labels
    _check_numbers(labels, vocab, 1 + TOLERANCE)
    sums = labels[vocab].to_numpy(float).sum(1)
    wrong = [f'row {row}: {sums[row]:.4g}' for row in np.flatnonzero(np.abs(sums - 1) > TOLERANCE)]
    if wrong: raise InputError(f'labels: probabilities that do not add up to 1: {preview(wrong)}')
    return labels


def _check_numbers(labels, columns, most):
    "Raise `InputError` for cells that are no numbers from 0 to `most`."
    for column in columns:
        numbers = pd.to_numeric(labels[column], errors='coerce').to_numpy(float)
        wrong = np.flatnonzero(~((numbers >= 0) & (numbers <= most) & np.isfinite(numbers)))
        if len(wrong):
            shown = preview(f'row {row}: {labels[column].iloc[row]}' for row in wrong)
            raise InputError(f'labels, column {column!r}: {shown}: numbers from 0 are wanted')


def _refuse_taught_on_valid(labels, dls):
    "Raise `InputError` where the labels are of a model that was trained on what `dls` validates on."
    origin = labels.attrs.get(ORIGIN)
    if origin is None: return
    leaks = dls.valid_df[dls.columns.id][is_among(dls.valid_df[dls.columns.id], origin.trained_on)]
    if not len(leaks): return
    raise InputError(f'labels: their teacher was trained on {len(leaks)} of the {len(dls.valid_df)} '
                     f'validation items of dls ({preview(leaks)}): label with a model of the same split')


def _items_of(labels, dls, df, path):
    "The items of the labels, in their order, with the columns of `dls.df`."
    id_column = dls.columns.id
    wanted = labels[id_column]
    # named first, whatever table they are also in
    for name, table in (('validation items', dls.valid_df), ('labelled items', dls.train_df)):
        among = wanted[is_among(wanted, table[id_column])]
        if len(among):
            raise InputError(f'labels: {len(among)} are of {name} of dls: {preview(among)}')
    items = dls.unlabelled if df is None else df
    if items is None: items = dls.df.iloc[:0]
    ids = texts_of(items[id_column]) if id_column in items else []
    place = {item_id: row for row, item_id in enumerate(ids)}
    unknown = [item_id for item_id in wanted if item_id not in place]
    if unknown:
        where = 'dls.unlabelled: give them as df' if df is None else 'df'
        raise InputError(f'labels: {len(unknown)} ids are not in {where} ({preview(unknown)})')
    chosen = items.iloc[[place[item_id] for item_id in wanted]].reset_index(drop=True)
    return chosen if df is None else dls.widen(chosen, path)


def _same_classes(learners):
    "The dataloaders of the first learner; `InputError` unless the others tell the same classes apart."
    if not learners: raise InputError('learn: an empty list')
    for each in learners:
        if not isinstance(each.dls, ClassifyDataLoaders):
            raise InputError('learn: give a learner of classify_learner')
        if list(each.dls.vocab) != list(learners[0].dls.vocab):
            raise InputError(f'learn: classes {preview(each.dls.vocab)} and '
                             f'{preview(learners[0].dls.vocab)}: all learners need the same in one order')
    return learners[0].dls


def _trained_on(learn):
    "The ids of the items that a learner's weights were trained on, as far as it tells."
    record = getattr(learn, 'trained_on', None)
    return set() if record is None else record.ids


def _without(items, leaks):
    "The items without those that leak."
    return items.drop(items.index[leaks['row'].to_numpy(int)]).reset_index(drop=True)


__all__ = ['HeldOut', 'mean_predictions', 'pseudo_label', 'soft_labelled', 'with_pseudo_labels']
