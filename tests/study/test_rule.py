"`tune_rule`: what it returns does what it says, its figures are of products nobody looked at, and the quick way is the plain way."
import json

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, Rule, Step, heldout, heldout_fused, paired, row_f1
from fastmatch.match.candidates import candidates
from fastmatch.match.fuse import fuse
from fastmatch.match.judge.heldout import random_halves
from fastmatch.match.thresholds.flat import FUSED
from fastmatch.study.rule import heldout_rules, tune_rule
from fastmatch.study.structure import REFINEMENTS, Rows, Structure, Workbench, refinements, rule_space
from tests.match.cases import titles


def embeddings(n=120, groups=40, seed=0, noise=.8):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(groups), rng.integers(0, groups, n - groups)])
    a, b = (rng.normal(size=(groups, 8))[labels] + noise * rng.normal(size=(n, 8)) for _ in range(2))
    return Embeddings({'image': a, 'title': b}, np.arange(n), groups=labels)


def apart(emb, steps=('none',), hows=('mean', 'prob_or', 'union'), labels=None):
    labels = emb.groups if labels is None else labels
    return Workbench(emb.spaces(), labels, 20, refinements(steps), hows, (50,))


def test_the_rule_does_what_its_score_says():
    emb = embeddings()
    rule, study = tune_rule(emb, n_trials=25, k=20, halvings=0, seed=1)
    assert len(study.trials) == 25 and 'heldout' not in rule.score
    again = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert row_f1(again.apply(emb.spaces()), emb.groups).mean() == pytest.approx(rule.score['row_f1_chosen_on'], abs=1e-5)
    assert rule.score['row_f1_crossed'] == pytest.approx(study.best_value, abs=1e-5)
    # each trial too: its parameters as a rule, cuts chosen on one half, scored on the other
    assert study.best_value >= study.trials[0].value


def test_the_first_trial_is_the_plain_rule():
    emb = embeddings()
    _, study = tune_rule(emb, n_trials=1, k=20, halvings=0, inner=3, seed=4)
    t = study.trials[0]
    assert t.params['how'] == 'mean' and t.params['steps'] == 'none' and t.params['min2'] is False and t.params['weight.image'] == t.params['weight.title'] == 1
    want = heldout(fuse(candidates(emb.spaces(), 20), 'mean'), emb.groups, halvings=3, seed=4)
    assert t.value == pytest.approx(want.mean, abs=1e-9)


def test_held_out_figures():
    emb = embeddings(noise=1.1)
    rule, study = tune_rule(emb, n_trials=12, k=20, halvings=2, seed=3)
    held = {k: v.row_f1 for k, v in heldout_rules(study).items()}
    # the fused protocol is the kit's own, on the same halves
    want = heldout_fused(candidates(emb.spaces(), 20), emb.groups, halvings=2, seed=3)
    np.testing.assert_allclose(held['fused'], want.row_f1, atol=1e-5)
    want = heldout(fuse(candidates(emb.spaces(), 20), 'mean'), emb.groups, halvings=2, seed=3)
    np.testing.assert_allclose(held['plain'], want.row_f1, atol=1e-5)
    s = rule.score
    assert s['heldout']['fused']['row_f1'] == pytest.approx(np.mean(held['fused']), abs=1e-5)
    assert s['gain']['tuned over plain']['diff'] == pytest.approx(np.mean(held['tuned']) - np.mean(held['plain']), abs=1e-5)
    assert s['gain']['tuned over plain']['low'] <= s['gain']['tuned over plain']['diff'] <= s['gain']['tuned over plain']['high']


