"Partners for listings that may have one only: the stable matching of pairs that both sides score alike."
import numpy as np


def stable_pairs(
    order: np.ndarray,  # int (p,), the pairs from the best to the worst
    slots: np.ndarray,  # int (p,2), the place that a pair takes on either side; -1 where many may share it
) -> np.ndarray:  # bool (p,)
    """Which pairs stay: taken from the best down, a pair as long as both of its places are free.

    No two listings would rather have each other than what they got: the stable matching of Gale and Shapley
    (https://doi.org/10.1080/00029890.1962.11989827), of which there is one where no two pairs are equal.
    """
    taken: set[int] = set()
    is_kept = np.zeros(len(slots), bool)
    for place, (one, other) in zip(order.tolist(), slots[order].tolist()):
        wanted = {slot for slot in (one, other) if slot >= 0}
        if wanted & taken: continue
        taken |= wanted
        is_kept[place] = True
    return is_kept
