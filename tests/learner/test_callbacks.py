"""Every public callback of fastai's and of this package on both learners: it only watches, it changes the
training, or one error says before the training what to do instead."""
import importlib
import pkgutil
from functools import partial

import fastai.callback
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback import (
    channelslast,
    core,
    data,
    fp16,
    hook,
    mixup,
    preds,
    progress,
    rnn,
    schedule,
    tracker,
    training,
)
from fastai.callback.core import Callback
from fastai.learner import CastToTensor, Recorder, SkipToEpoch
from torch.optim.lr_scheduler import StepLR

import fastmatch.callback
import fastmatch.schedule
from fastmatch.callback import (
    adversarial,
    averaging,
    distributed,
    extra_term,
    guard,
    half,
    heads,
    mean_teacher,
    mining,
    mix,
    resume,
    saf,
    scoring,
    sharpness,
    sizes,
    snapshots,
    soft,
    stored_teacher,
    teacher,
    trained_on,
    views,
)
from fastmatch.callback.base import SkippableCallback
from fastmatch.callback.second_pass import SecondPass
from fastmatch.core import InputError, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.outputs import TeacherOutputs
from fastmatch.learner import classify_learner, match_learner
from fastmatch.losses import ArcFace, CrossEntropy, SumLoss
from fastmatch.schedule import GradientAccumulation, Plateau, Still, TorchSchedule, WarmUp
from tests.bench.families import tiny_model
from tests.learner.small import weights
from tests.learner.test_fits import LOADERS, make

EPOCHS = 2
LR = 1e-3


class NoHook(hook.HookCallback):
    "The smallest subclass that works."
    def hook(self, module, inputs, output): pass


def falling(): return schedule.SchedLin(LR, LR / 10)


def best_named(make_tracker):
    "A tracker of what both learners record."
    return lambda: make_tracker('train_loss', comp=np.less)


# callback -> how it is made; the weights after the training are those of a training without it
WATCHES = {
    core.Callback: core.Callback, core.FetchPredsCallback: core.FetchPredsCallback,
    data.CollectDataCallback: data.CollectDataCallback, hook.HookCallback: NoHook,
    hook.ActivationStats: partial(hook.ActivationStats, with_hist=True),
    preds.MCDropoutCallback: preds.MCDropoutCallback, progress.ProgressCallback: progress.ProgressCallback,
    progress.CSVLogger: progress.CSVLogger, progress.ShowGraphCallback: progress.ShowGraphCallback,
    tracker.TerminateOnNaNCallback: tracker.TerminateOnNaNCallback,
    tracker.TrackerCallback: best_named(tracker.TrackerCallback),
    tracker.EarlyStoppingCallback: lambda: tracker.EarlyStoppingCallback('train_loss', patience=EPOCHS),
    tracker.SaveModelCallback: lambda: tracker.SaveModelCallback('train_loss', every_epoch=True),
    # the rate has no chance to fall in so few epochs
    tracker.ReduceLROnPlateau: lambda: tracker.ReduceLROnPlateau('train_loss', patience=EPOCHS),
    Plateau: lambda: Plateau('train_loss', patience=EPOCHS),
    CastToTensor: CastToTensor, SkippableCallback: SkippableCallback,
    guard.Guard: guard.Guard, resume.Resume: resume.Resume, snapshots.Snapshots: snapshots.Snapshots,
    # the targets are classes already
    soft.LikeliestTargets: soft.LikeliestTargets,
    # nothing is frozen
    Still: Still, training.BnFreeze: training.BnFreeze,
    # in image encoders of 32 bits they change nothing: they are there for the GPU
    fp16.MixedPrecision: fp16.MixedPrecision, channelslast.ChannelsLast: channelslast.ChannelsLast}
