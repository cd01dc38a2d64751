"Validation without a loss against the same search by hand; rates of groups; which rows were trained on."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.optimizer import SGD

from fastmatch.core import InputError
from fastmatch.match import Dense, best_threshold, map_at_r, recall_at
from tests.learner.small import Rates, make


def test_validation_is_scored_not_lost(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    names = ['epoch', 'train_loss', 'recall@1', 'map@r', 'row_f1_max', 'time']
    assert list(learn.recorder.metric_names) == names
    emb = learn.embeddings()
    neighbors = Dense(emb['image']).search()
    want = [np.nanmean(recall_at(neighbors, emb.groups)), np.nanmean(map_at_r(neighbors, emb.groups)),
            best_threshold(neighbors, emb.groups)[1]]
    np.testing.assert_allclose(learn.recorder.values[-1][1:], want, rtol=1e-6)
    np.testing.assert_allclose(learn.validate(), want, rtol=1e-6)


def test_one_rate_is_spread_and_put_back(listings, tmp_path):
    learn = make(listings, path=tmp_path, cbs=Rates())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    np.testing.assert_allclose(learn.rates.seen, [[.25e-3, 5e-3]] * len(learn.rates.seen))
    np.testing.assert_allclose(learn.rates.after, [[1e-3, 1e-3]] * len(learn.rates.after))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, slice(1e-4, 1e-2))
    np.testing.assert_allclose(learn.rates.seen, [[1e-4, 1e-2]] * len(learn.rates.seen))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    rates = np.array(learn.rates.seen)
    np.testing.assert_allclose(rates[:, 1] / rates[:, 0], 20.)


def test_rates_reach_the_weights(listings, tmp_path):
    "One plain SGD step moves each group by its own rate times its gradient."
    class Stop(Callback):
        def before_step(self):
            self.grads = []
            for group in self.learn.model.param_groups().values():
                self.grads.append([param.grad.clone() for param in group if param.grad is not None])
        def after_step(self): raise CancelFitException
    learn = make(listings, path=tmp_path, opt_func=SGD, cbs=Stop(), wd=0., moms=(0, 0, 0))

    def trained(group): return [param.detach().clone() for param in group if param.requires_grad]
    groups = learn.model.param_groups()
    before = {name: trained(group) for name, group in groups.items()}
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    for name, grads, lr in zip(before, learn.stop.grads, (.25e-2, 5e-2)):
        for was, now, grad in zip(before[name], trained(groups[name]), grads, strict=True):
            torch.testing.assert_close(now, was - lr * grad, atol=1e-6, rtol=1e-4, msg=name)


def test_rows_trained_on_are_flagged_and_refused(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    df = learn.dls.df
    assert not learn.embeddings(df).trained_on.any()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    emb = learn.embeddings(df)
    np.testing.assert_array_equal(emb.trained_on, ~learn.dls.is_valid)
    words = f'{emb.trained_on.sum()} of {len(df)} listings were trained on'
    with pytest.raises(InputError, match=words): emb.refuse_trained_on('a rule')
    assert learn.embeddings().refuse_trained_on('a rule') is not None
