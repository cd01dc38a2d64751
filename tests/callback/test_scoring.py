"Validation without a loss against the same search by hand; rates of groups; which rows were trained on."
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.optimizer import SGD

from fastmatch.callback import scoring
from fastmatch.core import InputError
from fastmatch.match import Dense, best_threshold, map_at_r, recall_at
from fastmatch.metrics import MAPAtR, RecallAt, RowF1
from tests.learner.small import Rates, make


def test_validation_is_scored_not_lost(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    metric_names = ['epoch', 'train_loss', 'recall@1', 'map@r', 'row_f1_max', 'time']
    assert list(learner.recorder.metric_names) == metric_names
    embeddings = learner.embeddings()
    neighbors = Dense(embeddings['image']).search()
    groups = embeddings.groups
    expected = [np.nanmean(recall_at(neighbors, groups)), np.nanmean(map_at_r(neighbors, groups)),
                best_threshold(neighbors, groups)[1]]
    np.testing.assert_allclose(learner.recorder.values[-1][1:], expected, rtol=1e-6)
    np.testing.assert_allclose(learner.validate(), expected, rtol=1e-6)


def test_one_rate_is_spread_and_put_back(listings, tmp_path):
    learner = make(listings, path=tmp_path, cbs=Rates())
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    np.testing.assert_allclose(learner.rates.seen, [[.25e-3, 5e-3]] * len(learner.rates.seen))
    np.testing.assert_allclose(learner.rates.after, [[1e-3, 1e-3]] * len(learner.rates.after))
    with learner.no_bar(), learner.no_logging(): learner.fit(1, slice(1e-4, 1e-2))
    np.testing.assert_allclose(learner.rates.seen, [[1e-4, 1e-2]] * len(learner.rates.seen))
    with learner.no_bar(), learner.no_logging(): learner.fit_one_cycle(1, 1e-3)
    rates = np.array(learner.rates.seen)
    np.testing.assert_allclose(rates[:, 1] / rates[:, 0], 20.)


def test_rates_reach_the_weights(listings, tmp_path):
    "One plain SGD step moves each group by its own rate times its gradient."
    class Stop(Callback):
        def before_step(self):
            self.gradients = []
            for group in self.learn.model.param_groups().values():
                with_gradient = [parameter for parameter in group if parameter.grad is not None]
                self.gradients.append([parameter.grad.clone() for parameter in with_gradient])

        def after_step(self): raise CancelFitException
    learner = make(listings, path=tmp_path, opt_func=SGD, cbs=Stop(), wd=0., moms=(0, 0, 0))

    def trained(group): return [parameter.detach().clone() for parameter in group if parameter.requires_grad]
    groups = learner.model.param_groups()
    before = {name: trained(group) for name, group in groups.items()}
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-2)
    for name, gradients, lr in zip(before, learner.stop.gradients, (.25e-2, 5e-2)):
        after = trained(groups[name])
        for old, new, gradient in zip(before[name], after, gradients, strict=True):
            torch.testing.assert_close(new, old - lr * gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_rows_trained_on_are_flagged_and_refused(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    df = learner.dls.df
    assert not learner.embeddings(df).trained_on.any()
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    embeddings = learner.embeddings(df)
    np.testing.assert_array_equal(embeddings.trained_on, ~learner.dls.is_valid)
    message = f'{embeddings.trained_on.sum()} of {len(df)} listings were trained on'
    with pytest.raises(InputError, match=message): embeddings.refuse_trained_on('a rule')
    assert learner.embeddings().refuse_trained_on('a rule') is not None


@pytest.mark.parametrize('most_cells', [1 << 22, 1000])
def test_metrics_are_searched_as_deep_as_they_need(listings, tmp_path, most_cells, monkeypatch):
    "mAP@R of groups of more than 51 and recall at more than 50 are those of a search of all listings."
    monkeypatch.setattr(scoring, 'MOST_CELLS', most_cells)  # in many parts
    many = pd.concat([listings] * 5, ignore_index=True)
    many['posting_id'] = [f'p{row}' for row in range(len(many))]
    many['label_group'] = np.where(many.fold == 0, np.where(many.index % 2, 'odd', 'even'),
                                   many.label_group)
    metrics = [MAPAtR(), RecallAt(70), RecallAt(10_000), RowF1(), MAPAtR('image')]
    learner = make(many, path=tmp_path, metrics=metrics)
    embeddings = learner.embeddings()
    groups = embeddings.groups
    assert np.unique(groups, return_counts=True)[1].max() > 52
    everything = Dense(embeddings['image']).search(len(groups))
    precision = np.nanmean(map_at_r(everything, groups))
    expected = [precision, np.nanmean(recall_at(everything, groups, 70)), 1.,
                best_threshold(everything, groups)[1], precision]
    np.testing.assert_allclose(learner.validate(), expected, rtol=1e-6)
    with pytest.raises(InputError, match='k=0'): RecallAt(0)