def test_a_study_sees_no_label_of_the_other_half():
    emb = embeddings()
    groups = emb.groups
    half = next(random_halves(groups, 1, 0))
    other = groups.copy()
    other[~half] = np.random.default_rng(9).permutation(groups[~half])
    for steps in ('none', 'standardize'):
        s = Structure('mean', (('image', .4), ('title', .6)), steps=steps, ranks=2)
        got = []
        for y in (groups, other):
            bench, rows = apart(emb, (steps,), labels=y), Rows('a', half, groups, 2, 0)
            sweep = bench.sweep(s, rows)
            got.append((rows.crossed(sweep), sweep.best(half)))
        assert got[0] == got[1]
        # whereas what is scored there changes
        assert heldout(fuse(candidates(emb.spaces(), 20)), groups).mean != heldout(fuse(candidates(emb.spaces(), 20)), other).mean


@pytest.mark.parametrize('ranks', [1, 2])
def test_quick_is_the_same_as_plain(ranks):
    emb = embeddings(noise=1.)
    bench = apart(emb, {'none': (), 'same': (Step(same),)})
    rows = Rows('all', np.ones(len(emb), bool), bench.codes, 3, 0)
    for how, w in (('mean', (.3, .7)), ('prob_or', (2., 1.)), ('union', (.5, .6))):
        quick, plain = (rows.crossed(bench.sweep(Structure(how, tuple(zip(('image', 'title'), w)), steps=o, ranks=ranks), rows)) for o in ('none', 'same'))
        # cuts for the nearest may stand elsewhere between two scores
        assert quick == pytest.approx(plain, abs=1e-9 if ranks == 1 else 5e-3)


def same(neighbors): return neighbors


@pytest.mark.parametrize('how', FUSED)
def test_any_fusion_as_a_rule(how):
    emb = embeddings(noise=1.)
    bench = apart(emb)
    rows = Rows('all', np.ones(len(emb), bool), bench.codes, 2, 0)
    s = Structure(how, (('image', .5), ('title', .8)), power=1.5)
    cuts, value = bench.sweep(s, rows).best(rows.mask)
    assert row_f1(bench.rule(s, cuts).apply(emb.spaces()), emb.groups).mean() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize('steps', ['expand', 'augment', 'blend', 'standardize', 'k_reciprocal'])
@pytest.mark.parametrize('ranks', [1, 2])
def test_refined_rules_do_what_was_tuned(steps, ranks):
    emb = embeddings()
    bench = apart(emb, (steps,))
    rows = Rows('all', np.ones(len(emb), bool), bench.codes, 2, 0)
    s = Structure('mean', (('image', .5), ('title', .5)), steps=steps, ranks=ranks)
    cuts, value = bench.sweep(s, rows).best(rows.mask)
    assert row_f1(bench.rule(s, cuts).apply(emb.spaces()), emb.groups).mean() == pytest.approx(value, abs=1e-9)


def test_every_structure_is_asked_for_in_the_space():
    space = rule_space(('image', 'title'))
    assert {'how', 'steps', 'min2', 'weight.image', 'exponent.title', 'cut.image', 'power'} <= set(space) and 'max_matches' not in space
    assert set(rule_space(('image',), ('mean',), ('none',))) == {'min2'}
    assert space['how'].default == 'mean' and space['steps'].default == 'none'


def test_one_modality_titles_and_a_choice_of_limits():
    emb = embeddings(60, 20)
    rule, study = tune_rule({'image': emb['image']}, 8, groups=emb.groups, k=10, halvings=1, max_matches=(50, 3))
    assert rule.how == 'mean' and set(rule.weights) == {'image'} and 'min2' in study.best_params and 'max_matches' in study.best_params
    rule, plain = tune_rule({'image': emb['image']}, 6, groups=emb.groups, titles=titles(60, 0), k=10, halvings=0, min2=False)
    assert set(rule.weights) == {'image', 'tfidf'} and not any('min2' in t.params for t in plain.trials)


def test_goes_on_where_it_was(tmp_path):
    emb, kwargs = embeddings(60, 20), dict(k=10, halvings=1, storage=tmp_path/'rules.db')
    first = [t.params for t in tune_rule(emb, 5, **kwargs)[1].trials]
    more = tune_rule(emb, 7, **kwargs)[1].trials
    assert len(more) == 7 and [t.params for t in more[:5]] == first
    other = Embeddings(emb, emb.ids, groups=emb.groups[::-1])
    with pytest.raises(InputError, match='groups'): tune_rule(other, 7, **kwargs)


