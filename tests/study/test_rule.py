"`tune_rule`: what it returns does what it says, and its figures are of products that nobody looked at."
import json
from dataclasses import replace

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Embeddings,
    Rule,
    among_themselves,
    heldout,
    heldout_fused,
    in_the_catalogue,
    paired,
    pool_thresholds,
    row_f1,
)
from fastmatch.match.candidates import candidates
from fastmatch.match.fuse import fuse
from fastmatch.study.rule import heldout_rules, tune_rule
from tests.match.cases import titles
from tests.match.fielded import fielded
from tests.match.search.made import listings
from tests.study.cases import embeddings


def test_the_rule_does_what_its_score_says():
    listings = embeddings()
    rule, study = tune_rule(listings, n_trials=25, k=20, halvings=0, seed=1)
    assert len(study.trials) == 25 and 'heldout' not in rule.score
    read_back = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    scores = row_f1(read_back.apply(listings.spaces()), listings.groups)
    assert scores.mean() == pytest.approx(rule.score['row_f1_chosen_on'], abs=1e-5)
    assert rule.score['row_f1_crossed'] == pytest.approx(study.best_value, abs=1e-5)
    # each trial too: its parameters as a rule, thresholds chosen on one half, scored on the other
    assert study.best_value >= study.trials[0].value


def test_the_first_trial_is_the_plain_rule():
    listings = embeddings()
    _, study = tune_rule(listings, n_trials=1, k=20, halvings=0, inner=3, seed=4)
    first_trial = study.trials[0]
    params = first_trial.params
    assert params['how'] == 'mean' and params['steps'] == 'none' and params['min2'] is False
    assert params['weight.image'] == params['weight.title'] == 1
    neighbors = fuse(candidates(listings.spaces(), 20), 'mean')
    expected = heldout(neighbors, listings.groups, halvings=3, seed=4)
    assert first_trial.value == pytest.approx(expected.mean, abs=1e-9)


@pytest.mark.parametrize('steps', ['none', 'augment', 'k_reciprocal'])
def test_thresholds_for_other_pools(steps):
    "Those that are found when all is searched anew, in either setting."
    known = listings(120, 40, noise=.8)
    for setting in (among_themselves(known), in_the_catalogue(known, known.groups % 3 == 0)):
        rule, _ = tune_rule(setting, 4, halvings=0, steps=(steps,))
        assert rule.pools == pool_thresholds(setting, replace(rule, pools=None))
        assert rule.at(setting.pool).threshold == rule.threshold
        assert (rule.score['setting'], rule.score['pool']) == (setting.name, setting.pool)


def test_held_out_figures():
    listings = embeddings(noise=1.1)
    rule, study = tune_rule(listings, n_trials=12, k=20, halvings=2, seed=3)
    heldout_scores = {protocol: scores.row_f1 for protocol, scores in heldout_rules(study).items()}
    # the fused protocol is the kit's own, on the same halves
    found_candidates = candidates(listings.spaces(), 20)
    expected = heldout_fused(found_candidates, listings.groups, halvings=2, seed=3)
    np.testing.assert_allclose(heldout_scores['fused'], expected.row_f1, atol=1e-5)
    expected = heldout(fuse(found_candidates, 'mean'), listings.groups, halvings=2, seed=3)
    np.testing.assert_allclose(heldout_scores['plain'], expected.row_f1, atol=1e-5)
    score = rule.score
    assert score['heldout']['fused']['row_f1'] == pytest.approx(np.mean(heldout_scores['fused']), abs=1e-5)
    gain = score['gain']['tuned over plain']
    expected_gain = np.mean(heldout_scores['tuned']) - np.mean(heldout_scores['plain'])
    assert gain['diff'] == pytest.approx(expected_gain, abs=1e-5)
    assert gain['low'] <= gain['diff'] <= gain['high']


def test_one_modality_titles_and_a_choice_of_limits():
    listings = embeddings(60, 20)
    image_only = {'image': listings['image']}
    rule, study = tune_rule(image_only, 8, groups=listings.groups, k=10, halvings=1, max_matches=(50, 3))
    assert rule.how == 'mean' and set(rule.weights) == {'image'}
    assert 'min2' in study.best_params and 'max_matches' in study.best_params
    rule, study = tune_rule(image_only, 6, groups=listings.groups, titles=titles(60, 0), k=10, halvings=0,
                            min2=False)
    assert set(rule.weights) == {'image', 'tfidf'}
    assert not any('min2' in trial.params for trial in study.trials)


def test_continues_where_it_was(tmp_path):
    listings, options = embeddings(60, 20), dict(k=10, halvings=1, storage=tmp_path/'rules.db')
    first_params = [trial.params for trial in tune_rule(listings, 5, **options)[1].trials]
    more_trials = tune_rule(listings, 7, **options)[1].trials
    assert len(more_trials) == 7 and [trial.params for trial in more_trials[:5]] == first_params
    other_listings = Embeddings(listings, listings.ids, groups=listings.groups[::-1])
    with pytest.raises(InputError, match='groups'): tune_rule(other_listings, 7, **options)