# the weights are others
TRAINS = {
    mixup.MixUp: mixup.MixUp, mixup.CutMix: mixup.CutMix, mix.MixUp: mix.MixUp, mix.CutMix: mix.CutMix,
    schedule.ParamScheduler: lambda: schedule.ParamScheduler({'lr': falling()}),
    # it puts the weights back that it started from
    schedule.LRFinder: lambda: schedule.LRFinder(num_it=4),
    training.ShortEpochCallback: lambda: training.ShortEpochCallback(.4),
    training.GradientAccumulation: lambda: training.GradientAccumulation(32),
    training.GradientClip: lambda: training.GradientClip(.01),
    SkipToEpoch: lambda: SkipToEpoch(1),
    sharpness.SAM: sharpness.SAM, sharpness.ASAM: sharpness.ASAM, sharpness.ESAM: sharpness.ESAM,
    sharpness.LookSAM: sharpness.LookSAM, adversarial.FGM: lambda: adversarial.FGM(.5, 'conv1'),
    adversarial.PGD: lambda: adversarial.PGD(.5, .3, 2, 'conv1'),
    averaging.EMA: averaging.EMA, averaging.SWA: lambda: averaging.SWA(0.),
    sizes.MultiScale: lambda: sizes.MultiScale([24, 32]),
    mining.HardMining: mining.HardMining, saf.SAF: lambda: saf.SAF(back=1),
    heads.MarginSchedule: lambda: heads.MarginSchedule(schedule.SchedLin(.1, .4)),
    GradientAccumulation: lambda: GradientAccumulation(32), WarmUp: lambda: WarmUp(1),
    TorchSchedule: lambda: TorchSchedule(partial(StepLR, step_size=1))}
# the last epoch was not scored whole, with other weights than are there in the end, or in bfloat16
OTHER_WEIGHTS = schedule.LRFinder, training.ShortEpochCallback, half.CPUMixedPrecision
# callback -> (how it is made, what the error says to do)
GIVE_ANOTHER, LEAVE_OUT = r'give .*MixUp\(\)|give e.g. SAM\(\)', 'leave it out'
OUTPUTS = TeacherOutputs(['nobody'], [[1., 0.]], [[1., 0.]], ['a', 'b'])
REFUSED = {
    fp16.ModelToHalf: (fp16.ModelToHalf, r'learn\.to_fp16\(\)'),
    fp16.NonNativeMixedPrecision: (
        lambda: [fp16.ModelToHalf(), fp16.NonNativeMixedPrecision()], r'needs a GPU.*learn\.to_fp16\(\)'),
    core.GatherPredsCallback: (core.GatherPredsCallback, r'call learn\.get_preds\(\)'),
    core.TrainEvalCallback: (core.TrainEvalCallback, LEAVE_OUT), Recorder: (Recorder, LEAVE_OUT),
    rnn.ModelResetter: (rnn.ModelResetter, LEAVE_OUT), rnn.RNNCallback: (rnn.RNNCallback, LEAVE_OUT),
    rnn.RNNRegularizer: (lambda: rnn.RNNRegularizer(2., 1.), LEAVE_OUT),
    mixup.MixHandler: (mixup.MixHandler, GIVE_ANOTHER), mix.MixImages: (mix.MixImages, GIVE_ANOTHER),
    SecondPass: (SecondPass, GIVE_ANOTHER), scoring.ValidScores: (scoring.ValidScores, LEAVE_OUT),
    scoring.MatchRecorder: (scoring.MatchRecorder, LEAVE_OUT),
    scoring.CheckedTrackers: (scoring.CheckedTrackers, LEAVE_OUT),
    trained_on.TrainedOn: (trained_on.TrainedOn, LEAVE_OUT),
    heads.HeadLabels: (heads.HeadLabels, LEAVE_OUT),
    heads.LossTerms: (heads.LossTerms, 'wants a SumLoss'),
    teacher.Teacher: (lambda: teacher.Teacher(torch.nn.Linear(2, 2)), r'loss_func=Distill\(\) does'),
    views.AverageViews: (views.AverageViews, r'learn.predictions\(tta'),
    distributed.SharedTrainer: (distributed.SharedTrainer, 'one process alone'),
    mean_teacher.MeanTeacher: (mean_teacher.MeanTeacher, r'add EMA\(\.99\)'),
    stored_teacher.StoredTeacher: (lambda: stored_teacher.StoredTeacher(OUTPUTS),
                                   r'loss_func=Distill\(\) does'),
    stored_teacher.TeacherEmbeddings: (lambda: stored_teacher.TeacherEmbeddings(OUTPUTS), 'are not among'),
    scoring.GroupRates: (lambda: scoring.GroupRates({'head': 2.}), 'lr_mult=')}
