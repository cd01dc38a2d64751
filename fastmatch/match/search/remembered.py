"What was found in spaces that stay as they are, for candidates that are made again with other spaces beside."
import numpy as np

MOST_PAIRS = 1 << 22  # whose scores are kept, 12 bytes for the first space and 4 for each further one


class Remembered:
    """What was found in some spaces of one pool, so that they are searched once and each pair is scored once.

    Steps on vectors change pictures and titles; the columns of a table stay, and most pairs come again. A
    pair's score has the same bits wherever it is asked for, so nothing that is made of these scores changes.
    """
    def __init__(
        self,
        spaces: dict,  # Name -> space or `Pool`: what is asked of the very same object is remembered
        scored: tuple,  # Names among them: their pairs are remembered, and all of them are scored together
    ):
        self.spaces = spaces
        self.scored = {name: spaces[name] for name in scored}
        self._ids = {}  # name -> what a search found
        self._keys = np.empty(0, np.int64)  # of the pairs, rising
        self._scores = {name: np.empty(0, np.float32) for name in scored}  # in the order of `_keys`

    def ids(
        self,
        name: str,  # Of a modality
        space,  # Its space, which may be another one than that of the same name here
        search,  # Function without arguments, the same search each time: int64 (n,k)
    ) -> np.ndarray:  # int64 (n,k)
        "What a search of the space found before; otherwise what it finds."
        if self.spaces.get(name) is not space: return search()
        if name not in self._ids: self._ids[name] = search()
        return self._ids[name]

    def scores(
        self,
        spaces: dict,  # Name -> space of the candidates
        rows: np.ndarray,  # int (n,1)
        ids: np.ndarray,  # int64 (n,K), padded with -1
    ) -> dict:  # Name -> float32 (n,K), -inf at the padding
        "The scores of all pairs in the spaces that are remembered; none where one of these was changed."
        if not self.scored or any(spaces.get(name) is not space for name, space in self.scored.items()):
            return {}
        is_pair = ids >= 0
        pool = next(iter(self.scored.values())).pool
        keys = (rows * pool + ids)[is_pair]
        places = np.searchsorted(self._keys, keys)
        is_known = np.zeros(len(keys), bool)
        inside = places < len(self._keys)
        is_known[inside] = self._keys[places[inside]] == keys[inside]
        new_keys = np.sort(keys[~is_known])
        new = {name: space.scores(*np.divmod(new_keys, pool)) for name, space in self.scored.items()}
        new_places = np.searchsorted(new_keys, keys[~is_known])
        found = {}
        for name in self.scored:
            values = np.empty(len(keys), np.float32)
            values[is_known] = self._scores[name][places[is_known]]
            values[~is_known] = new[name][new_places]
            found[name] = np.full(ids.shape, -np.inf, np.float32)
            found[name][is_pair] = values
        self._keep(new_keys, new)
        return found

    def _keep(self, new_keys, new):
        "Remember more pairs, as long as there is room."
        if not len(new_keys) or len(self._keys) + len(new_keys) > MOST_PAIRS: return
        places = np.searchsorted(self._keys, new_keys)
        self._keys = np.insert(self._keys, places, new_keys)
        self._scores = {name: np.insert(self._scores[name], places, new[name]) for name in self.scored}
