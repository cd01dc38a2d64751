"Which of the pairs that score high enough are matches, where a listing may have one partner only."
import numpy as np

from ..core import InputError

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
    """Which pairs stay: taken from the highest score down, as long as neither listing has a partner where it
    may have only one.

    No two listings would rather have each other than what they got: the stable matching of Gale and Shapley
    (https://doi.org/10.1080/00029890.1962.11989827). Ties go to the smaller rows.
    """
    check_way(how)
    limits = WAYS[how]
    if limits == (None, None): return np.ones(len(left), bool)
    left_taken, right_taken = set(), set()
    is_kept = np.zeros(len(left), bool)
    for place in np.lexsort((right, left, -scores)).tolist():
        one, other = left[place], right[place]
        if (limits[0] and one in left_taken) or (limits[1] and other in right_taken): continue
        left_taken.add(one)
        right_taken.add(other)
        is_kept[place] = True
    return is_kept

