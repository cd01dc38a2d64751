"Why a listing matches what it matches, as a table and as pictures."
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..core import InputError
from ..data.image import try_image
from ..match import Rule


@dataclass
class Explanation:
    """The candidates of one listing, matches first, with their scores and the step that decided on each.

    `frame` has one row a candidate: `match` (its id), `where` ('new' or 'catalogue'), `score` (fused), a
    column for each modality (the similarity before any step refined the vectors), `why`, `matches` (bool).
    """
    posting_id: str
    frame: pd.DataFrame
    rule: Rule  # That decided
    titles: dict = field(default_factory=dict)  # Id -> title
    files: dict = field(default_factory=dict)  # Id -> image file, or image in memory

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
            title = self.titles.get(listing_id, '') or ('' if image is not None else listing_id)
            draw_listing(ax, image, title, note + (f' ({reason})' if reason else ''), color)
        return axes[0].figure

    def _image(self, listing_id):
        "The listing's picture and '', or None and why there is none."
        image_file = self.files.get(listing_id)
        if image_file is None: return None, ''
        image, reason = try_image(image_file)
        if reason and isinstance(image_file, (str, Path)): reason = f'{Path(image_file).name}: {reason}'
        return image, reason or ''
