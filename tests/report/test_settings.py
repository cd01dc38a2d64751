"The rule in words, evaluated, is the rule; settings are told as tables."
import json
import re

import numpy as np
import pytest

from fastmatch.match import Rule
from fastmatch.report.pairs import judge_pairs
from fastmatch.report.settings import settings_html, words
from tests.matcher.paired import matcher_and_new
from tests.report.made import made_run
from tests.report.reader import Reader


@pytest.mark.parametrize('how, weights, threshold', [
    ('mean', {'image': 2., 'tfidf': 1., 'title': 0.}, .4), ('prob_or', {'image': 4., 'title': 1.}, .6),
    ('union', {'image': .2, 'title': -.1}, .3)])
def test_the_rule_in_words_computes_what_it_computes(how, weights, threshold):
    "The formula in the sentence, evaluated, is the fusion."
    embeddings = made_run().embeddings
    spaces = embeddings.spaces()
    rule = Rule(how, weights, threshold, 8)
    first, second = np.triu_indices(60, 1)
    scores = {modality: spaces[modality].scores(first, second) for modality in weights}
    sentence = words(rule)
    if how == 'union':
        least_of = dict(re.findall(r'(\w+) (-?[\d.]+\d)', sentence.split('reached: ')[1].split('. Cand')[0]))
        actual = np.any([scores[modality] >= float(least) for modality, least in least_of.items()], 0)
    else:
        formula, least = re.search(r'when the fused score, (.+), is (-?[\d.]+) or more', sentence).groups()
        for sign, operator in (('−', '-'), ('×', '*'), ('^', '**')): formula = formula.replace(sign, operator)
        if how == 'prob_or':
            scores = {modality: np.clip(score, 0, None) for modality, score in scores.items()}
        actual = eval(formula, {}, scores) >= float(least)
    expected = judge_pairs(spaces, Rule(how, weights, threshold, 60, 60), embeddings.groups).pairs
    assert expected.candidate.all() and (actual == expected.matched).mean() > .998
    assert 0 < actual.sum() < len(actual)
    assert 'at most 50 matches' in sentence and 'the 8 nearest' in sentence


def test_keys_and_steps_are_told():
    sentence = words(Rule('mean', {'image': 1.}, .5, join=('phash',), steps=('standardize', 'min2')))
    assert 'an equal phash match by that alone' in sentence
    assert 'Steps, in order: standardize, min2.' in sentence


def test_a_pair_model_is_told_in_a_line():
    matcher, *_ = matcher_and_new()
    reader = Reader(settings_html(matcher.rule, None))
    shown = json.loads(''.join(reader.texts('pre')))
    assert len(json.dumps(shown)) < 1500
    assert shown['steps'][1]['params'] == repr(matcher.rule.steps[1].pair_model)
    assert 'probability that the pair model gives them is' in words(matcher.rule)


def test_the_settings(page_html):
    reader = Reader(page_html)
    assert json.loads(''.join(reader.texts('pre'))) == made_run().rule.to_dict()
    assert {'listings', 'skipped', 'seconds', 'run'} <= set(reader.texts('h3'))
    assert '<i>' in reader.texts('td') and 'empty file' in reader.texts('td')