def test_only_the_same_question_goes_on(tmp_path):
    "Other embeddings of these listings, or other choices: what was found under the name is no answer."
    emb = embeddings(60, 20)
    emb = Embeddings(emb, emb.ids, titles(60, 0), emb.groups)
    kwargs = dict(n_trials=2, k=10, halvings=0, hows='mean', storage=tmp_path/'rules.db')
    first = tune_rule(emb, **kwargs)[0]
    for e, change, word in ((Embeddings(embeddings(60, 20, seed=1), emb.ids, emb.titles, emb.groups), {}, 'vectors'), (emb, dict(hows='square'), 'hows'),
                            (emb, dict(max_matches=2), 'max_matches'), (Embeddings(emb, emb.ids, titles(60, 1), emb.groups), {}, 'titles'),
                            (emb, dict(only=('image', 'tfidf')), 'space')):
        with pytest.raises(InputError, match=word): tune_rule(e, **{**kwargs, **change})
    # the same encoder once more, on another machine: equal but for rounding
    again = Embeddings({k: v + np.float32(1e-6) for k, v in emb.items()}, emb.ids, emb.titles, emb.groups)
    assert tune_rule(again, **kwargs)[0].score == first.score
    one = dict(kwargs, study_name='one', min2=False)
    tune_rule(emb, only=('image',), **one)
    with pytest.raises(InputError, match='modalities'): tune_rule(emb, only=('title',), **one)


def test_finds_what_is_there():
    # titles say nothing: a tuned rule leaves them out, and the plain one suffers
    rng, emb = np.random.default_rng(0), embeddings(200, 70, noise=.7)
    emb = Embeddings({'image': emb['image'], 'title': rng.normal(size=(200, 8))}, emb.ids, groups=emb.groups)
    rule, study = tune_rule(emb, 40, k=20, halvings=2, seed=1, steps='none')
    gain = rule.score['gain']['tuned over plain']
    assert gain['low'] > 0
    assert paired(heldout(Dense(emb['image']).search(20), emb.groups), heldout(rule.neighbors(emb.spaces()), emb.groups)).diff < .03


def trained(emb): return Embeddings(emb, emb.ids, groups=emb.groups, trained_on=np.arange(len(emb)) < 3)


@pytest.mark.parametrize('do, words', [
    (lambda e: tune_rule(trained(e), 3), '3 of 60 listings were trained on'), (lambda e: tune_rule(Embeddings(e, e.ids), 3), 'against the true groups'),
    (lambda e: tune_rule({}, 3), 'no modality'), (lambda e: tune_rule(np.zeros(3), 3), 'give Embeddings'), (lambda e: tune_rule(e, 3, hows=('mean', 'magic')), 'magic'),
    (lambda e: tune_rule(e, 3, steps=('magic',)), 'magic'), (lambda e: tune_rule(e, 3, steps={'x': 'min2'}), 'before the cut'),
    (lambda e: tune_rule(e, 3, steps={'x': 'veto'}), 'units'), (lambda e: tune_rule(e, 0, halvings=0), 'n_trials'), (lambda e: tune_rule(e, 3, halvings=-1), 'halvings'),
    (lambda e: tune_rule(e, 3, max_matches=0), 'max_matches'), (lambda e: tune_rule(e, 3, max_matches=()), 'max_matches'),
    (lambda e: tune_rule(Embeddings(e, e.ids, groups=np.zeros(60)), 3), 'too few groups'),
    (lambda e: tune_rule(Embeddings(e, e.ids, groups=np.arange(60) // 30), 3), 'too few groups')])
def test_refused(do, words):
    with pytest.raises(InputError, match=words): do(embeddings(60, 20))


def test_refinements_are_steps(): assert all(isinstance(o, Step) for part in REFINEMENTS.values() for o in part)
