"An explanation drawn: the listing and its candidates with pictures, titles, scores and colours."
import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastmatch.core import InputError
from fastmatch.matcher import Matcher
from tests.matcher.stepped import KNOWN, RULE, TITLES

matplotlib.use('agg')


def test_show(tmp_path):
    files = [f'{number}.png' for number in range(7)]
    for number, file in enumerate(files[:4]):
        Image.new('RGB', (8, 8), (40 * number, 0, 0)).save(tmp_path/file)
    titles = [f'{title} for $5' for title in TITLES]
    listings = pd.DataFrame({'posting_id': KNOWN.ids, 'image': files, 'title': titles})
    matcher = Matcher(RULE, KNOWN)
    explanation = matcher.explain('p0', df=listings, path=tmp_path)
    figure = explanation.show(n=5, cols=3)
    cells = [ax for ax in figure.axes if ax.axison]
    # the listing and five candidates; those whose picture is there show it
    assert len(cells) == 6 and [len(ax.images) for ax in cells[:3]] == [1, 1, 1]
    assert 'this listing' in cells[0].get_xlabel() and 'score' in cells[1].get_xlabel()
    assert 'no such file' in ' '.join(ax.get_xlabel() for ax in cells).lower()
    frames = [tuple(np.round(ax.spines['top'].get_edgecolor()[:3], 1)) for ax in cells[1:3]]
    assert frames == [(0, .5, 0), (1, 0, 0)]
    bare = matcher.explain('p0').show()
    assert not any(ax.images for ax in bare.axes)
    with pytest.raises(InputError, match='n=0'): explanation.show(0)
