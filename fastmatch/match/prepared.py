"""`PreparedCatalogue`: a rule's steps on vectors, carried out on a catalogue once, so that a few new listings
cost what they change and not the whole catalogue again.

Such a step pulls each listing towards its nearest. New listings change those near them, which may change
others at the next step; all others keep the vectors that they have without the new ones. The outcome is that
of the rule on all listings together, bit for bit.
"""
import inspect
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .nearest import Holders, Nearest
from .neighbors import Neighbors
from .spaces.asymmetric import AsymmetricSpace
from .spaces.dense import Dense
from .spaces.keys import Keys
from .spaces.pool import Pool
from .spaces.tfidf import Tfidf, widened

PULLING = ('augment', 'blend', 'expand')  # steps that are carried out here
MOST_NEW = 8  # with more than one new listing to so many known ones, all are done anew


@dataclass
class _Pull:
    "One step on vectors, as it was carried out on the catalogue."
    step: object  # `Step`
    names: list  # Modalities whose vectors it changes
    nearest: dict  # Modality -> `Nearest`, whose vectors are taken
    after: dict  # Modality -> space after it; nothing for 'expand', which changes what searches alone


class PreparedCatalogue:
    "Known listings after the steps on vectors of a rule, and what new ones change of them."
    def __init__(
        self,
        rule,  # `Rule` that `can_prepare` says yes to
        spaces: dict,  # Name -> space of the known listings: all that the rule reads
    ):
        self.rule, self.spaces = rule, spaces
        names = rule.modalities
        self._holders = {name: Holders(spaces[name]) for name in names if type(spaces[name]) is Keys}
        self._pulls = []
        spaces = {name: spaces[name] for name in names}
        for step in rule.steps_on('vectors'):
            pull = self._pull(step, spaces)
            self._pulls.append(pull)
            spaces = spaces | pull.after

    def __len__(self): return len(next(iter(self.spaces.values())))

    def _pull(self, step, spaces):
        rule = self.rule
        names = step.on or [name for name in rule.weights if name not in self._holders]
        k = _neighbors_read(step)
        if step.by == 'own':
            nearest = {name: Nearest({name: spaces[name]}, {}, k, k,
                                     {'how': 'mean', 'weights': {name: 1.}, 'join': ()}) for name in names}
        else:
            nearest = dict.fromkeys(names, Nearest(spaces, self._holders, rule.k, k, rule.fusion_of(step.by)))
        after = {}
        if step.do != 'expand':
            after = {name: step(spaces[name], spaces=spaces, neighbors=nearest[name].known) for name in names}
        return _Pull(step, names, nearest, after)

    def is_for(
        self,
        rule,  # `Rule`
        spaces: dict,  # Name -> space of known listings
    ) -> bool:
        "Whether it was made of these very spaces, for the same steps."
        is_same = all(spaces.get(name) is self.spaces[name] for name in rule.reads)
        return is_same and _what_counts(rule) == _what_counts(self.rule)

    def serves(
        self,
        rule,  # `Rule`
        pools: dict,  # Name -> `Pool` of new and known listings
    ) -> bool:
        "Whether this is the catalogue of these pools, prepared for this rule, and preparing it pays."
        if not all(isinstance(pool, Pool) and len(pool) * MOST_NEW <= len(self) for pool in pools.values()):
            return False
        if not self.is_for(rule, {name: pool.known for name, pool in pools.items()}): return False
        # a key that came to be on too many listings by the new ones changes more than what is near them
        return all(holders.overused == set(pools[name].overused_keys())
                   for name, holders in self._holders.items())

    def refined(
        self,
        whole: dict,  # Name -> space of new and known listings, the new ones first
        n_new: int,  # New listings
    ) -> dict:  # Name -> space
        """What the steps on vectors leave, as `Rule.refined` gives it; where vectors that search are others
        than those that are found, only the new ones search."""
        spaces, changed = dict(whole), np.arange(n_new)
        for pull in self._pulls:
            if pull.step.do == 'expand': return spaces | _expanded(pull, spaces, n_new)
            after, rows_changed = {}, [changed]
            for nearest in dict.fromkeys(pull.nearest.values()):
                rows = nearest.touched(spaces, changed, n_new)
                neighbors = nearest.of(spaces, rows, n_new)
                rows_changed.append(rows)
                for name in pull.names:
                    if pull.nearest[name] is not nearest: continue
                    vectors = _stepped(pull.step, spaces, name, rows, neighbors).vectors
                    after[name] = _replaced(spaces[name], pull.after[name].vectors, rows, vectors, n_new)
            spaces |= after
            changed = np.unique(np.concatenate(rows_changed))
        return spaces


