"Which of the pairs that score high enough are matches, where a listing may have one partner only."
import numpy as np

from ..core import InputError
from ..match.stable import stable_pairs

# how many matches a listing of the left table, and one of the right table, may have
WAYS = {'one-to-one': (1, 1), 'one-to-many': (None, 1), 'many-to-one': (1, None), 'free': (None, None)}


def check_way(
    how: str,  # One of `WAYS`
):
    "Raise `InputError` for an unknown way."
    if how not in WAYS: raise InputError(f'how={how!r}: choose one of {", ".join(WAYS)}')


def assigned(
    left: np.ndarray,  # int (p,), row of each pair in the left table
    right: np.ndarray,  # int (p,), row in the right table
    scores: np.ndarray,  # float (p,)
    how: str = 'one-to-one',  # 'one-to-many': a left listing may have many, a right one one partner; ...
) -> np.ndarray:  # bool (p,)
    "Which pairs stay, taken from the highest score down, see `stable_pairs`; ties go to the smaller rows."
    check_way(how)
    left_limit, right_limit = WAYS[how]
    if left_limit is None and right_limit is None: return np.ones(len(left), bool)
    free = np.full(len(left), -1)
    # places of the right table behind those of the left one
    slots = np.stack([left if left_limit else free,
                      right + left.max(initial=-1) + 1 if right_limit else free], 1)
    return stable_pairs(np.lexsort((right, left, -scores)), slots)
