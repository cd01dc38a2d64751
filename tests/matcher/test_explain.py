"Matchers whose rules have steps: saved with them, and able to say what each did."
import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, Rule, Step, blend, decide
from fastmatch.matcher import Matcher, load_matcher

matplotlib.use('agg')
TITLES = ['susu 500ml', 'susu uht 0.5 l', 'susu 250 ml', 'kaos merah', 'kaos  Merah', 'lampu', 'lampu']
VECTORS = np.array([[1, 0, 0, .1], [1, .1, 0, 0], [1, 0, .1, 0], [0, 1, 0, 0], [0, .6, .8, 0], [0, 0, .1, 1],
                    [0, 0, 1, 1]], np.float32)
KNOWN = Embeddings({'image': VECTORS}, [f'p{i}' for i in range(7)], TITLES)
RULE = Rule('mean', {'image': 1.}, .9, steps=['veto', Step('min2', threshold=.5)], join=('same_title',))
BELOW = 'below the threshold'


def first(neighbors, k=2): return neighbors.top(k)


def reasons(explanation):
    return {row['match']: (row['matches'], row['why']) for row in explanation.frame.to_dict('records')}


def as_sets(result):
    table = result.to_frame()
    return {listing: set(matches.split()) for listing, matches in zip(table.posting_id, table.matches)}


def test_explain_says_what_each_step_did():
    result = Matcher(RULE, KNOWN).match()
    explanation = result.explain('p0')
    table = explanation.frame
    assert reasons(explanation) == {'p1': (True, 'score'), 'p2': (False, 'veto'), 'p3': (False, BELOW),
                                    'p4': (False, BELOW), 'p5': (False, BELOW), 'p6': (False, BELOW)}
    assert table.match.tolist()[0] == 'p1' and (table.score[1:].diff().dropna() <= 0).all()
    assert table.set_index('match').units.to_dict()['p2'] == 0
    assert table.set_index('match').image['p1'] == pytest.approx(result.spaces['image'].scores([0], [1])[0])
    assert reasons(result.explain('p3'))['p4'] == (True, 'same_title')
    assert reasons(result.explain('p2'))['p6'][1] == BELOW
    # its nearest by the picture was vetoed; what is left is too far to be forced
    assert not result.explain('p2').frame.matches.any()
    assert 'p0: 1 matches among 6' in repr(explanation) and '<table' in explanation._repr_html_()
    pairs = result.pairs()
    for listing in KNOWN.ids:
        found = reasons(result.explain(listing))
        mine = pairs[pairs.posting_id == listing]
        matches = {(other, why) for other, (match, why) in found.items() if match}
        assert matches == set(zip(mine.match, mine.why))
        assert set(found) == set(KNOWN.ids) - {listing}


def test_explain_forced_dropped_and_too_many():
    rule = Rule('mean', {'image': 1.}, .99, max_matches=2, steps=[Step('mutual', k=3), 'min2'])
    matcher = Matcher(rule, KNOWN)
    result = matcher.match()
    matches = as_sets(result)
    for listing in KNOWN.ids:
        for other, (match, why) in reasons(matcher.explain(listing)).items():
            assert match == (other in matches[listing])
            assert why in (('score', 'min2') if match else ('mutual', BELOW, 'past 2 matches'))
    assert 'min2' in set(result.pairs().why)
    assert (False, 'past 2 matches') in reasons(matcher.explain('p0')).values()


def test_explain_a_new_listing():
    matcher = Matcher(RULE, KNOWN)
    new = Embeddings({'image': VECTORS[:1] + .01}, ['new'], ['susu 250ml baru'])
    found = reasons(matcher.explain('new', new))
    assert found['p2'] == (True, 'score')
    assert found['p0'] == (False, 'veto') and found['p1'] == (False, 'veto')
    with pytest.raises(InputError, match="'p0': is none of the 1 matched"): matcher.explain('p0', new)
    with pytest.raises(InputError, match="'px'"): matcher.explain('px')


def test_explain_shows_modalities_as_they_were_before_refinement():
    result = Matcher(Rule('mean', {'image': 1.}, .5, steps=[Step('blend', threshold=.5)]), KNOWN).match()
    for row, listing in enumerate(KNOWN.ids):
        table = result.explain(listing).frame
        others = [list(KNOWN.ids).index(other) for other in table.match]
        rows = [row] * len(others)
        np.testing.assert_array_equal(table.image, Dense(VECTORS).scores(rows, others))
        refined = blend(Dense(VECTORS), threshold=.5).scores(rows, others)
        np.testing.assert_allclose(table.score, refined, atol=1e-6)
    assert (table.image != table.score).any()


def test_show(tmp_path):
    files = [f'{i}.png' for i in range(7)]
    for i, file in enumerate(files[:4]): Image.new('RGB', (8, 8), (40 * i, 0, 0)).save(tmp_path/file)
    titles = [f'{title} for $5' for title in TITLES]
    df = pd.DataFrame({'posting_id': KNOWN.ids, 'image': files, 'title': titles})
    matcher = Matcher(RULE, KNOWN)
    explanation = matcher.explain('p0', df=df, path=tmp_path)
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


def test_saved_with_its_steps(tmp_path):
    matcher = Matcher(RULE, KNOWN)
    matcher.save(tmp_path/'a')
    again = load_matcher(tmp_path/'a')
    assert again.rule == RULE and again.files() == matcher.files() and again.inputs == ['title']
    assert again.match().pairs().equals(matcher.match().pairs())
    own = Matcher(Rule('mean', {'image': 1.}, .5, steps=[Step(first, k=3)]), KNOWN)
    own.save(tmp_path/'b')
    name = f'{__name__}:first'
    saved_step = json.loads(own.files()['matcher.json'])['rule']['steps'][0]
    assert saved_step == {'do': name, 'stage': 'neighbors', 'on': None, 'by': 'own', 'params': {'k': 3}}
    with pytest.raises(InputError, match=f'functions={{{name!r}'): load_matcher(tmp_path/'b')
    back = load_matcher(tmp_path/'b', functions={name: first})
    assert back.match().to_frame().equals(own.match().to_frame()) and back.files() == own.files()
    plain = Matcher(Rule('mean', {'image': 1.}, .5), KNOWN).match()
    assert back.match().matches.ids.tolist() == decide(plain.neighbors.top(3), .5).ids.tolist()


def test_new_listings_as_in_one_self_join():
    steps = [Step('blend', threshold=.6, by='fused'), Step('k_reciprocal', k1=2), 'veto']
    rule = Rule('mean', {'image': .5, 'tfidf': .5}, .4, steps=steps, join=('same_title',))
    want = as_sets(Matcher(rule, KNOWN).match())
    grown = Matcher(rule, KNOWN)
    grown.remove(['p0', 'p3', 'p6'])
    new = Embeddings({'image': VECTORS[[0, 3, 6]]}, ['p0', 'p3', 'p6'], [TITLES[i] for i in (0, 3, 6)])
    found = as_sets(grown.match(new))
    assert found == {listing: want[listing] for listing in ('p0', 'p3', 'p6')}
    grown.add(new)
    assert as_sets(grown.match()) == want
    with pytest.raises(InputError, match='within=False'): grown.match(new, within=False)
