"""The longer recipes of the site's pages run as they stand there, and what they make is looked at.

A block behind `<!-- recipe: name -->` is run by a test of its own here, in a new process and an empty folder.
"""
import re

import numpy as np
import pandas as pd
import pytest

from tests.test_readme import PAGES, run_block

RECIPES = {name: code for text in PAGES.values()
           for name, code in re.findall(r'<!-- recipe: (\w+) -->\n```python\n(.+?)```', text, re.S)}


def run_recipe(name, folder):
    "What a recipe prints, run in `folder`."
    finished = run_block(RECIPES[name], folder)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def figures(printed, pattern):
    "The numbers in the lines that a recipe printed, by what stands before them."
    found = {name: float(figure) for name, figure in re.findall(pattern, printed)}
    assert found, printed
    return found


def row_f1_by_hand(submission, product_of):
    "Mean row F1 of a submission by its definition, with sets."
    scores = []
    for listing, matches in zip(submission.posting_id, submission.matches.str.split()):
        true = {other for other in submission.posting_id if product_of(other) == product_of(listing)}
        assert listing in matches and len(matches) == len(set(matches)) <= 42
        scores.append(2 * len(true & set(matches)) / (len(true) + len(matches)))
    return np.mean(scores)


@pytest.mark.slow
def test_shopee(tmp_path):
    scores = figures(run_recipe('shopee', tmp_path), r'(published|chosen): row F1 ([\d.]+)')
    submission = pd.read_csv(tmp_path/'submission.csv')
    products = submission.posting_id.str.split('_').str[0].astype(int)
    # a third of 48 products, of four listings each
    assert sorted(products) == [product for product in range(2, 48, 3) for _ in range(4)]
    handed_in = row_f1_by_hand(submission, lambda listing: listing.split('_')[0])
    assert handed_in == pytest.approx(scores['chosen'], abs=6e-4)
    # a listing alone has 2 / (1 + 4); thresholds of one's own are better than those of other encoders
    assert scores['chosen'] > .6 and scores['chosen'] > scores['published']
    # at least the nearest one, and equal pictures match
    matches = submission.set_index('posting_id').matches.str.split()
    assert (matches.str.len() >= 2).all()
    for product in range(2, 48, 3): assert f'{product}_3' in matches[f'{product}_0']


@pytest.mark.slow
def test_wechat(tmp_path):
    scores = figures(run_recipe('wechat', tmp_path), r'(\w+): macro-F1 ([\d.]+) of 65 held-out items')
    assert list(scores) == ['single', 'double', 'blend', 'boosted']
    # four classes: one class said of every item has .14 at most
    assert min(scores['blend'], scores['boosted']) > .14


@pytest.mark.slow
def test_population(tmp_path, monkeypatch):
    pytest.importorskip('ray', reason='ray is not installed: pip install "fastmatch[ray]"')
    # Ray gives its processes a low priority: beside other work they would hardly run
    monkeypatch.setenv('RAY_worker_niceness', '0')
    printed = run_recipe('population', tmp_path)
    scores = figures(printed, r'(population|Optuna): recall@1 ([\d.]+)')
    assert list(scores) == ['population', 'Optuna'] and all(0 < score <= 1 for score in scores.values())
    # four trainings of three epochs, in two processes; a training that takes over weights repeats an epoch
    told = [pd.read_json(file, lines=True) for file in tmp_path.glob('ray/*/*/result.json')]
    assert [epochs.training_iteration.iloc[-1] for epochs in told] == [3] * 4
    assert len({process for epochs in told for process in epochs.pid}) == 2
    last_scores = [epochs['recall@1'].iloc[-1] for epochs in told]
    assert scores['population'] == pytest.approx(max(last_scores), abs=6e-4)


@pytest.mark.slow
def test_autogluon(tmp_path):
    pytest.importorskip('autogluon.tabular', reason='autogluon.tabular is not installed: it wants an '
                        'environment of its own, see docs/other_tools.md')
    scores = figures(run_recipe('autogluon', tmp_path), r'(trees|AutoGluon): row F1 ([\d.]+)')
    # a listing alone has about .5
    assert list(scores) == ['trees', 'AutoGluon'] and min(scores.values()) > .5
