"The rule in words, evaluated, is the rule; settings are told as tables."
import json
import re

import numpy as np
import pytest

from fastmatch.match import Rule
from fastmatch.report.pairs import judge_pairs
from fastmatch.report.settings import settings_html, words
from tests.matcher.paired import matcher_and_new
from tests.report.made import run
from tests.report.reader import Reader


@pytest.mark.parametrize('how, weights, threshold', [
    ('mean', {'image': 2., 'tfidf': 1., 'title': 0.}, .4), ('prob_or', {'image': 4., 'title': 1.}, .6),
    ('union', {'image': .2, 'title': -.1}, .3)])
def test_the_rule_in_words_computes_what_it_computes(how, weights, threshold):
    "The formula in the sentence, evaluated, is the fusion."
    embeddings, *_ = run()
    spaces = embeddings.spaces()
    rule = Rule(how, weights, threshold, 8)
    i, j = np.triu_indices(60, 1)
    scores = {name: spaces[name].scores(i, j) for name in weights}
    text = words(rule)
    if how == 'union':
        named = dict(re.findall(r'(\w+) (-?[\d.]+\d)', text.split('reached: ')[1].split('. Cand')[0]))
        got = np.any([scores[name] >= float(least) for name, least in named.items()], 0)
    else:
        formula, least = re.search(r'when the fused score, (.+), is (-?[\d.]+) or more', text).groups()
        for sign, operator in (('−', '-'), ('×', '*'), ('^', '**')):
            formula = formula.replace(sign, operator)
        if how == 'prob_or': scores = {name: np.clip(score, 0, None) for name, score in scores.items()}
        got = eval(formula, {}, scores) >= float(least)
    want = judge_pairs(spaces, Rule(how, weights, threshold, 60, 60), embeddings.groups).pairs
    assert want.candidate.all() and (got == want.matched).mean() > .998 and 0 < got.sum() < len(got)
    assert 'at most 50 matches' in text and 'the 8 nearest' in text


def test_keys_and_steps_are_told():
    text = words(Rule('mean', {'image': 1.}, .5, join=('phash',), steps=('standardize', 'min2')))
    assert 'an equal phash match by that alone' in text and 'Steps, in order: standardize, min2.' in text


def test_a_pair_model_is_told_in_a_line():
    matcher, *_ = matcher_and_new()
    page = Reader(settings_html(matcher.rule, None))
    shown = json.loads(''.join(page.words('pre')))
    assert len(json.dumps(shown)) < 1500
    assert shown['steps'][1]['params'] == repr(matcher.rule.steps[1].pair_model)
    assert 'probability that the pair model gives them is' in words(matcher.rule)


def test_the_settings(html):
    _, rule, *_ = run()
    page = Reader(html)
    assert json.loads(''.join(page.words('pre'))) == rule.to_dict()
    assert {'listings', 'skipped', 'seconds', 'run'} <= set(page.words('h3'))
    assert '<i>' in page.words('td') and 'empty file' in page.words('td')