class LastPrepared:
    "The catalogue that was prepared last, for those who match against the same one again and again."
    def __init__(self): self._last = None

    def of(
        self,
        rule,  # `Rule`
        spaces: dict,  # Name -> space of the known listings
        n_new: int,  # Listings that are matched
    ) -> PreparedCatalogue | None:  # None: the rule is carried out on all of them
        "It, prepared now where it is another one or for another rule."
        last = self._last
        if last is None or not last.is_for(rule, spaces):
            pays = n_new * MOST_NEW <= len(next(iter(spaces.values())))
            # what was prepared for another one is of no use any more, and as large as that
            self._last = PreparedCatalogue(rule, spaces) if pays and can_prepare(rule, spaces) else None
        return self._last


def can_prepare(
    rule,  # `Rule`
    spaces: dict,  # Name -> space of the known listings: all that the rule reads
) -> bool:
    "Whether a `PreparedCatalogue` does what the rule does on these spaces."
    pulls = rule.steps_on('vectors')
    is_known = all(step.do in PULLING and step.on != [] for step in pulls)
    if not pulls or not is_known or any(step.do == 'expand' for step in pulls[:-1]): return False
    if rule.apart is not None or not all(step.rowwise for step in rule.steps[len(pulls):]): return False
    if any(type(spaces[name]) not in (Dense, Tfidf, Keys) for name in rule.modalities): return False
    if any(type(spaces[name]) is Keys for name in rule.weights): return False
    n_known = len(next(iter(spaces.values())))
    return n_known >= max(rule.k, *(_neighbors_read(step) for step in pulls))


def _neighbors_read(step):
    "How many neighbors a step reads, the listing itself included."
    return step.params.get('k', inspect.signature(step.function).parameters['k'].default)


def _what_counts(rule):
    "What the steps on vectors depend on."
    return rule.how, rule.weights, rule.options, rule.join, rule.k, rule.compared, rule.steps_on('vectors')


def _with_neighbors(rows, neighbors):
    """Listings and those that are nearest to them, int, rising; and `Neighbors` among these, those of the
    others being they themselves alone."""
    taken = np.unique(np.concatenate([rows, neighbors.ids[neighbors.ids >= 0]]))
    ids = np.full((len(taken), neighbors.ids.shape[1]), -1, np.int64)
    scores = np.full(ids.shape, -np.inf, np.float32)
    ids[:, 0], scores[:, 0] = np.arange(len(taken)), 1
    places = np.searchsorted(taken, rows)
    ids[places] = np.where(neighbors.ids >= 0, np.searchsorted(taken, neighbors.ids), -1)
    scores[places] = neighbors.scores
    return taken, Neighbors(ids, scores)


def _stepped(step, spaces, name, rows, neighbors):
    "A space of some listings alone, after a step on vectors."
    taken, among_taken = _with_neighbors(rows, neighbors)
    after = step(spaces[name].take(taken), spaces=spaces, neighbors=among_taken)
    places = np.searchsorted(taken, rows)
    return after.queries.take(places) if isinstance(after, AsymmetricSpace) else after.take(places)


def _expanded(pull, spaces, n_new):
    "Name -> space in which the new listings alone search, with the vectors that the step gives them."
    rows = np.arange(n_new)
    return {name: AsymmetricSpace(spaces[name], _stepped(pull.step, spaces, name, rows,
                                                         pull.nearest[name].of(spaces, rows, n_new)))
            for name in pull.names}


def _replaced(space, known_vectors, rows, vectors, n_new):
    """`space` of new and known listings with the vectors that known ones have after a step without new ones,
    and other ones for `rows`, all new listings among them."""
    if not sparse.issparse(vectors):
        whole = np.concatenate([vectors[:n_new], known_vectors])
        whole[rows] = vectors
        return space._with_vectors(whole, space.removed)
    width = space.vectors.shape[1]
    stacked = sparse.vstack([widened(vectors, width), widened(known_vectors, width)], format='csr')
    order = np.arange(len(space)) - n_new + len(rows)
    order[rows] = np.arange(len(rows))
    return space._with_vectors(stacked[order])
