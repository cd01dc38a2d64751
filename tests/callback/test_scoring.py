"Validation without a loss against the same search by hand; rates of groups; which rows were trained on."
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.learner import Metric
from fastai.optimizer import SGD, OptimWrapper

from fastmatch.callback import scoring
from fastmatch.callback.scoring import GroupRates
from fastmatch.core import InputError
from fastmatch.match import Dense, best_threshold, map_at_r, recall_at
from fastmatch.metrics import MAPAtR, RecallAt, RowF1
from fastmatch.optim import opt_func
from fastmatch.schedule import Plateau
from tests.callback.small import fit
from tests.callback.small import make_learner as make_plain_learner
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


BY_GROUP = {
    'list': [1e-3, 1e-3], 'tuple': (1e-3, 1e-3), 'array': np.array([1e-3, 1e-3]), 'slice': slice(1e-3, 1e-3),
    'names': {'image': 1e-3, 'head': 1e-3}}
EVERY_FIT = {
    'fit': lambda learner, lr: learner.fit(1, lr),
    'fit_one_cycle': lambda learner, lr: learner.fit_one_cycle(1, lr, div=1., div_final=1., pct_start=.5),
    'fit_flat_cos': lambda learner, lr: learner.fit_flat_cos(1, lr, pct_start=1.),
    'fit_curve': lambda learner, lr: learner.fit_curve(1, lr),
    'fit_cos': lambda learner, lr: learner.fit_cos(1, lr, floor=1.),
    'fit_steps': lambda learner, lr: learner.fit_steps(1, lr, at=()),
    'fit_exp': lambda learner, lr: learner.fit_exp(1, lr, end=1.),
    'fit_cycles': lambda learner, lr: learner.fit_cycles(1, 1, lr, floor=1.),
    'fit_plateau': lambda learner, lr: learner.fit_plateau(1, lr, monitor='recall@1'),
    'fit_to_best': lambda learner, lr: learner.fit_to_best(1, lr, monitor='recall@1', fit='fit')}


@pytest.fixture(scope='module')
def watched(listings, tmp_path_factory):
    "A learner that notes its rates; what it learns doesn't count here."
    return make(listings, path=tmp_path_factory.mktemp('rates'), cbs=Rates())


@pytest.mark.parametrize('method', EVERY_FIT)
def test_rates_for_each_group_are_taken_as_they_are(method, watched):
    "Equal ones too, in whatever form; one number is spread by the same method."
    all_forms = method in ('fit', 'fit_flat_cos')
    for lr in BY_GROUP.values() if all_forms else [BY_GROUP['list'], BY_GROUP['names']]:
        quietly(watched, method, lr)
        np.testing.assert_allclose(watched.rates.seen, [[1e-3, 1e-3]] * len(watched.rates.seen))
    for lr in (1e-3, np.float32(1e-3), torch.tensor(1e-3)) if method == 'fit' else (1e-3,):
        quietly(watched, method, lr)
        np.testing.assert_allclose(watched.rates.seen, [[.25e-3, 5e-3]] * len(watched.rates.seen), rtol=1e-6)


def quietly(learner, method, lr):
    with learner.no_bar(), learner.no_logging(): EVERY_FIT[method](learner, lr)


def test_a_learners_own_rates_and_a_schedule_of_ones_own_count_as_given(listings, watched, tmp_path):
    learner = make(listings, path=tmp_path, cbs=Rates(), lr=[1e-3, 1e-3])
    fit(learner, 'fit_flat_cos', 1, pct_start=1.)
    np.testing.assert_allclose(learner.rates.seen, [[1e-3, 1e-3]] * len(learner.rates.seen))
    # whatever the learner's own rates, lr_find raises one
    fit(learner, 'lr_find', show_plot=False, num_it=8, suggest_funcs=None)
    rates = np.array(learner.rates.seen)
    np.testing.assert_allclose(rates[:, 1] / rates[:, 0], 20.)
    for schedule, expected in ((lambda progress: 1e-3, [.25e-3, 5e-3]),
                               (lambda progress: np.array([1e-3, 1e-3]), [1e-3, 1e-3])):
        fit(watched, 'fit', 1, cbs=ParamScheduler({'lr': schedule}))
        np.testing.assert_allclose(watched.rates.seen, [expected] * len(watched.rates.seen))


def test_stages_keep_rates_as_given(watched):
    "Equal by a factor of 1, and a list for the first stage; rates that a plateau's floor makes equal."
    fit(watched, 'fit_gradual', 1e-3, [0, 1], factor=1., decay=1., fit='fit')
    np.testing.assert_allclose(watched.rates.seen, [[1e-3, 1e-3]] * len(watched.rates.seen))
    fit(watched, 'fit_head_first', 0, 1, [2e-3, 2e-3], fit='fit')
    np.testing.assert_allclose(watched.rates.seen, [[1e-3, 1e-3]] * len(watched.rates.seen))
    fit(watched, 'fit_head_first', 0, 1, slice(2e-3, 2e-3), fit='fit_one_cycle', div_final=1.)
    np.testing.assert_allclose(watched.rates.seen[-1], [1e-3, 1e-3], rtol=.2)
    fit(watched, 'fit_plateau', 3, [1e-2, 2e-2], 'flat', min_lr=8e-3, cbs=Flat())
    np.testing.assert_allclose(watched.rates.seen[-1], [8e-3, 8e-3])


