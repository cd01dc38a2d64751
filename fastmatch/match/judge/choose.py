"Choosing how modalities are fused: a grid of fusions, and the held-out protocol over it."
import itertools
from dataclasses import dataclass, field

from ...core import InputError, checks_options
from ..candidates import Candidates
from ..fuse import fuse
from ..neighbors import Neighbors
from .heldout import HeldOut, heldout

GRIDS = 'mean', 'square', 'joint', 'prob_or', 'power'  # fusions that `fusion_grid` knows options for
MEANS = 'mean', 'square', 'joint'  # those of them whose weights are shares


@dataclass(frozen=True)
class FusionOption:
    "One way to fuse: an entry of a grid, which may also be given as a tuple (how, weights[, options])."
    how: str  # One of `FUSIONS`
    weights: dict  # Modality -> weight, power or threshold
    options: dict = field(default_factory=dict)  # More for `fuse`, e.g. {'power': 2.}

    @classmethod
    def of(
        cls,
        option,  # A `FusionOption`, or a tuple of its fields
    ) -> 'FusionOption':
        "A grid's entry in either form as an object."
        return option if isinstance(option, cls) else cls(*option)

    @property
    def key(self) -> tuple:
        "The option as nested tuples, which can be counted and compared: what `HeldOut.picks` holds."
        as_tuples = self.how, tuple(self.weights.items())
        return (*as_tuples, tuple(self.options.items())) if self.options else as_tuples

    def fuse(
        self,
        candidates: Candidates,
    ) -> Neighbors:
        "The candidates fused this way."
        return fuse(candidates, self.how, self.weights, **self.options)


def fusion_grid(
    names,  # Modalities
    hows=('mean', 'prob_or'),  # Also 'square', 'joint' (with the weights of 'mean'), 'power'
) -> list[tuple]:  # (how, weights), or (how, weights, options), the plainest first
    """Fusions to choose from: weighted means in tenths, probability-or over powers, power sums.

    Of the thresholds of a power sum only their ratios matter, since the threshold on the fused score is free.
    """
    names = list(names)
    unknown = set(hows) - set(GRIDS)
    if unknown: raise InputError(f'hows: no grid for {sorted(unknown)}')
    if len(names) == 1: return [('mean', {names[0]: 1.})]
    tenths = [shares for shares in itertools.product(range(11), repeat=len(names)) if sum(shares) == 10]
    # the most equal first, so that of equally good ones the plainest is taken
    tenths.sort(key=lambda shares: max(shares) - min(shares))
    # a modality of weight 0 still brings candidates: without it, the rule would be applied to fewer than it
    # was chosen on
    grid: list[tuple] = [(how, {modality: share / 10 for modality, share in zip(names, shares)})
                         for how in hows if how in MEANS for shares in tenths]
    if 'prob_or' in hows:
        for powers in itertools.product((1., 2., 4.), repeat=len(names)):
            grid.append(('prob_or', dict(zip(names, powers))))
    if 'power' in hows:
        for power, *thresholds in itertools.product((2., 6.), *[(.6, .75, .9)] * len(names)):
            grid.append(('power', dict(zip(names, thresholds)), {'power': power}))
    return grid


def fusion_options(
    candidates: Candidates,  # Candidates of the modalities
    grid: list | None = None,  # `FusionOption`s or tuples; default `fusion_grid`
) -> list[FusionOption]:
    """The entries of a grid as objects; default `fusion_grid` of the modalities that are neither keys nor
    columns of a table, with which it would grow too large: the `ladder` adds these one at a time."""
    if grid is None:
        modalities = [modality for modality in candidates.scores if modality not in candidates.join]
        modalities = [modality for modality in modalities if modality not in candidates.fields] or modalities
        grid = fusion_grid(modalities)
    return [FusionOption.of(option) for option in grid]


@checks_options(heldout)
def heldout_fused(
    candidates: Candidates,  # Candidates of the modalities, of a self-join
    groups,  # (n,) groups, or `Groups`
    grid: list | None = None,  # `FusionOption`s or tuples to choose from; default `fusion_grid`
    **kwargs,  # For `heldout`
) -> HeldOut:
    """The held-out protocol over ways to fuse the modalities; raises `InputError` for listings that an
    encoder was trained on."""
    candidates.refuse_trained_on('judging a rule')
    options = ((option.key, option.fuse(candidates)) for option in fusion_options(candidates, grid))
    return heldout(options, groups, **kwargs)
