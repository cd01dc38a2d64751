"An explanation drawn: the listing and its candidates with pictures, titles, scores and colours."
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastmatch.core import InputError
from fastmatch.match import Step
from fastmatch.matcher import Matcher
from tests.matcher.paired import matcher_and_new
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
    (tmp_path/'new').mkdir()
    apart = matcher.explain('p0', df=listings, path=tmp_path/'new', df_path=tmp_path)
    assert apart.files == explanation.files
    bare = matcher.explain('p0').show()
    assert not any(ax.images for ax in bare.axes)
    with pytest.raises(InputError, match='n=0'): explanation.show(0)


def test_a_pair_model_says_what_moved_it():
    matcher, new, _ = matcher_and_new()
    result = matcher.match(new)
    model, pairs = matcher.rule.steps[1].pair_model, result.rule_pairs
    scores = {(i, j): score for i, j, score in zip(*dict(result.trail)['pair_model'].pairs())}
    for row in (0, 3, 40):
        explanation = result.explain(new.ids[row])
        table, moved = explanation.frame, explanation.moved
        others = [list(result.ids).index(match) for match in table.match]
        assert table.probability.tolist() == [scores[row, other] for other in others]
        ids, features = pairs.of_row(row)
        assert set(ids) == set(others)
        wanted = dict(zip(ids, model.moved(features)))
        np.testing.assert_array_equal(moved, [wanted[other] for other in others])
        assert list(moved) == model.names and (table.score[table.matches & (table.why == 'score')]
                                               >= matcher.rule.threshold).all()
        # the feature named first is the one that moved it most
        first = moved.abs().to_numpy().argmax(1)
        for words, feature, effects in zip(table['moved by'], first, moved.to_numpy()):
            if abs(effects[feature]) < .005:
                assert words == ''
                continue
            name = model.names[feature].replace('_i', ' of this one').replace('_j', ' of the other')
            assert words.startswith(f'{name} ') and f'({effects[feature]:+.2f})' in words.split(',')[0]
        assert (table['moved by'] != '')[0]
        assert 'moved by' in repr(explanation) and 'moved by' in explanation._repr_html_()
    assert 'probability' not in Matcher(RULE, KNOWN).explain('p0').frame


def test_a_candidate_that_the_model_did_not_see():
    matcher, new, _ = matcher_and_new()
    rule = matcher.rule
    steps = [rule.steps[0], Step('mutual', k=3), rule.steps[1]]
    earlier = Matcher(replace(rule, steps=steps), matcher.catalogue)
    result = earlier.match(new)
    seen = result.explain(new.ids[0]).frame
    gone = seen[seen.why == 'mutual']
    assert len(gone) and gone.probability.isna().all() and (gone['moved by'] == '').all()
    assert seen[seen.why != 'mutual'].probability.notna().all()
