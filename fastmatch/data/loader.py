"The loader of one part of the listings: draws rows, groups titles by length, shows a batch."
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import torch

from ..core import InputError
from .draw import EpochDraw
from .sampler import SampledDL
from .show import draw_listing, grid
from .title import Title, Tokenize


class MatchDL(SampledDL):
    """A `TfmdDL` that can draw its batches with a sampler, and shows listings as picture and title.

    Tokens are counted for the first epoch, by the tokenizer that the loader has then: that of a learner.
    """
    # of loaders that an earlier version exported
    draw = titles = _counted = None
    buckets = by_length = False

    def __init__(
        self,
        dataset,  # As for `TfmdDL`
        draw: EpochDraw | None = None,  # Draws pictures of listings that have several, in training
        titles: partial | None = None,  # Table -> its n titles, `titles_of`; None: lengths don't count
        buckets: bool = False,  # Train on batches of titles of like length
        **kwargs,  # For `SampledDL`
    ):
        self.draw = draw
        self.titles = titles
        self.buckets = buckets
        self.by_length = False  # Whether short titles come first where nothing is shuffled
        self._counted = None  # tokens of each title
        super().__init__(dataset, **kwargs)

    def item_lengths(self):
        "int (n,): the tokens of each title; None where batches don't go by them."
        return self._token_counts() if self.buckets else super().item_lengths()

    def _token_counts(self):
        "int (n,): the tokens of each title; None where there are no titles, or no table of them."
        items = getattr(self.dataset, 'items', None)
        if self.titles is None or not isinstance(items, pd.DataFrame): return None
        if self._counted is None:
            tokenize = next(step for step in self.before_batch.fs if isinstance(step, Tokenize))
            self._counted = tokenize.count(self.titles(items))
        return self._counted

    def get_idxs(self):
        "The rows of an epoch; of listings with several pictures others are drawn in each."
        if self.draw is not None: self.draw.start_epoch(self.rng if self.shuffle else None)
        rows = super().get_idxs()
        counts = self._token_counts() if self.by_length and not self.shuffle else None
        return rows if counts is None else np.argsort(counts, kind='stable').tolist()

    def new(self, dataset=None, cls=None, **kwargs):
        "A loader like this one; for another dataset without sampler and draw."
        kwargs = {'titles': self.titles, 'buckets': self.buckets, **kwargs}
        if dataset is None and cls is None: kwargs = {'draw': self.draw, **kwargs}
        return super().new(dataset, cls, **kwargs)

    def show_results(self, *args, **kwargs):
        "Not for listings: the Learner shows them."
        raise InputError('call learn.show_matches() or learn.show_mistakes() of a match_learner, '
                         'learn.show_worst() or learn.show_confusions() of a classify_learner')

    def show_batch(
        self,
        b=None,  # A batch; None draws one
        max_n: int = 12,  # Most listings to show
        cols: int = 6,  # Listings in a row
        **kwargs,
    ):
        "Show listings of a batch: picture, title and group."
        if b is None: b = self.one_batch()
        listings = list(self.decode_batch(b, max_n=max_n))
        axes = grid(-(-len(listings) // cols), min(cols, len(listings)))
        for ax, listing in zip(axes.flat, listings):
            ax.axis('on')
            listing_parts = listing if isinstance(listing, tuple) else (listing,)
            pictures = [part for part in listing_parts if isinstance(part, torch.Tensor) and part.ndim == 3]
            title = next((part for part in listing_parts if isinstance(part, Title)), '')
            group = str(listing_parts[-1]) if len(listing_parts) > self.n_inp else ''
            draw_listing(ax, _side_by_side(pictures), title, group)


@contextmanager
def short_titles_first(
    loader,  # Not shuffled; where it knows no titles, or is no `MatchDL`, nothing changes
    is_on: bool = True,  # False: in the order of the table
):
    "Context in which a loader reads rows by the length of their titles, which saves padding."
    if not isinstance(loader, MatchDL):
        yield
        return
    earlier, loader.by_length = loader.by_length, is_on
    try: yield
    finally: loader.by_length = earlier


def _side_by_side(pictures):
    "Pictures (3,h,w) as one array (h,w,3) with values 0..1, or None where there are none."
    if not pictures: return None
    joined = torch.cat([picture.as_subclass(torch.Tensor) for picture in pictures], 2).detach().cpu().float()
    # decoded batches hold 0..1 or, without IntToFloat, bytes
    max_value = 255 if joined.max() > 1.5 else 1
    return joined.clamp(0, max_value).permute(1, 2, 0).numpy() / max_value
