"""A rule in words: the formula in it, evaluated, is the fusion; every step and fusion has words and its
numbers."""
import re

import numpy as np
import pytest

from fastmatch.match import FUSIONS, STEPS, Candidates, PoolThresholds, Rule, Step
from fastmatch.match.fuse import fused_scores
from fastmatch.match.words import (
    FUSION_WORDS,
    STEP_WORDS,
    fusion_in_words,
    rule_in_words,
    step_in_words,
    threshold_in_words,
)

# a step -> all numbers that it can be given, none of them a default or what another word may hold
NUMBERS = {
    'expand': dict(k=17, alpha=2.75), 'augment': dict(k=13, alpha=1.75),
    'blend': dict(threshold=.625, k=23), 'cross_mean': {}, 'neighbor_mean': dict(k=19, weight=.375),
    'k_reciprocal': dict(k1=14, k2=9, lam=.775), 'standardize': dict(k=27), 'mutual': dict(k=38), 'veto': {},
    'min2': dict(threshold=.285, gap=.165), 'chisel': dict(shares=[.83, .37]), 'components': {},
    'agglomerate': dict(mean_size=2.85, least=.265), 'tiers': dict(merge=.885, join=.735, pair=.335)}
WEIGHTS = {'mean': {'image': 2., 'title': 1., 'tfidf': 0.}, 'square': {'image': .7, 'title': .3},
           'joint': {'image': .6, 'title': .4}, 'prob_or': {'image': 4., 'title': 1.},
           'power': {'image': .6, 'title': .45}, 'union': {'image': .2, 'title': -.1},
           'above': {'image': .4, 'title': .3}, 'piecewise': {'image': 1., 'title': 2.}}
OPTIONS = {'power': {'power': 2.}, 'piecewise': {'planes': [[{'image': 1., 'title': .5}, .4],
                                                             [{'title': 1.}, .6]]}}


def test_every_step_and_fusion_has_words():
    assert set(STEPS) <= set(STEP_WORDS) and set(NUMBERS) <= set(STEP_WORDS)
    assert set(FUSIONS) == set(FUSION_WORDS) == set(WEIGHTS)


def evaluated(formula, scores):
    "What a formula in words computes from {modality: (m,)}."
    if match := re.fullmatch(r'the largest of (.+)', formula):
        return np.max([evaluated(term, scores) for term in re.split(r', | and ', match[1])], 0)
    if match := re.fullmatch(r'the sum of what is above 0 of (.+)', formula):
        return sum(np.maximum(evaluated(term, scores), 0) for term in re.split(r', | and ', match[1]))
    formula = re.sub(r' \(what a listing lacks.*\)$', '', formula)
    for sign, operator in (('−', '-'), ('×', '*'), ('^', '**'), ('²', '**2')):
        formula = formula.replace(sign, operator)
    return eval(formula, {}, scores)


@pytest.mark.parametrize('how', FUSIONS)
def test_the_formula_computes_what_the_fusion_computes(how):
    rng = np.random.default_rng(0)
    scores = {modality: rng.uniform(0, 1, (1, 40)).astype(np.float32) for modality in WEIGHTS[how]}
    options = OPTIONS.get(how, {})
    found = Candidates(np.arange(40)[None], scores, pool=40)
    expected = fused_scores(found, how, WEIGHTS[how], (), **options)[0]
    formula = fusion_in_words(how, WEIGHTS[how], options)
    float_scores = {modality: values[0].astype(float) for modality, values in scores.items()}
    np.testing.assert_allclose(evaluated(formula, float_scores), expected, atol=2e-3)


def test_one_modality_is_named_without_a_weight():
    assert fusion_in_words('mean', {'image': .3, 'title': 0.}) == 'image'
    assert fusion_in_words('square', {'image': 2.}) == 'image²'


@pytest.mark.parametrize('name', NUMBERS)
def test_a_step_names_its_numbers(name):
    sentence = step_in_words(Step(name, **NUMBERS[name]))
    assert sentence.endswith('.') and '{' not in sentence
    for parameter, value in NUMBERS[name].items():
        # k counts the listing itself, which the words leave out
        among_others = parameter == 'k' and name != 'standardize'
        values = value if isinstance(value, list) else [value - 1 if among_others else value]
        for number in values:
            shown = f'{number:.0%}' if name == 'chisel' else f'{number:.3g}'
            assert shown in sentence, (parameter, sentence)
    if NUMBERS[name]: assert sentence != step_in_words(Step(name, **_others_of(name)))


