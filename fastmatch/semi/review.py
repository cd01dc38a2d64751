"A table of doubtful labels and unlabelled items that a person fills in, and its corrections read back."
import difflib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError, preview
from ..data.read import check_columns
from ..data.table import read_table
from ..match.cells import as_text, texts_of
from ..store import table_text, write_atomically

CORRECT, LEAVE_OUT = 'correct', 'leave_out'  # columns that a person fills in
YES, NO = ('x', 'yes', 'y', '1', 'true'), ('', 'no', 'n', '0', 'false')
SHOWN_FAULTS = 20


def write_review(
    file,  # CSV that is written; an existing one is not replaced: somebody may have filled it in
    df: pd.DataFrame,  # The table of all items
    suspects: pd.DataFrame | None = None,  # From `suspicious_labels`, its first rows: `.head(50)`
    wanted: pd.DataFrame | None = None,  # From `worth_labelling`
    *,
    id_col: str = 'posting_id',
    label_col: str = 'label',  # Column of classes
    show: list = (),  # Further columns that help to decide: title, image
) -> pd.DataFrame:  # What was written
    """Write a table of the items that are worth a look, for a person to fill in.

    In column `correct` goes the right class, in `leave_out` an x for items that should not be trained on;
    rows with neither stay as they are. `read_corrections` reads it back.
    """
    file = Path(file)
    if file.exists(): raise InputError(f'{file} exists: give another name, it may hold corrections')
    check_columns(df, {'id_col': id_col, 'label_col': label_col})
    missing = [name for name in show if name not in df]
    if missing: raise InputError(f'show: df lacks {preview(missing)}')
    reasons, suggestions = _reasons(suspects, wanted)
    if not reasons: raise InputError('no suspects and none wanted: there is nothing to look at')
    row_of = {name: row for row, name in enumerate(texts_of(df[id_col]))}
    unknown = [name for name in reasons if name not in row_of]
    if unknown: raise InputError(f'df has no items {preview(unknown)}')
    shown = df.iloc[[row_of[name] for name in reasons]]
    table = pd.DataFrame({id_col: list(reasons), 'why': list(reasons.values())})
    table[label_col] = shown[label_col].to_numpy()
    table['suggested'] = [suggestions.get(name) for name in reasons]
    table[CORRECT] = table[LEAVE_OUT] = ''
    for name in show: table[name] = shown[name].to_numpy()
    # with a byte order mark spreadsheets know that it is UTF-8
    write_atomically(file, table_text(table).encode('utf-8-sig'))
    return table


def _reasons(suspects, wanted):
    "Why each item is in the table, and what the model suggests: {id: text} and {id: class}."
    reasons, suggestions = {}, {}
    for row in () if suspects is None else suspects.itertuples():
        likelier = np.exp(min(row.suspicion, 20))
        reasons[row.id] = (f'{row.suggested} is {likelier:.3g} times likelier '
                           f'({row.confused} of {row.given} taken for it)')
        suggestions[row.id] = row.suggested
    for row in () if wanted is None else wanted.itertuples():
        reasons.setdefault(row.id, f'no label, uncertainty {row.uncertainty:.2f}')
    return reasons, suggestions


@dataclass
class Corrections:
    "What a filled-in table changed."
    df: pd.DataFrame  # The table with corrected labels, without the items that were left out
    changed: pd.DataFrame  # `id`, `before` (None where it had no label), `after`
    left_out: list = field(default_factory=list)  # Ids
    unfilled: int = 0  # Rows without a decision

    def __repr__(self):
        return (f'{len(self.changed)} labels changed, {len(self.left_out)} items left out, '
                f'{self.unfilled} rows without a decision')


def read_corrections(
    file,  # Filled-in table of `write_review`, as CSV or .xlsx
    df: pd.DataFrame,  # The table of all items; it is not changed
    *,
    id_col: str = 'posting_id',
    label_col: str = 'label',  # Column of classes
    classes: list | None = None,  # Classes that there may be; None: those in `df`
) -> Corrections:
    """The table with what a person filled in.

    Raises `InputError` that names every row which can't be used: an id that `df` doesn't have, or that is
    there twice with different decisions, an unknown class (with the nearest known ones), or both decisions at
    once.
    """
    filled = read_table(file)
    check_columns(filled, {'id_col': id_col, CORRECT: CORRECT, LEAVE_OUT: LEAVE_OUT})
    check_columns(df, {'id_col': id_col, 'label_col': label_col})
    own_ids, own_labels = texts_of(df[id_col]), texts_of(df[label_col])
    known = {as_text(name): name for name in (df[label_col].dropna() if classes is None else classes)}
    decisions, faults = _decisions(filled, id_col, set(own_ids), list(known))
    if faults:
        raise InputError(f'{file}: {len(faults)} rows can not be used:\n' + '\n'.join(faults[:SHOWN_FAULTS])
                         + (f'\nand {len(faults) - SHOWN_FAULTS} more' if len(faults) > SHOWN_FAULTS else ''))
    new_labels = df[label_col].astype(object).to_numpy(copy=True)
    changed, is_kept = [], np.ones(len(df), bool)
    for row, (name, before) in enumerate(zip(own_ids, own_labels)):
        decision = decisions.get(name)
        if decision is None: continue
        if decision is LEAVE_OUT: is_kept[row] = False
        elif decision[0] != before:
            changed.append({'id': name, 'before': before, 'after': decision[0]})
            new_labels[row] = known[decision[0]]
    corrected = df.assign(**{label_col: new_labels})[is_kept]
    # without new classes the column keeps its type
    if classes is None and df[label_col].notna().all():
        corrected = corrected.astype({label_col: df[label_col].dtype})
    left_out = [name for name, kept in zip(own_ids, is_kept) if not kept]
    unfilled = sum(not correct and leave_out.lower() in NO for correct, leave_out in _cells(filled))
    changes = pd.DataFrame(changed, columns=['id', 'before', 'after'], dtype=object)
    return Corrections(corrected, changes, left_out, unfilled)


def _cells(filled):
    return [(as_text(correct) or '', as_text(leave_out) or '')
            for correct, leave_out in zip(filled[CORRECT], filled[LEAVE_OUT])]


def _decisions(filled, id_col, own_ids, known):
    "{id: `LEAVE_OUT` or (class,)}, and what is wrong with rows."
    decisions, faults = {}, []
    for row, (name, (correct, leave_out)) in enumerate(zip(texts_of(filled[id_col]), _cells(filled))):
        wrong = []
        if name not in own_ids: wrong.append(f'df has no item {name!r}')
        if leave_out.lower() not in (*YES, *NO): wrong.append(f'{LEAVE_OUT} {leave_out!r}: x or nothing')
        if correct and correct not in known:
            nearest = difflib.get_close_matches(correct, known, 2) or known[:5]
            wrong.append(f'unknown class {correct!r} (known: {preview(nearest)})')
        if correct and leave_out.lower() in YES: wrong.append(f'both {CORRECT} and {LEAVE_OUT} are filled in')
        decision = (correct,) if correct else LEAVE_OUT if leave_out.lower() in YES else None
        if not wrong and decision and decisions.setdefault(name, decision) != decision:
            wrong.append('it is there twice, with different decisions')
        if wrong: faults.append(f'row {row} ({id_col} {name}): {"; ".join(wrong)}')
    return decisions, faults


__all__ = ['Corrections', 'read_corrections', 'write_review']