def test_only_the_same_question_is_continued(tmp_path):
    "Other embeddings of these listings, or other choices: what was found under the name is no answer."
    listings = embeddings(60, 20)
    listings = Embeddings(listings, listings.ids, titles(60, 0), listings.groups)
    options = dict(n_trials=2, k=10, halvings=0, hows='mean', storage=tmp_path/'rules.db')
    first_rule = tune_rule(listings, **options)[0]
    other_vectors = Embeddings(embeddings(60, 20, seed=1), listings.ids, listings.titles, listings.groups)
    other_titles = Embeddings(listings, listings.ids, titles(60, 1), listings.groups)
    for changed_listings, changed_options, changed_name in (
            (other_vectors, {}, 'vectors'), (listings, dict(hows='square'), 'hows'),
            (listings, dict(max_matches=2), 'max_matches'), (other_titles, {}, 'titles'),
            (listings, dict(only=('image', 'tfidf')), 'space')):
        with pytest.raises(InputError, match=changed_name):
            tune_rule(changed_listings, **{**options, **changed_options})
    # the same encoder once more, on another machine: equal but for rounding
    rounded_vectors = {modality: vectors + np.float32(1e-6) for modality, vectors in listings.items()}
    listings_again = Embeddings(rounded_vectors, listings.ids, listings.titles, listings.groups)
    assert tune_rule(listings_again, **options)[0].score == first_rule.score
    other_options = dict(options, study_name='one', min2=False)
    tune_rule(listings, only=('image',), **other_options)
    with pytest.raises(InputError, match='modalities'): tune_rule(listings, only=('title',), **other_options)


def test_finds_what_is_there():
    # titles say nothing: a tuned rule leaves them out, and the plain one suffers
    rng, listings = np.random.default_rng(0), embeddings(200, 70, noise=.7)
    vectors = {'image': listings['image'], 'title': rng.normal(size=(200, 8))}
    listings = Embeddings(vectors, listings.ids, groups=listings.groups)
    rule, _ = tune_rule(listings, 40, k=20, halvings=2, seed=1, steps='none')
    assert rule.score['gain']['tuned over plain']['low'] > 0
    image_score = heldout(Dense(listings['image']).search(20), listings.groups)
    tuned_score = heldout(rule.neighbors(listings.spaces()), listings.groups)
    assert paired(image_score, tuned_score).diff < .03


def partly_trained(listings):
    return Embeddings(listings, listings.ids, groups=listings.groups, trained_on=np.arange(len(listings)) < 3)


def with_groups(listings, groups): return Embeddings(listings, listings.ids, groups=groups)


@pytest.mark.parametrize('refused_call, message', [
    (lambda listings: tune_rule(partly_trained(listings), 3), '3 of 60 listings were trained on'),
    (lambda listings: tune_rule(with_groups(listings, None), 3), 'against the true groups'),
    (lambda listings: tune_rule({}, 3), 'no modality'),
    (lambda listings: tune_rule(np.zeros(3), 3), 'give Embeddings'),
    (lambda listings: tune_rule(listings, 3, hows=('mean', 'magic')), 'magic'),
    (lambda listings: tune_rule(listings, 3, steps=('magic',)), 'magic'),
    (lambda listings: tune_rule(listings, 3, steps={'x': 'min2'}), 'before the threshold'),
    (lambda listings: tune_rule(listings, 3, steps={'x': 'veto'}), 'units'),
    (lambda listings: tune_rule(listings, 0, halvings=0), 'n_trials'),
    (lambda listings: tune_rule(listings, 3, halvings=-1), 'halvings'),
    (lambda listings: tune_rule(listings, 3, max_matches=0), 'max_matches'),
    (lambda listings: tune_rule(listings, 3, max_matches=()), 'max_matches'),
    (lambda listings: tune_rule(listings, 3, halving=1), r'did you mean halvings\?'),
    (lambda listings: tune_rule(listings, 3, storages='a.db'), r'did you mean storage\?'),
    (lambda listings: tune_rule(with_groups(listings, np.zeros(60)), 3), 'too few groups'),
    (lambda listings: tune_rule(with_groups(listings, np.arange(60) // 30), 3), 'too few groups')])
def test_refused(refused_call, message):
    with pytest.raises(InputError, match=message): refused_call(embeddings(60, 20))


def test_weights_of_columns_are_searched():
    listings = fielded()
    rule, study = tune_rule(listings, n_trials=30, k=20, halvings=0, seed=1, steps=('none',), min2=False)
    # the first trial leaves them out
    assert not any(study.trials[0].params.get(f'weight.{name}', 0) for name in listings.fields)
    assert set(listings.fields) & set(rule.weights) and {'modelno', 'notes'} <= set(rule.modalities)
    assert study.best_value > study.trials[0].value + .05
    scores = row_f1(rule.apply(listings.spaces()), listings.groups)
    assert scores.mean() == pytest.approx(rule.score['row_f1_chosen_on'], abs=1e-5)
