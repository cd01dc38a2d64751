"An ensemble of folds says the mean of what its models say, and becomes a matcher that needs no fastai."
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import log_loss

from fastmatch.core import InputError
from fastmatch.match import Rule, candidates, choose_rule
from fastmatch.matcher import load_matcher
from fastmatch.matcher.several import joined_vectors
from fastmatch.semi.blend import find_blend
from fastmatch.semi.ensemble import FoldEnsemble
from fastmatch.semi.folds import load_folds, train_folds
from fastmatch.semi.heldout import embeddings_of
from tests.semi.jobs import IMAGES, classifier, fit, items, matching, new_items, unseen_listings


def wider(fold, seed): return classifier(fold, seed, frames=2, image_col='images', table=items().assign(
    images=[[name, name] for name in items().image]))


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    return [train_folds(classifier, fit, folder/'a', n_folds=3, seeds=(0, 1)),
            train_folds(wider, fit, folder/'b', n_folds=3)]


@pytest.fixture(scope='module')
def match_run(tmp_path_factory):
    return train_folds(matching, fit, tmp_path_factory.mktemp('runs')/'m', n_folds=3, tta=True)


@pytest.mark.parametrize('how', ['probabilities', 'logits'])
def test_predictions_are_the_mean_of_the_models(runs, how):
    new = new_items()
    ensemble = FoldEnsemble(runs[0], how=how)
    found = ensemble.predict(new, IMAGES)
    names = list(found.columns[3:])
    each = np.stack([runs[0].learner(fold, seed).predictions(new, IMAGES)[names].to_numpy(np.float64)
                     for seed in (0, 1) for fold in range(3)])
    wanted = each.mean(0) if how == 'probabilities' else np.exp(np.log(each).mean(0))
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(found[names].to_numpy(), wanted, atol=1e-5)
    assert len(ensemble) == 6 and found.posting_id.tolist() == new.posting_id.tolist()
    assert found.label.tolist() == [names[label] for label in wanted.argmax(1)]
    np.testing.assert_allclose(found.prob, wanted.max(1), atol=1e-5)


def test_runs_with_weights(runs):
    new = new_items().assign(images=lambda table: [[name, name] for name in table.image])
    ensemble = FoldEnsemble(runs, [3, 1])
    np.testing.assert_allclose(ensemble.shares, [.125] * 6 + [.25 / 3] * 3)
    parts = [FoldEnsemble(run).predict(new, IMAGES).iloc[:, 3:] for run in runs]
    found = ensemble.predict(new, IMAGES).iloc[:, 3:]
    np.testing.assert_allclose(found, .75 * parts[0] + .25 * parts[1], atol=1e-6)
    held_out = [run.out_of_fold() for run in runs]
    blend = ensemble.find_weights()
    np.testing.assert_array_equal(ensemble.weights, find_blend(held_out).weights)
    blended = ensemble.out_of_fold()
    np.testing.assert_allclose(blended.probabilities, blend.chosen_on.probabilities)
    best_alone = min(log_loss(part.targets, part.probabilities.astype(float)) for part in held_out)
    assert log_loss(blended.targets, blended.probabilities) <= best_alone + 1e-9


def test_items_that_were_trained_on_are_refused(runs):
    with pytest.raises(InputError, match=f'trained on 2 of its items .{items().posting_id[4]}'):
        FoldEnsemble(runs[0]).predict(items().iloc[4:6], IMAGES)


def test_embeddings_are_joined(match_run):
    new = unseen_listings()
    ensemble = FoldEnsemble(match_run)
    found = ensemble.embed(new, tta=True)
    each = [embeddings_of(match_run.learner(fold, 0), new, tta=True) for fold in range(3)]
    np.testing.assert_allclose(found['image'], joined_vectors(each)['image'], atol=1e-5)
    mean = ensemble.embed(new, how='mean', tta=True)
    np.testing.assert_allclose(mean['image'], joined_vectors(each, how='mean')['image'], atol=1e-5)
    assert found.groups.tolist() == new.label_group.tolist() and not found.trained_on.any()
    known = ensemble.embed(match_run.learner(0, 0).dls.df.iloc[:4])
    assert known.trained_on.all()


def test_features_of_a_classifier_are_joined(runs):
    new = new_items().iloc[:5]
    found = FoldEnsemble(runs[0]).embed(new)
    each = [embeddings_of(runs[0].learner(fold, seed), new) for seed in (0, 1) for fold in range(3)]
    np.testing.assert_allclose(found['image'], joined_vectors(each)['image'], atol=1e-5)


@pytest.mark.parametrize('how', ['concatenate', 'mean'])
def test_a_matcher_of_all_folds(match_run, tmp_path, how):
    ensemble, new = FoldEnsemble(match_run), unseen_listings()
    embeddings = ensemble.embed(new, tta=True, how=how)
    rule = choose_rule(candidates(embeddings.spaces()), embeddings.groups)
    matcher = ensemble.matcher(new, rule, tta=True, how=how)
    np.testing.assert_allclose(matcher.spaces['image'].vectors, embeddings['image'], atol=1e-5)
    assert matcher.encoder.made_with == embeddings.made_with and not matcher.trained_on.any()
    matcher.save(tmp_path/'m')
    loaded = load_matcher(tmp_path/'m', 'cpu')
    more = new.assign(posting_id='new_' + new.posting_id)
    expected = matcher.match(more, IMAGES).to_frame(scores=True)
    assert loaded.match(more, IMAGES).to_frame(scores=True).equals(expected)
    if how == 'mean': return
    more.to_csv(tmp_path/'more.csv', index=False)
    program = ('import sys, pandas as pd; from fastmatch.matcher import load_matcher\n'
               f'm = load_matcher({str(tmp_path/"m")!r}, "cpu")\n'
               f'found = m.match(pd.read_csv({str(tmp_path/"more.csv")!r}), {str(IMAGES)!r})\n'
               f'found.to_frame().to_csv({str(tmp_path/"found.csv")!r}, index=False)\n'
               'assert "fastai" not in sys.modules')
    subprocess.run([sys.executable, '-W', 'ignore', '-c', program], check=True)
    assert (tmp_path/'found.csv').read_text() == matcher.match(more, IMAGES).to_frame().to_csv(index=False)
    # settings that the rule was not chosen with
    with pytest.raises(InputError, match='tta=True, but here tta=False'): ensemble.matcher(new, rule)


def test_a_catalogue_that_was_trained_on_is_flagged(match_run):
    known = match_run.learner(0, 0).dls.df.iloc[:4]
    catalogue = known.assign(posting_id=[*known.posting_id[:2], 'new1', 'new2'])
    matcher = FoldEnsemble(match_run).matcher(catalogue, Rule('mean', {'image': 1.}, .9))
    assert matcher.trained_on.tolist() == [True, True, False, False]


def test_nonsense(runs, match_run, tmp_path):
    with pytest.raises(InputError, match='some classify and some match'): FoldEnsemble([runs[0], match_run])
    with pytest.raises(InputError, match="runs=.'str'"): FoldEnsemble('runs')
    with pytest.raises(InputError, match='weights='): FoldEnsemble(runs, [1, 2, 3])
    with pytest.raises(InputError, match='how='): FoldEnsemble(runs, how='votes')
    with pytest.raises(InputError, match='see `embed`'): FoldEnsemble(match_run).predict(new_items())
    with pytest.raises(InputError, match='see `predict`'): FoldEnsemble(runs).encoder()
    with pytest.raises(InputError, match='make_learner'):
        FoldEnsemble(load_folds(match_run.folder)).embed(unseen_listings())