def _others_of(name):
    "Other numbers for a step: half of each, whole numbers one less."
    return {parameter: [.5] if isinstance(value, list) else value - 1 if isinstance(value, int) else value / 2
            for parameter, value in NUMBERS[name].items()}


def test_defaults_are_told_too():
    assert '4 nearest neighbors' in step_in_words(Step('expand')) and 'power of 3' in step_in_words(
        Step('expand')
    )
    assert 'nearest one.' in step_in_words(Step('min2'))
    assert 'each is the nearest of the other' in step_in_words(Step('min2', mutual=True))


def test_whose_vectors_and_whose_neighbors():
    assert 'same modality' in step_in_words(Step('augment', k=2))
    fused = step_in_words(Step('augment', by='fused', on=['image', 'title'], k=2))
    assert 'found by the fused score' in fused and 'vector of image and title' in fused
    assert 'its nearest neighbor,' in fused
    named = step_in_words(Step('augment', by={'how': 'mean', 'weights': {'image': 3., 'title': 1.}}))
    assert 'found by 0.75 × image + 0.25 × title' in named


def my_own(neighbors): return neighbors


def test_a_function_of_your_own_is_named():
    assert step_in_words(Step(my_own)) == 'The function tests.match.test_words:my_own changes the scores.'


def test_a_rule_is_told_in_its_order():
    rule = Rule('mean', {'image': .7, 'title': .3}, .5, k=20, max_matches=30, join=('phash',),
                steps=(Step('augment', by='fused', k=2), Step('veto'), Step('min2', threshold=.4)),
                pools=PoolThresholds((100, 200, 400), (.4, .5, .55), .04, 200))
    sentences = rule_in_words(rule)
    beginnings = [
        'Listings with an equal phash',
        "Each listing's vector",
        'The score of a pair is 0.7 × image',
        'Pairs whose titles',
        'Two listings match when that score is 0.500',
        'Candidates are the 20',
        'A listing without any match',
        'The threshold follows',
    ]
    assert len(sentences) == len(beginnings)
    assert all(sentence.startswith(start) for sentence, start in zip(sentences, beginnings))
    assert 'at most 30 matches' in sentences[5]
    assert '0.400 among 100 and 0.500 among 200 (measured), 0.550 among 400 (predicted)' in sentences[-1]
    assert sentences[-1].endswith('a doubling adds +0.040.')


def test_the_thresholds_of_a_union():
    sentence, *_ = rule_in_words(Rule('union', {'image': .2, 'title': -.1}, .3))
    assert sentence == 'Two listings match when one of these is reached: image 0.500, title 0.200.'


POOLS = PoolThresholds((100, 200, 400), (.4, .5, .6), .04, 200)


@pytest.mark.parametrize('pool, threshold, beyond', [
    (200, '0.500', ''), (1600, '0.680', '; extrapolated beyond them'),
    (50, '0.400', '; it was not measured below 100')])
def test_the_threshold_in_a_pool(pool, threshold, beyond):
    rule = Rule('mean', {'image': 1.}, .5, pools=POOLS, score={'setting': 'in the catalogue', 'pool': 200})
    chosen = f'(chosen in the catalogue of 200 listings{beyond})'
    assert threshold_in_words(rule, pool) == f'threshold {threshold} for a pool of {pool:,} {chosen}'


def test_among_themselves_and_older_rules():
    assert '(chosen among 200 listings)' in threshold_in_words(
        Rule('mean', {'image': 1.}, .5, pools=POOLS, score={'setting': 'among themselves'}), 200)
    older = Rule('mean', {'image': 1.}, .5)
    assert 'in a pool of unknown size' in threshold_in_words(older, 900)
    said = threshold_in_words(older, 900, 463)
    assert said.startswith('threshold 0.500 for a pool of 900, taken as it was chosen, among 463 listings: ')
    assert 'knows no thresholds for other pools' in said
