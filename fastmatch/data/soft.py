"""Soft labels: a probability for each class in place of one class, such as votes of several people, or
pseudo-labels."""
import numpy as np
import pandas as pd
from fastai.data.block import TransformBlock
from fastai.data.transforms import Category, CategoryMap, DisplayedTransform
from fastai.torch_core import TensorBase
from fasttransform import Transform

from ..core import InputError, preview
from .columns import Columns
from .read import Fault, check_columns

LIKELIEST = 'likeliest class'  # column of the class with the highest probability
TOLERANCE = 1e-2  # how far from 1 the sum of a row may be: .33 three times
SHOWN = 3  # classes that a label names when it is shown


class TensorProbabilities(TensorBase):
    "Probabilities of the classes, float32 (c,) or (n,c)."


class ReadProbabilities(Transform):
    "What a row of the table has in the columns of the classes, float32 (c,)."
    def __init__(
        self,
        label_columns: list,  # Names of the columns, one a class
    ):
        self.label_columns = label_columns

    def encodes(self, row): return np.array([row[column] for column in self.label_columns], dtype=np.float32)


class Probabilities(DisplayedTransform):
    "Probabilities as a tensor, which is shown as the likeliest classes."
    order = 1

    def __init__(
        self,
        vocab: list,  # The classes, in the order of the probabilities
    ):
        self.vocab = CategoryMap(vocab, sort=False)
        self.c = len(self.vocab)

    def encodes(self, probabilities): return TensorProbabilities(probabilities)

    def decodes(self, label):
        # what a model predicts is decoded to the number of a class
        if label.ndim == 0: return Category(self.vocab[int(label)])
        likeliest_first = np.argsort(-np.asarray(label), kind='stable')[:SHOWN]
        return Category(', '.join(f'{self.vocab[column]} {float(label[column]):.2f}'
                                  for column in likeliest_first if label[column] > 0))


def ProbabilitiesBlock(
    vocab: list,  # The classes, in the order of the probabilities
):
    "A `TransformBlock` for targets that are a probability for each class."
    return TransformBlock(type_tfms=Probabilities(vocab))


def label_columns_of(
    columns: Columns,  # Of a table
) -> list:
    "The columns of probabilities, one a class; empty where one column names the class."
    if not pd.api.types.is_list_like(columns.group): return []
    label_columns = list(columns.group)
    if len(set(label_columns)) < 2 or len(set(label_columns)) < len(label_columns):
        raise InputError(f'label_col={label_columns}: a column of probabilities for each class, two or more '
                         'different ones; for a column that names the class give its name alone')
    return label_columns


def read_probabilities(
    df: pd.DataFrame,  # One row an item; not changed
    label_columns: list,  # Columns of probabilities, one a class
) -> tuple[pd.DataFrame, list]:  # (a copy with the likeliest class, what is wrong with which cells)
    """Check the probabilities, and make those of each row add up to 1 where rounding has left them within
    1e-2 of it. The likeliest class is the first where several are."""
    check_columns(df, {f'label_col[{number}]': column for number, column in enumerate(label_columns)})
    numbers = np.stack([_numbers(df[column]) for column in label_columns], 1)
    faults = [Fault(row, label_columns[place], _fault(df[label_columns[place]].iloc[row]))
              for row, place in np.argwhere(~(np.isfinite(numbers) & (numbers >= 0))).tolist()]
    faulty_rows = {fault.row for fault in faults}
    sums = numbers.sum(1)
    all_columns = preview(label_columns)
    faults += [Fault(row, all_columns, f'the probabilities add up to {sums[row]:.4g} and not to 1')
               for row in np.flatnonzero(~(np.abs(sums - 1) <= TOLERANCE + 1e-9)).tolist()
               if row not in faulty_rows]
    likeliest = [label_columns[place] for place in np.nan_to_num(numbers, nan=-1.).argmax(1)]
    scaled = numbers / np.where(np.isfinite(sums) & (sums > 0), sums, 1.)[:, None]
    df = df.copy()
    df[LIKELIEST] = pd.Series(likeliest, index=df.index, dtype=object)
    for column, of_class in zip(label_columns, scaled.T): df[column] = of_class
    return df, faults


def _numbers(cells):
    "The cells of a column as float64 (n,), NaN where one isn't a number."
    scalars = cells.map(lambda cell: cell if pd.api.types.is_scalar(cell) else None)
    return pd.to_numeric(scalars, errors='coerce').to_numpy(dtype=np.float64, na_value=np.nan)


def _fault(cell):
    "What is wrong with a cell that isn't a probability."
    if pd.api.types.is_scalar(cell) and pd.isna(cell): return 'no probability'
    try: number = float(cell)
    except (TypeError, ValueError): return f'{cell!r} is not a number'
    return f'a probability of {number:g}'


def classes_in_training(
    probabilities: np.ndarray,  # (n,c)
    is_valid: np.ndarray,  # bool (n,), True for held-out rows
) -> np.ndarray:  # bool (c,)
    "Which classes a model can learn: a training row has some of their probability, or no row at all has."
    return (probabilities[~is_valid] > 0).any(0) | ~(probabilities > 0).any(0)
