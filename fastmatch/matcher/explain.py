"Why a listing matches what it matches, as a table and as pictures."
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError
from ..data.image import try_image
from ..match import Rule
from ..match.pairs.rule_pairs import RulePairs

FEATURES_NAMED = 3  # features that the column 'moved by' names for each candidate
# what a feature of one listing is called for readers
SIDES = {'_i': ' of this one', '_j': ' of the other'}


@dataclass
class Explanation:
    """The candidates of one listing, matches first, with their scores and the step that decided on each.

    `frame` has one row a candidate: `match` (its id), `where` ('new' or 'catalogue'), `score` (fused), a
    column for each modality (the similarity before any step refined the vectors), `why`, `matches` (bool).

    Where the rule has a pair model: also `probability`, as the model gave it, and `moved by`: the features
    that moved it most, their values and, in log-odds, how far above (+) or below (-) what it would be with
    the median of the pairs that the model was fitted to.
    """
    posting_id: str
    frame: pd.DataFrame
    rule: Rule  # That decided
    titles: dict = field(default_factory=dict)  # Id -> title
    files: dict = field(default_factory=dict)  # Id -> image file, image in memory, or a list of several
    # Of a pair model: what each feature (a column) did to the probability of each candidate, in the rows of
    # `frame`, in log-odds; None without a pair model
    moved: pd.DataFrame | None = None

    def __len__(self): return len(self.frame)
    def __repr__(self):
        n_matches = int(self.frame.matches.sum())
        return (f'{self.posting_id}: {n_matches} matches among {len(self)} candidates '
                f'(threshold {self.rule.threshold:.4g})\n{self.frame.to_string(index=False)}')

    def _repr_html_(self): return self.frame._repr_html_()

    def show(
        self,
        n: int = 11,  # Candidates, besides the listing itself
        cols: int = 4,  # Pictures a row
    ):
        "A figure of the listing and its first candidates with score and reason: matches green, others red."
        from ..data.show import draw_listing, grid
        if n < 1 or cols < 1: raise InputError(f'n={n}, cols={cols}: 1 or more')
        cells = [(self.posting_id, 'this listing', 'black')]
        for candidate in self.frame.head(n).to_dict('records'):
            note = f"{candidate['score']:.3f} {candidate['why']}"
            cells.append((candidate['match'], note, 'green' if candidate['matches'] else 'red'))
        n_rows = -(-len(cells) // cols)
        axes = grid(n_rows, cols).flat
        for ax, (listing_id, note, color) in zip(axes, cells):
            ax.axis('on')
            image, reason = self._image(listing_id)
            n_more = len(self._files(listing_id)) - 1
            if n_more > 0: note += f' +{n_more}'
            title = self.titles.get(listing_id, '') or ('' if image is not None else listing_id)
            draw_listing(ax, image, title, note + (f' ({reason})' if reason else ''), color)
        return axes[0].figure

    def _files(self, listing_id):
        given = self.files.get(listing_id)
        if given is None: return []
        return list(given) if isinstance(given, (list, tuple)) else [given]

    def _image(self, listing_id):
        "The listing's first picture and '', or None and why there is none."
        image_files = self._files(listing_id)
        if not image_files: return None, ''
        image_file = image_files[0]
        image, reason = try_image(image_file)
        if reason and isinstance(image_file, (str, Path)): reason = f'{Path(image_file).name}: {reason}'
        return image, reason or ''


def add_pair_model(
    table: pd.DataFrame,  # The candidates of one listing, one a row
    candidates: np.ndarray,  # int (c,), their numbers in the pool
    row: int,  # Number of the listing
    pairs: RulePairs,  # What the rule's pair model looked at
) -> pd.DataFrame | None:  # What each feature did (c,f), in log-odds; NaN for what the model did not look at
    "Put the columns `probability` and `moved by` into a table of candidates, in place."
    model = pairs.model
    ids, features = pairs.of_row(row)
    places = pd.Index(ids).get_indexer(candidates)
    is_known = places >= 0
    places = places[is_known]
    probabilities = np.full(len(candidates), np.nan, np.float32)
    probabilities[is_known] = model.probabilities(features)[places]
    table.insert(table.columns.get_loc('score') + 1, 'probability', probabilities)
    # models that an earlier version saved know no medians
    if model.medians is None: return None
    moved = np.full((len(candidates), len(model.names)), np.nan)
    moved[is_known] = model.moved(features)[places]
    values = np.full_like(moved, np.nan)
    values[is_known] = features[places]
    readable = [_readable(feature) for feature in model.names]
    table['moved by'] = [_words(readable, of_pair, effects) if known else ''
                         for of_pair, effects, known in zip(values, moved, is_known)]
    return pd.DataFrame(moved, columns=model.names)


def _readable(feature):
    name, side = feature[:-2], feature[-2:]
    return name + SIDES[side] if side in SIDES else feature


def _words(names, values, effects):
    "The features that moved a probability most, such as 'fused rank 1 (+2.3), image .82 (+1.1)'."
    largest = [feature for feature in np.argsort(-np.abs(effects), kind='stable')[:FEATURES_NAMED]
               if abs(effects[feature]) >= .005]
    return ', '.join(
        f'{names[feature]} {values[feature]:.3g} ({effects[feature]:+.2f})' for feature in largest
    )
