"Items with several frames and texts made of the embedded sample: an emoji's drawings and names."
from bisect import bisect_right

import numpy as np
import pandas as pd

# first code point of a stretch of Unicode's charts -> what is drawn there; None: this and that
STRETCHES = {
    0x1F300: 'weather and places', 0x1F32D: 'food', 0x1F330: 'plants', 0x1F345: 'food', 0x1F380: 'leisure',
    0x1F3D4: 'weather and places', 0x1F3F4: None, 0x1F400: 'animals', 0x1F440: None, 0x1F451: 'clothing',
    0x1F463: None, 0x1F4BA: 'office', 0x1F508: None, 0x1F680: 'transport', 0x1F6C6: None, 0x1F950: 'food',
    0x1F970: None, 0x1F97B: 'clothing', 0x1F980: 'animals', 0x1F9AF: None, 0x1F9C0: 'food', 0x1F9CD: None}


def demo_items(
    labelled: float = .5,  # Share of the items whose category is told
    seed: int = 0,  # Of which these are
) -> pd.DataFrame:  # `item_id`, `images`, `title`, `heard`, `written`, `category`, `fold`
    """751 items, each with up to seven frames (an emoji as vendors draw it, in `demo_path()/'images'`), up to
    three noisy texts (its names in any language), and one of eight categories for some.

    `images` are file names with blanks between. Half of the items have one text only.
    """
    rng = np.random.default_rng(seed)
    listings = pd.read_csv(_sample()/'listings.csv')
    rows = []
    for group, of_group in listings.groupby('label_group', sort=True):
        titles = list(dict.fromkeys(of_group.title))
        others = titles[1:3] if rng.random() < .5 else []
        heard, written = (*others, None, None)[:2]
        rows.append({'item_id': group, 'images': ' '.join(of_group.image), 'title': titles[0], 'heard': heard,
                     'written': written, 'category': _category(group), 'fold': int(of_group.fold.iloc[0])})
    items = pd.DataFrame(rows)
    items['category'] = items.category.where(rng.random(len(items)) < labelled, None)
    return items


def _sample():
    from . import demo_path
    return demo_path()


def _category(group):
    "What Unicode's charts say of an emoji's first code point."
    code = int(group.split('-')[0], 16)
    starts = list(STRETCHES)
    place = bisect_right(starts, code) - 1
    return None if place < 0 else STRETCHES[starts[place]]
