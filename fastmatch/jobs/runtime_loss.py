"What another runtime costs: the answers of a matcher on listings that two runtimes embedded."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from ..match import Embeddings
from ..match.judge.groups import Groups
from ..match.judge.heldout import HeldOut
from ..match.judge.paired import Paired, paired
from ..match.judge.score import row_f1
from ..matcher import Matcher

TOLERANCE = 1e-4  # between unit embeddings of torch and of ONNX in float32


@dataclass
class RuntimeLoss:
    "What a runtime's answers are worth beside torch's, on the same listings."
    n_listings: int
    agreement: float  # Mean row F1 between the two runtimes' matches, torch's taken as true
    torch: float | None = None  # Row F1 of torch, the listings among themselves; None without groups
    among_themselves: Paired | None = None  # Row F1 of torch over the runtime's, both sides the runtime's
    in_catalogue: Paired | None = None  # The same, each listing looked up among others that torch embedded

    @property
    def largest(self) -> float | None:
        "The larger of both losses in row F1; None without groups."
        if self.torch is None: return None
        return max(self.among_themselves.diff, self.in_catalogue.diff)

    def to_dict(self) -> dict:
        "The figures as plain values, for `info` of a matcher."
        figures = {'listings': self.n_listings, 'agreement': round(self.agreement, 5)}
        if self.torch is None: return figures
        return {**figures, 'torch_row_f1': round(self.torch, 5),
                'loss': {'among_themselves': self.among_themselves.to_dict(),
                         'in_catalogue': self.in_catalogue.to_dict()}}

    def in_words(self) -> str:
        "One sentence."
        agreed = f'{self.n_listings} listings; matches agree with those of torch to {self.agreement:.4f}'
        if self.torch is None: return f'{agreed} (row F1 between both; without groups no loss is known)'
        losses = ', '.join(f'{loss.diff:+.4f} ({loss.low:+.4f} to {loss.high:+.4f}) {where}'
                           for where, loss in (('among themselves', self.among_themselves),
                                               ('in a catalogue that torch embedded', self.in_catalogue)))
        return f'{agreed}; row F1 {self.torch:.4f} with torch, lost {losses}'


def runtime_loss(
    matcher: Matcher,  # Its rule decides
    by_torch: Embeddings,  # Listings that the encoder wasn't trained on, with their groups where known
    by_runtime: Embeddings,  # The same listings, embedded by another runtime
    seed: int = 0,  # Of the halves
) -> RuntimeLoss:
    """Match listings as both runtimes embed them.

    Among themselves, both sides are embedded by the runtime. In a catalogue, the listings of one half are
    looked up, as the runtime embeds them, among themselves and the other half, as torch embedded it; then
    the halves are swapped.
    """
    own = Matcher(matcher.rule, by_torch, columns=matcher.columns)
    expected = own.match(by_torch, catalogue=False).matches
    found = own.match(by_runtime, catalogue=False).matches
    agreed = agreement(found, expected)
    if by_torch.groups is None: return RuntimeLoss(len(by_torch), agreed)
    clusters = Groups.of(by_torch.groups).codes
    scores = {side: HeldOut(row_f1(matches, by_torch.groups), clusters)
              for side, matches in (('torch', expected), ('runtime', found))}
    halves = np.random.default_rng(seed).permutation(len(by_torch)) % 2
    looked_up = {side: HeldOut(_looked_up(matcher, new, by_torch, halves), clusters)
                 for side, new in (('torch', by_torch), ('runtime', by_runtime))}
    return RuntimeLoss(len(by_torch), agreed, scores['torch'].mean,
                       paired(scores['torch'], scores['runtime']),
                       paired(looked_up['torch'], looked_up['runtime']))


def agreement(
    found,  # `Matches` of n listings
    expected,  # Of the same listings, taken as true
) -> float:
    "Mean row F1 of matches with others taken as true."
    return float(np.mean([2 * len(np.intersect1d(ours, theirs)) / (len(ours) + len(theirs))
                          for ours, theirs in zip(found, expected)]))


def _looked_up(matcher, new, by_torch, halves):
    "Row F1 of each listing of `new` looked up among its own half and the other half of `by_torch`."
    scores = np.empty(len(new))
    for half in (0, 1):
        is_new = halves == half
        if is_new.all() or not is_new.any(): raise InputError('to measure a loss give two listings or more')
        known = Matcher(matcher.rule, by_torch.take(~is_new), columns=matcher.columns)
        matches = known.match(new.take(is_new)).matches
        groups = np.concatenate([by_torch.groups[is_new], by_torch.groups[~is_new]])
        scores[is_new] = row_f1(matches, Groups(groups, rows=int(is_new.sum())))
    return scores


def check_alike(
    by_torch: Embeddings,  # Of some listings
    by_onnx: Embeddings,  # Of the same listings, in float32
) -> float:  # The largest difference of two numbers
    "Raise `InputError`, naming the listing, where an export embeds otherwise than torch."
    largest = 0.
    for modality in by_torch:
        # of listings with several pictures, each picture
        ours, theirs = (embeddings.pictures[modality].vectors if modality in embeddings.pictures
                        else embeddings[modality] for embeddings in (by_onnx, by_torch))
        by_row = np.nan_to_num(np.abs(ours - theirs).max(1), nan=np.inf)
        worst = int(by_row.argmax())
        if not by_row[worst] < TOLERANCE:
            listing = (by_torch.pictures[modality].listings[worst] if modality in by_torch.pictures
                       else worst)
            raise InputError(f'not exported: {modality} embeddings of ONNX differ from those of torch by up '
                             f'to {by_row[worst]:.2g} (listing {by_torch.ids[listing]})')
        largest = max(largest, float(by_row[worst]))
    return largest
