"Why a listing matches what it matches, as a table and as pictures."
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..core import InputError
from ..data.read import try_image
from ..match import Rule


@dataclass
class Explanation:
    "The candidates of one listing, the matches first, with the scores and the step that let each in or took it out."
    posting_id: str
    frame: pd.DataFrame  # match, where, score, a column a modality (of vectors that no step has refined yet), why, matches
    rule: Rule  # That decided
    titles: dict = field(default_factory=dict)  # Id -> title
    files: dict = field(default_factory=dict)  # Id -> image file, or image in memory

    def __len__(self): return len(self.frame)
    def __repr__(self):
        n = int(self.frame.matches.sum())
        return f'{self.posting_id}: {n} matches among {len(self)} candidates (cut {self.rule.threshold:.4g})\n{self.frame.to_string(index=False)}'

    def _repr_html_(self): return self.frame._repr_html_()

    def show(
        self,
        n: int = 11,  # Candidates, besides the listing itself
        cols: int = 4,  # Pictures a row
    ):
        "Draw the listing and its first candidates: matches framed green, others red, with score and reason; returns the figure."
        from ..data.show import draw_listing, grid
        if n < 1 or cols < 1: raise InputError(f'n={n}, cols={cols}: 1 or more')
        rows = self.frame.head(n).to_dict('records')
        axes = grid(-(-(len(rows) + 1) // cols), cols).flat
        cells = [(self.posting_id, 'this listing', 'black')]
        cells += [(o['match'], f"{o['score']:.3f} {o['why']}", 'green' if o['matches'] else 'red') for o in rows]
        for ax, (name, note, color) in zip(axes, cells):
            ax.axis('on')
            image, why = self._image(name)
            title = self.titles.get(name, '') or ('' if image is not None else name)
            draw_listing(ax, image, title, note + (f' ({why})' if why else ''), color)
        return axes[0].figure

    def _image(self, name):
        file = self.files.get(name)
        if file is None: return None, ''
        image, why = try_image(file)
        return image, f'{Path(file).name}: {why}' if why and isinstance(file, (str, Path)) else why or ''
