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
X = np.array([[1, 0, 0, .1], [1, .1, 0, 0], [1, 0, .1, 0], [0, 1, 0, 0], [0, .6, .8, 0], [0, 0, .1, 1], [0, 0, 1, 1]], np.float32)
EMB = Embeddings({'image': X}, [f'p{i}' for i in range(7)], TITLES)
RULE = Rule('mean', {'image': 1.}, .9, steps=['veto', Step('min2', threshold=.5)], join=('same_title',))


def first(neighbors, k=2): return neighbors.top(k)


def reasons(e): return {o['match']: (o['matches'], o['why']) for o in e.frame.to_dict('records')}


def test_explain_says_what_each_step_did():
    m = Matcher(RULE, EMB)
    res = m.match()
    e = res.explain('p0')
    assert reasons(e) == {'p1': (True, 'score'), 'p2': (False, 'veto'), 'p3': (False, 'below the cut'), 'p4': (False, 'below the cut'),
                          'p5': (False, 'below the cut'), 'p6': (False, 'below the cut')}
    assert e.frame.match.tolist()[0] == 'p1' and (e.frame.score[1:].diff().dropna() <= 0).all()
    assert e.frame.set_index('match').units.to_dict()['p2'] == 0 and e.frame.set_index('match').image['p1'] == pytest.approx(res.spaces['image'].scores([0], [1])[0])
    assert reasons(res.explain('p3'))['p4'] == (True, 'same_title') and reasons(res.explain('p2'))['p6'][1] == 'below the cut'
    # its nearest by the picture was vetoed; what is left is too far to be forced
    assert not res.explain('p2').frame.matches.any()
    assert 'p0: 1 matches among 6' in repr(e) and '<table' in e._repr_html_()
    pairs = res.pairs()
    for i in EMB.ids:
        mine = reasons(res.explain(i))
        assert {(o, why) for o, (ok, why) in mine.items() if ok} == set(zip(*pairs[pairs.posting_id == i][['match', 'why']].to_numpy().T))
        assert set(mine) == set(EMB.ids) - {i}


def test_explain_forced_dropped_and_too_many():
    m = Matcher(Rule('mean', {'image': 1.}, .99, max_matches=2, steps=[Step('mutual', k=3), 'min2']), EMB)
    res = m.match()
    for i in EMB.ids:
        for j, (ok, why) in reasons(m.explain(i)).items():
            assert ok == (j in res.to_frame().set_index('posting_id').matches[i].split())
            assert why in (('score', 'min2') if ok else ('mutual', 'below the cut', 'past 2 matches'))
    assert 'min2' in set(res.pairs().why) and (False, 'past 2 matches') in reasons(m.explain('p0')).values()


def test_explain_a_new_listing():
    m = Matcher(RULE, EMB)
    new = Embeddings({'image': X[:1] + .01}, ['new'], ['susu 250ml baru'])
    got = reasons(m.explain('new', new))
    assert got['p2'] == (True, 'score') and got['p0'] == (False, 'veto') and got['p1'] == (False, 'veto')
    with pytest.raises(InputError, match="'p0': is none of the 1 matched"): m.explain('p0', new)
    with pytest.raises(InputError, match="'px'"): m.explain('px')


def test_explain_shows_modalities_as_they_were_before_refinement():
    m = Matcher(Rule('mean', {'image': 1.}, .5, steps=[Step('blend', threshold=.5)]), EMB)
    res = m.match()
    for i, id_ in enumerate(EMB.ids):
        got = res.explain(id_).frame
        ids = [list(EMB.ids).index(o) for o in got.match]
        np.testing.assert_array_equal(got.image, Dense(X).scores([i] * len(ids), ids))
        np.testing.assert_allclose(got.score, blend(Dense(X), threshold=.5).scores([i] * len(ids), ids), atol=1e-6)
    assert (got.image != got.score).any()


def test_show(tmp_path):
    files = [f'{i}.png' for i in range(7)]
    for i, f in enumerate(files[:4]): Image.new('RGB', (8, 8), (40 * i, 0, 0)).save(tmp_path/f)
    df = pd.DataFrame({'posting_id': EMB.ids, 'image': files, 'title': [f'{o} for $5' for o in TITLES]})
    m = Matcher(RULE, EMB)
    e = m.explain('p0', df=df, path=tmp_path)
    fig = e.show(n=5, cols=3)
    cells = [o for o in fig.axes if o.axison]
    # the listing and five candidates; those whose picture is there show it
    assert len(cells) == 6 and [len(o.images) for o in cells[:3]] == [1, 1, 1] and 'this listing' in cells[0].get_xlabel()
    assert 'score' in cells[1].get_xlabel() and 'no such file' in ' '.join(o.get_xlabel() for o in cells).lower()
    assert [tuple(np.round(o.spines['top'].get_edgecolor()[:3], 1)) for o in cells[1:3]] == [(0, .5, 0), (1, 0, 0)]
    bare = m.explain('p0').show()
    assert not any(o.images for o in bare.axes)
    with pytest.raises(InputError, match='n=0'): e.show(0)


def test_saved_with_its_steps(tmp_path):
    m = Matcher(RULE, EMB)
    m.save(tmp_path/'a')
    again = load_matcher(tmp_path/'a')
    assert again.rule == RULE and again.files() == m.files() and again.inputs == ['title']
    assert again.match().pairs().equals(m.match().pairs())
    own = Matcher(Rule('mean', {'image': 1.}, .5, steps=[Step(first, k=3)]), EMB)
    own.save(tmp_path/'b')
    name = f'{__name__}:first'
    assert json.loads(own.files()['matcher.json'])['rule']['steps'][0] == {'do': name, 'stage': 'neighbors', 'on': None, 'by': 'own', 'params': {'k': 3}}
    with pytest.raises(InputError, match=f'functions={{{name!r}'): load_matcher(tmp_path/'b')
    back = load_matcher(tmp_path/'b', functions={name: first})
    assert back.match().to_frame().equals(own.match().to_frame()) and back.files() == own.files()
    want = decide(Matcher(Rule('mean', {'image': 1.}, .5), EMB).match().neighbors.top(3), .5)
    assert back.match().matches.ids.tolist() == want.ids.tolist()


def test_new_listings_as_in_one_self_join():
    rule = Rule('mean', {'image': .5, 'tfidf': .5}, .4, steps=[Step('blend', threshold=.6, by='fused'), Step('k_reciprocal', k1=2), 'veto'], join=('same_title',))
    whole = Matcher(rule, EMB)
    preview = Matcher(rule, EMB)
    preview.remove(['p0', 'p3', 'p6'])
    new = Embeddings({'image': X[[0, 3, 6]]}, ['p0', 'p3', 'p6'], [TITLES[i] for i in (0, 3, 6)])
    want = {i: set(o.split()) for i, o in zip(*whole.match().to_frame().to_numpy().T)}
    assert all(set(o.split()) == want[i] for i, o in zip(*preview.match(new).to_frame().to_numpy().T))
    preview.add(new)
    assert {i: set(o.split()) for i, o in zip(*preview.match().to_frame().to_numpy().T)} == want
    with pytest.raises(InputError, match='within=False'): preview.match(new, within=False)
