"What Learners share: trackers, the search for a rate, groups and their rates, encoders from names."
import copy

import numpy as np
import pytest
import torch
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback

from fastmatch.core import HeadOutput, InputError
from fastmatch.learner import match_learner
from tests.learner.small import make, weights


def test_lr_find_leaves_no_trace(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    before = weights(learner)
    found = learner.lr_find(show_plot=False, num_it=12)
    assert 1e-7 < found.valley < 10 and torch.equal(weights(learner), before)
    assert not learner.embeddings(learner.dls.train_df).trained_on.any()


def test_freeze_trains_the_head_alone(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    learner.freeze()
    first_layer = learner.model.encoders['image'].body.conv_stem
    before = first_layer.weight.detach().clone()
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    assert torch.equal(first_layer.weight, before)
    learner.unfreeze()
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    assert not torch.equal(first_layer.weight, before)


@pytest.mark.parametrize('monitor', ['recall@1', 'map@r'])
def test_trackers_watch_the_scores(listings, tmp_path, monitor):
    callbacks = [SaveModelCallback(monitor), EarlyStoppingCallback(monitor, patience=1, min_delta=2.)]
    learner = make(listings, path=tmp_path, cbs=callbacks)
    with learner.no_bar(), learner.no_logging(): learner.fit(4, 1e-3)
    column = list(learner.recorder.metric_names[1:]).index(monitor)
    values = [row[column] for row in learner.recorder.values]
    # no gain of 2 is possible: it stops after the second epoch, and the better of the two is loaded
    assert len(values) == 2
    np.testing.assert_allclose(learner.validate()[column - 1], max(values), rtol=1e-6)


def test_wrong_dls_and_missing_encoder_are_told(listings):
    learner = make(listings)
    with pytest.raises(InputError, match='MatchDataLoaders'): match_learner(copy.copy(learner.dls.train))
    with pytest.raises(InputError, match='image_arch=None'): match_learner(learner.dls, None)
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(InputError, match='evaluation'):
        learner.loss_func(learner.model.eval()(images), torch.zeros(2).long())
    assert isinstance(learner.model.train()(images)['image'], HeadOutput)