# different on the two learners
BY_KIND = {
    ('match', heads.PlainValidLoss): None,
    # its head is a plain linear layer: there is a validation loss that a margin has no part in already
    ('classify', heads.PlainValidLoss): None,
    ('classify', heads.MarginSchedule): (TRAINS[heads.MarginSchedule], 'loss with a margin')}
# name of a module -> why its callbacks are not tried
ELSEWHERE = {
    'azureml': 'reports to a service, by a package of its own', 'captum': 'explains, by a package of its own',
    'comet': 'reports to a service, by a package of its own',
    'tensorboard': 'by a package of its own', 'wandb': 'reports to a service, by a package of its own',
    'averaging': 'Averaged is the base of EMA and SWA'}
# processors without bfloat16 would be slower
if half.has_bfloat16(): TRAINS[half.CPUMixedPrecision] = half.CPUMixedPrecision
else: REFUSED[half.CPUMixedPrecision] = half.CPUMixedPrecision, 'has no bfloat16'

BASES = {averaging.Averaged: 'the base of EMA and SWA',
         extra_term.ExtraTerm: 'the base of MeanTeacher and TeacherEmbeddings',
         heads.CrossEntropyValid: 'the base of PlainValidLoss and Teacher'}


def public_callbacks(package):
    "The callbacks that the modules of a package define, as far as what they need is installed."
    found = {CastToTensor, Recorder, SkipToEpoch}
    for module_info in pkgutil.iter_modules(package.__path__):
        try: module = importlib.import_module(f'{package.__name__}.{module_info.name}')
        except ImportError:
            assert module_info.name in ELSEWHERE
            continue
        if package is fastai.callback and module_info.name in ELSEWHERE: continue
        found |= {value for name, value in vars(module).items() if isinstance(value, type)
                  and issubclass(value, Callback) and value.__module__ == module.__name__
                  and not name.startswith('_')}
    return found


def test_every_public_callback_is_on_a_list():
    public = set().union(*map(public_callbacks, (fastai.callback, fastmatch.callback, fastmatch.schedule)))
    listed = [*WATCHES, *TRAINS, *REFUSED, *BASES]
    assert len(set(listed)) == len(listed)
    assert public == set(listed) | {callback for _, callback in BY_KIND}


def trained(kind, listings, folder, callbacks, **kwargs):
    "A learner after a short training, always from the same start."
    seed_everything(1)
    # without dropout, whose random numbers depend on who else draws some
    if kind == 'classify': kwargs = {'p': 0., **kwargs}
    learner = make(kind, listings, folder, **kwargs)
    seed_everything(2)
    with learner.no_logging(): learner.fit(EPOCHS, LR, cbs=callbacks)
    plt.close('all')
    return learner


@pytest.fixture(scope='module')
def plain_weights(listings, tmp_path_factory):
    folder = tmp_path_factory.mktemp('plain')
    return {kind: weights(trained(kind, listings, folder, None)) for kind in ('match', 'classify')}


def case(kind, callback):
    "(How a callback is made, what the error says or None, whether the weights stay those of a plain fit)."
    if BY_KIND.get((kind, callback)): return *BY_KIND[kind, callback], None
    if (kind, callback) in BY_KIND: return callback, None, True
    if callback in REFUSED: return *REFUSED[callback], None
    return {**WATCHES, **TRAINS}[callback], None, callback in WATCHES


def shown(callback): return f"{callback.__module__.split('.')[0]}-{callback.__name__}"


@pytest.mark.parametrize('kind', ['match', 'classify'])
@pytest.mark.parametrize('callback', dict.fromkeys([*WATCHES, *TRAINS, *REFUSED,
                                                    *(callback for _, callback in BY_KIND)]), ids=shown)
