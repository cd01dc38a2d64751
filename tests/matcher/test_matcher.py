"A matcher, saved or not, of a table or of arrays, and the embeddings and rules that it refuses."
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.match import Embeddings, Rule, Step
from fastmatch.matcher import Matcher, load_matcher, submission
from fastmatch.models import Views
from fastmatch.models.views import views_of
from tests.matcher.stepped import KNOWN, RULE, VECTORS, reasons
from tests.matcher.trained import IMAGES


def test_matching_the_catalogue_is_matching_within(trained):
    listings, matcher = trained.learn.dls.valid_df, trained.matcher
    known, as_new = matcher.match(), matcher.match(listings, IMAGES)
    assert known.to_frame().equals(as_new.to_frame()) and len(as_new) == len(listings)
    alone = matcher.match(listings.iloc[:5], IMAGES, within=False, catalogue=False)
    assert alone.to_frame().matches.tolist() == listings.posting_id[:5].tolist()


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


def test_saved_and_loaded_without_fastai(trained, tmp_path):
    embeddings, matcher = trained.emb, trained.matcher
    matcher.save(tmp_path/'shop')
    trained.learn.dls.valid_df.to_csv(tmp_path/'new.csv', index=False)
    arguments = [str(path) for path in (tmp_path/'shop', tmp_path/'new.csv', IMAGES, tmp_path/'out.npz')]
    command = [sys.executable, '-W', 'ignore', '-c', LOAD_AND_MATCH, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    imported, matches, info = json.loads(finished.stdout.splitlines()[-1])
    assert imported == [] and matches == matcher.match().to_frame().matches.tolist() and info == {'seed': 0}
    with np.load(tmp_path/'out.npz') as found:
        assert set(found) == {modality for modality in trained.rule.modalities if modality in embeddings}
        for modality in found: np.testing.assert_allclose(found[modality], embeddings[modality], atol=1e-5)
    loaded = load_matcher(tmp_path/'shop')
    assert loaded.rule == trained.rule
    assert loaded.titles == matcher.titles and loaded.columns == matcher.columns
    assert (loaded.trained_on == matcher.trained_on).all()

    # what was loaded saves to the same content; a tokenizer may note how it was loaded
    def files(matcher):
        return {name: content for name, content in matcher.files().items()
                if not name.startswith('tokenizer')}
    assert files(loaded) == files(matcher)


def test_arrays_alone(tmp_path):
    "Someone with vectors from elsewhere: no encoder, no Learner."
    vectors = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    matcher = Matcher(Rule('mean', {'clip': 1.}, .6), Embeddings({'clip': vectors[:9]}, range(9)))
    matcher.save(tmp_path/'m')
    result = load_matcher(tmp_path/'m').match(Embeddings({'clip': vectors[9:]}, ['a', 'b', 'c']))
    unit_vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = [9, 10, 11, *range(9)]
    similarity = (unit_vectors @ unit_vectors.T)[np.ix_(order, order)]
    np.fill_diagonal(similarity, 1)
    wanted = [sorted(np.flatnonzero(scores >= .6).tolist()) for scores in similarity[:3]]
    assert [sorted(others.tolist()) for others in result.matches] == wanted
    assert submission(result).posting_id.tolist() == ['a', 'b', 'c']
    with pytest.raises(InputError, match='clip'): matcher.match(pd.DataFrame({'posting_id': ['q']}))


def test_explain_a_new_listing():
    matcher = Matcher(RULE, KNOWN)
    new_listing = Embeddings({'image': VECTORS[:1] + .01}, ['new'], ['susu 250ml baru'])
    found = reasons(matcher.explain('new', new_listing))
    assert found['p2'] == (True, 'score')
    assert found['p0'] == (False, 'veto') and found['p1'] == (False, 'veto')
    with pytest.raises(InputError, match="'p0': is none of the 1 matched"):
        matcher.explain('p0', new_listing)
    with pytest.raises(InputError, match="'px'"): matcher.explain('px')


# --- embeddings made in another way


def test_embeddings_made_with_another_tta_are_refused(trained):
    learner, matcher = trained.learn, trained.matcher
    embeddings = learner.embeddings(tta=False)
    # a rule that does not know what it was chosen on
    rule = replace(trained.rule, made_with=None)
    message = 'made with tta=False, but here tta=True'
    encoder = matcher.encoder
    with pytest.raises(InputError, match=f'catalogue: embeddings {message}'):
        Matcher(rule, embeddings, encoder)
    with pytest.raises(InputError, match=f'new listings: embeddings {message}'): matcher.match(embeddings)
    with pytest.raises(InputError, match=f'new listings: embeddings {message}'): matcher.add(embeddings)
    # without an encoder the catalogue's embeddings say it
    with pytest.raises(InputError, match=message): Matcher(rule, trained.emb).match(embeddings)
    assert len(Matcher(rule, embeddings, learner.encoder()).match(embeddings)) == len(embeddings)
    assert len(Matcher(rule, trained.emb, encoder).match(trained.emb)) == len(embeddings)


def test_a_loaded_matcher_still_knows_how_its_catalogue_was_made(trained, tmp_path):
    trained.matcher.save(tmp_path/'shop')
    loaded = load_matcher(tmp_path/'shop')
    with pytest.raises(InputError, match='tta'): loaded.match(trained.learn.embeddings())


def test_further_views_are_kept_and_compared(trained, tmp_path):
    learner, views = trained.learn, Views(scales=(1, 1.25), join='concatenate')
    listings = learner.dls.valid_df.iloc[:16]
    embeddings = learner.embeddings(listings, tta=views)
    assert embeddings.made_with['tta'] == views.spec()
    rule = replace(trained.rule, made_with=embeddings.made_with)
    with pytest.raises(InputError, match='rule: chosen on embeddings made with tta={.*but here tta=True'):
        learner.matcher(listings, rule, tta=True)
    learner.matcher(listings, rule, tta=views).save(tmp_path/'shop')
    loaded = load_matcher(tmp_path/'shop')
    assert views_of(loaded.encoder.tta) == views
    assert loaded.encoder.widths == {name: array.shape[1] for name, array in embeddings.items()}
    pictures = [IMAGES/name for name in listings.image]
    titles = listings.title.tolist() if 'title' in loaded.encoder.inputs else None
    vectors, unreadable, _ = loaded.encoder.embed(pictures, titles)
    assert not unreadable
    for name, array in embeddings.items(): np.testing.assert_allclose(vectors[name], array, atol=1e-5)
    with pytest.raises(InputError, match='new listings.*tta=True, but here tta={'):
        loaded.match(learner.embeddings(listings, tta=True))
    assert len(loaded.match(embeddings)) == len(embeddings)


def many(n_listings, seed=0):
    rng = np.random.default_rng(seed)
    return Embeddings(
        {'image': rng.normal(size=(n_listings, 6))}, [f'{seed}-{row}' for row in range(n_listings)]
    )


POOLS = dict(sizes=[10, 40, 80], thresholds=[.5, .7, .8], per_doubling=.1, measured=40)


@pytest.mark.parametrize('options, pool, threshold', [
    ({}, 45, None), (dict(catalogue=False), 5, .5), (dict(within=False), 41, None),
    (dict(within=False, catalogue=False), 1, .5)])
def test_the_threshold_is_that_of_the_pool_that_is_searched(options, pool, threshold):
    "New listings are searched in the catalogue and among themselves, in either alone, or nowhere."
    rule = Rule('mean', {'image': 1.}, .7, pools=POOLS, score={'setting': 'in the catalogue'})
    result = Matcher(rule, many(40)).match(many(5, 1), **options)
    threshold = rule.pools.at(pool) if threshold is None else threshold
    assert result.rule.threshold == threshold == rule.at(pool).threshold
    assert result.setting.startswith(
        f'threshold {threshold:.3f} for a pool of {pool} (chosen in the catalogue'
    )
    assert ('extrapolated' in result.setting) == (pool > 40) and result.setting in repr(result)
    fixed = Matcher(replace(rule, pools=None, threshold=threshold), many(40)).match(many(5, 1), **options)
    assert result.to_frame(scores=True).equals(fixed.to_frame(scores=True))
    # what is told of each candidate is told by the threshold that decided
    explained, expected = (each.explain('1-0').frame for each in (result, fixed))
    assert explained.equals(expected)
    assert result.close_calls(.05).equals(fixed.close_calls(.05))


@pytest.mark.parametrize('info, among', [
    (None, 'in a pool of unknown size'), ({'heldout': 'odd'}, 'in a pool of unknown size'),
    ({'heldout': {'fused': {'n': 463}}}, 'among 463 listings')])
def test_a_rule_of_an_earlier_version_is_used_as_it_is(info, among):
    rule = Rule('mean', {'image': 1.}, .7)
    result = Matcher(rule, many(40), info=info).match(many(5, 1))
    assert result.rule is rule and f'taken as it was chosen, {among}: ' in result.setting


def test_a_threshold_of_ones_own():
    "It is taken whatever is searched, and the steps' thresholds keep their distance to it."
    def of(threshold, least, **options):
        steps = Step('min2', threshold=least),
        return Matcher(Rule('mean', {'image': 1.}, threshold, steps=steps, **options), many(40))
    matcher, expected = of(.7, .6, pools=POOLS), of(.9, .8)
    for options in ({}, dict(catalogue=False)):
        result = matcher.match(many(5, 1), threshold=.9, **options)
        fixed = expected.match(many(5, 1), **options)
        assert result.to_frame(scores=True).equals(fixed.to_frame(scores=True))
        assert result.setting == 'threshold 0.9, as it was given'
    assert matcher.match(threshold=.9).to_frame().equals(expected.match().to_frame())
    assert matcher.rule.threshold == .7 and matcher.rule.pools is not None
    for wrong in ('.7', True, float('nan')):
        with pytest.raises(InputError, match='threshold=.*: give a number'): matcher.match(threshold=wrong)


def test_far_more_listings_than_the_rule_was_chosen_among():
    rule = Rule('mean', {'image': 1.}, .7, pools=POOLS, score={'setting': 'in the catalogue'})
    for n, is_guess in ((640, False), (641, True)):
        setting = Matcher(rule, many(3, 1)).match(many(n), catalogue=False).setting
        told = 'a guess for 16 times as many: choose the rule on more, or give a threshold' in setting
        assert told == is_guess
        assert ('extrapolated' in setting) != is_guess