class Flat(Callback):
    "Records a score that never gets better."
    order = 48
    def before_fit(self): self.learn.metrics = [*self.learn.metrics, FlatScore()]
    def after_fit(self): self.learn.metrics = self.learn.metrics[:-1]


class FlatScore(Metric):
    name, value = 'flat', .5
    def reset(self): pass
    def accumulate(self, learn): pass


@pytest.mark.parametrize('name', ['adamw', 'ranger', 'sgd_momentum', 'lamb', 'lookahead_lion', 'fastai'])
def test_fastais_plateau_reduces_every_optimizers_rate(name, listings, tmp_path):
    make_optimizer = SGD if name == 'fastai' else opt_func(name)
    learner = make(listings, path=tmp_path, opt_func=make_optimizer, cbs=Rates())
    fit(learner, 'fit', 4, 1e-3, cbs=[Flat(), ReduceLROnPlateau('flat', patience=1, factor=10)])
    np.testing.assert_allclose([hypers['lr'] for hypers in learner.opt.hypers], [1e-6, 1e-6])
    # the first epoch is the best, each later one divides by 10
    per_epoch = len(learner.dls.train)
    expected = np.repeat([1e-3, 1e-3, 1e-4, 1e-5], per_epoch)[:, None] * [.25, 5.]
    np.testing.assert_allclose(learner.rates.seen, expected)


def test_a_plateau_that_could_do_nothing_is_refused(listings, tmp_path):
    def wrapped(parameters, lr): return OptimWrapper(parameters, torch.optim.SGD, lr=lr)
    learner = make(listings, path=tmp_path, opt_func=wrapped, wd=None)
    for callback in (Plateau('recall@1'), ReduceLROnPlateau('recall@1')):
        with pytest.raises(InputError, match='schedule of this fit sets the rate'):
            fit(learner, 'fit_one_cycle', 1, 1e-3, cbs=callback)
    fit(learner, 'fit', 2, 1e-3, cbs=[Flat(), Plateau('flat')])
    np.testing.assert_allclose([hypers['lr'] for hypers in learner.opt.hypers], [1e-4, 1e-4])


@pytest.mark.parametrize('make_tracker', [SaveModelCallback, EarlyStoppingCallback, ReduceLROnPlateau,
                                          Plateau, lambda: SaveModelCallback('recall@5')])
def test_a_monitor_that_is_not_recorded_is_told_before_training(make_tracker, listings, tmp_path):
    learner = make(listings, path=tmp_path)
    tracker = make_tracker()
    message = rf"monitor='{tracker.monitor}': this Learner records \['train_loss', 'recall@1'"
    with pytest.raises(InputError, match=message): fit(learner, 'fit', 1, 1e-3, cbs=tracker)
    with pytest.raises(InputError, match=message):
        fit(learner, 'fit_to_best', 1, 1e-3, tracker.monitor, patience=1)


def test_trackers_pass_over_epochs_without_scores(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    trackers = [SaveModelCallback('recall@1'), EarlyStoppingCallback('recall@1', patience=9)]
    fit(learner, 'fit', 3, 1e-3, cbs=trackers, start_epoch=2)
    assert (tmp_path/'models'/'model.pth').exists() and trackers[0].best == learner.recorder.values[-1][1]
    fit(learner, 'fit', 1, 1e-3, cbs=SaveModelCallback('recall@1', fname='none', at_end=True), start_epoch=1)
    assert (tmp_path/'models'/'none.pth').exists()


def test_factors_are_of_groups_that_there_are(listings, tmp_path):
    for lr_mult, culprit in (({'image': .5, 'heads': 5.}, r"\['image', 'heads'\]; the groups are .*'head'"),
                             ({'title': .5}, r"\['title'\]"), ({'head': -1.}, "'head' is -1"),
                             ({'head': '5'}, "'head' is '5'")):
        with pytest.raises(InputError, match=culprit): make(listings, path=tmp_path, lr_mult=lr_mult)
    plain_learner = make_plain_learner(cbs=GroupRates({'bodies': .5}))
    with pytest.raises(InputError, match=r"\['bodies'\]; the groups are \['body', 'head'\]"):
        fit(plain_learner, 'fit', 1, .1)
    learner = make_plain_learner(cbs=[GroupRates({'body': .5}), Rates()])
    fit(learner, 'fit_flat_cos', 1, [.1, .1], pct_start=1.)
    np.testing.assert_allclose(learner.rates.seen, [[.1, .1]] * len(learner.rates.seen))
    fit(learner, 'fit_flat_cos', 1, .1, pct_start=1.)
    np.testing.assert_allclose(learner.rates.seen, [[.05, .1]] * len(learner.rates.seen))


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