@pytest.mark.filterwarnings('ignore')
def test_it_works_or_is_refused_before_the_training(kind, callback, listings, tmp_path, plain_weights):
    make_callback, words, only_watches = case(kind, callback)
    if words is not None:
        learner = make(kind, listings, tmp_path)
        before = weights(learner)
        with pytest.raises(InputError, match=words), learner.no_bar(), learner.no_logging():
            learner.fit(EPOCHS, LR, cbs=make_callback())
        assert torch.equal(weights(learner), before)
        # and nothing of it stays
        with learner.no_bar(), learner.no_logging(): learner.fit(1, LR)
        return
    learner = trained(kind, listings, tmp_path, make_callback())
    after = weights(learner)
    assert torch.isfinite(after).all()
    assert torch.equal(after, plain_weights[kind]) == only_watches
    recorded = list(learner.recorder.values[-1][1:])
    with learner.no_bar(), learner.no_logging():
        # what was recorded in the last epoch is what the weights are worth
        if callback not in OTHER_WEIGHTS: np.testing.assert_allclose(learner.validate(), recorded, rtol=1e-5)
        assert len(learner.get_preds()[1]) == len(learner.dls.valid_df)


def test_a_csv_logger_writes_what_is_recorded(listings, tmp_path):
    for kind in ('match', 'classify'):
        learner = trained(kind, listings, tmp_path, progress.CSVLogger(kind))
        written = pd.read_csv(tmp_path/kind)
        assert list(written.columns) == list(learner.recorder.metric_names)
        np.testing.assert_allclose(written.iloc[:, 1:-1], np.array(learner.recorder.values), atol=1e-5)


def test_terms_of_a_sum_on_both_learners(listings, tmp_path):
    for kind, part in (('match', ArcFace(m=.3, s=20)), ('classify', CrossEntropy())):
        loss = SumLoss({'first': part, 'second': part.__class__()})
        learner = trained(kind, listings, tmp_path, heads.LossTerms(), loss_func=loss)
        columns = list(learner.recorder.metric_names)
        first, second = (learner.recorder.values[-1][columns.index(name) - 1] for name in ('first', 'second'))
        assert first > 0 and second > 0


def test_a_class_that_needs_arguments_is_told(listings, tmp_path):
    learner = make('match', listings, tmp_path)
    with pytest.raises(InputError, match=r'WarmUp: that is the class, give an instance.*epochs'):
        learner.fit(1, LR, cbs=WarmUp)
    trained('match', listings, tmp_path, guard.Guard)


def test_factors_of_ones_own_where_the_learner_has_none(listings, tmp_path):
    "Beside `lr_mult={}` a `GroupRates` is the only one that does anything."
    rates = scoring.GroupRates({'head': 2.})
    with_own = trained('match', listings, tmp_path, rates, lr_mult={})
    expected = trained('match', listings, tmp_path, None, lr_mult={'head': 2.})
    assert torch.equal(weights(with_own), weights(expected))


@pytest.mark.parametrize('kind', ['match', 'classify'])
@pytest.mark.parametrize('mixing', ['MixUp', 'CutMix'])
@pytest.mark.filterwarnings('ignore')
def test_fastais_mixing_of_listings_with_titles_names_ours(kind, mixing, listings, tmp_path):
    folder = tmp_path/'bert'
    tiny_model('bert', folder)
    options = {**LOADERS, 'text_col': 'title', 'max_len': 16}
    if kind == 'match': loaders, maker = MatchDataLoaders.from_df(listings, **options), match_learner
    else:
        loaders = ClassifyDataLoaders.from_df(listings, label_col='vendor', **options)
        maker = classify_learner
    learner = maker(loaders, 'test_resnet', folder, pretrained=False, path=tmp_path)
    with learner.no_bar(), learner.no_logging():
        with pytest.raises(InputError, match=rf'titles: give .*fastmatch\.callback\.mix\.{mixing}\(\)'):
            learner.fit(1, LR, cbs=getattr(mixup, mixing)())
        learner.fit(1, LR, cbs=getattr(mix, mixing)())


@pytest.mark.parametrize('kind', ['match', 'classify'])
def test_a_second_precision_is_refused(kind, listings, tmp_path):
    learner = make(kind, listings, tmp_path).to_bf16()
    with pytest.raises(InputError, match='MixedPrecision: this learner has one already'):
        learner.fit(1, LR, cbs=fp16.MixedPrecision())
