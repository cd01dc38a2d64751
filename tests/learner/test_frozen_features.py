"Training on features that stand still: the same run as with the encoder in every batch, and a matcher of it."
import pickle

import numpy as np
import pytest
import torch
from fastai.optimizer import SGD
from fastai.vision.augment import Resize
from torch import nn

from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import classify_learner, match_learner
from fastmatch.match import candidates, choose_rule
from fastmatch.matcher import load_matcher
from fastmatch.models import FrameFeatures, ImageEncoder
from tests.learner.small import Letters

SIZE = 32


class Still(nn.Module):
    "An image encoder in evaluation for good, whose weights get no gradients: what cached features stand for."
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder.eval()
        self.mean = encoder.mean
        self.std = encoder.std
        self.n_out = encoder.n_out

    def train(self, mode=True):
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def forward(self, images): return self.encoder(images)


@pytest.fixture(scope='module')
def encoder():
    pytest.importorskip('timm')
    torch.manual_seed(0)
    return ImageEncoder('test_efficientnet', pretrained=False)


@pytest.fixture(scope='module')
def several(listings):
    "Every other listing with a picture of another one of its group behind its own."
    others = listings.groupby('label_group').image.transform(lambda names: names.shift(-1))
    cells = [name if number % 2 or other is None or other != other else f'{name}|{other}'
             for number, (name, other) in enumerate(zip(listings.image, others))]
    return listings.assign(image=cells)


def frozen(encoder, **options): return FrameFeatures(encoder, SIZE, device='cpu', **options)


def loaders(listings, features=None, **options):
    seed_everything(0)
    pictures = {'item_tfms': Resize(SIZE)} if features is None else {'frame_features': features}
    given = {'fold_col': 'fold', 'bs': 16, 'num_workers': 0, 'phash': False, **pictures, **options}
    return MatchDataLoaders.from_df(listings, demo_path()/'images', **given)


def trained(dls, image_arch, epochs=2, **options):
    seed_everything(1)
    # SGD: Adam divides by the gradient's size, and makes rounding of those near 0 as large as a step
    learner = match_learner(dls, image_arch, Letters(), opt_func=SGD, **options)
    with learner.no_bar(), learner.no_logging(): learner.fit(epochs, .1)
    return learner


@pytest.mark.parametrize('titles', [False, True], ids=['pictures', 'pictures and titles'])
def test_the_run_of_an_encoder_that_stands_still(encoder, several, titles):
    "Heads, scores and embeddings as where each batch is encoded; of several pictures the same is drawn."
    columns = {} if titles else {'text_col': None}
    encoded = trained(loaders(several, **columns), Still(encoder))
    features = frozen(encoder)
    n_pictures = len({name for cell in several.image for name in cell.split('|')})
    cached = trained(loaders(several, features, **columns), None)
    assert len(features) == n_pictures
    own = dict(cached.model.named_parameters())
    assert not any(name.startswith('encoders.image') for name in own)
    expected = dict(encoded.model.named_parameters())
    assert set(own) == {name for name in expected if not name.startswith('encoders.image')}
    start = match_learner(loaders(several, features, **columns), None, Letters()).model.state_dict()
    for name, weights in own.items():
        torch.testing.assert_close(weights, expected[name], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(weights, start[name], atol=1e-4), f'{name} was not trained'
    np.testing.assert_allclose(cached.recorder.values, encoded.recorder.values, rtol=1e-5)
    actual, reference = cached.embeddings(), encoded.embeddings()
    assert actual.made_with == reference.made_with and set(actual) == set(reference)
    # one row a picture, not a listing
    assert actual.pictures['image'].vectors.shape == reference.pictures['image'].vectors.shape
    for modality, pictures in reference.pictures.items():
        np.testing.assert_allclose(actual.pictures[modality].vectors, pictures.vectors, atol=1e-5)


def test_a_matcher_of_it_encodes_new_pictures(encoder, listings, tmp_path):
    features = frozen(encoder)
    learner = trained(loaders(listings, features), None)
    embeddings = learner.embeddings()
    rule = choose_rule(candidates(embeddings.spaces(tfidf=False)), embeddings.groups)
    matcher = learner.matcher(rule=rule)
    new, images = learner.dls.valid_df, learner.dls.image_folder
    # the tokenizer of a test can't be saved: what is saved is a matcher of pictures alone
    vectors, skipped = matcher.embed(new, images)
    assert not len(skipped)
    for modality in embeddings: np.testing.assert_allclose(vectors[modality], embeddings[modality], atol=1e-5)
    alone = trained(loaders(listings, features, text_col=None), None)
    expected = alone.embeddings()
    rule = choose_rule(candidates(expected.spaces()), expected.groups)
    alone.matcher(rule=rule).save(tmp_path/'matcher')
    vectors, _ = load_matcher(tmp_path/'matcher', 'cpu').embed(new, images)
    np.testing.assert_allclose(vectors['image'], expected['image'], atol=1e-5)
    # the encoder of the features is a copy that trainings leave alone
    for own, given in zip(features.encoder.parameters(), encoder.parameters(), strict=True):
        assert torch.equal(own, given)


def test_pictures_are_encoded_once_for_all_trainings(encoder, listings, tmp_path):
    first = loaders(listings, frozen(encoder, folder=tmp_path), text_col=None)
    later = frozen(encoder, folder=tmp_path)
    encoded = []
    hook = later.encoder.register_forward_hook(lambda *batch: encoded.append(batch))
    learner = trained(loaders(listings, later, text_col=None), None, epochs=1)
    learner.dls = first
    assert len(learner.embeddings()) == len(first.valid_df)
    learner.validate()
    learner.dls = loaders(listings, later, text_col=None)
    assert not encoded
    hook.remove()
    # an exported Learner goes on with the encoder in it
    copy = pickle.loads(pickle.dumps(learner))
    np.testing.assert_array_equal(copy.embeddings()['image'], learner.embeddings()['image'])


def test_loaders_in_workers_and_of_layers(encoder, listings):
    dls = loaders(listings, frozen(encoder), num_workers=1)
    learner = trained(dls, None, epochs=1, layer_decay=.5)
    assert 'image' not in {name.split('.')[0] for name in learner.model.param_groups()}
    dls.show_batch()


def test_classification_on_features_is_that_of_an_encoder_that_stands_still(encoder, listings):
    table = listings.assign(label=listings.vendor)
    table = table[table.label.isin(table.label.value_counts().index[:3])].reset_index(drop=True)

    def run(image_arch, **pictures):
        seed_everything(0)
        dls = ClassifyDataLoaders.from_df(table, demo_path()/'images', title_col=None, fold_col='fold', bs=16,
                                          num_workers=0, phash=False, **pictures)
        seed_everything(1)
        learner = classify_learner(dls, image_arch)
        with learner.no_bar(), learner.no_logging(): learner.fit(2, 1e-2)
        return learner.predictions()[list(dls.vocab)].to_numpy()
    encoded = run(Still(encoder), item_tfms=Resize(SIZE))
    np.testing.assert_allclose(run(None, frame_features=frozen(encoder)), encoded, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('options, words', [
    (dict(item_tfms=Resize(SIZE)), 'item_tfms: pictures are encoded once'),
    (dict(batch_tfms=augs('colour')), 'batch_tfms: pictures are encoded once'),
    (dict(store=True), 'store: pictures are encoded once'),
    (dict(image_col=None), r'frame_features: there are no images \(image_col=None\)'),
    (dict(frame_features='lite0'), "frame_features='lite0': give FrameFeatures")])
def test_options_that_would_do_nothing(encoder, listings, options, words):
    with pytest.raises(InputError, match=words): loaders(listings, frozen(encoder), **options)


def test_what_does_not_fit_is_told(encoder, listings):
    dls = loaders(listings, frozen(encoder), text_col=None)
    with pytest.raises(InputError, match='parts: frame_features are of whole pictures'):
        match_learner(dls, None, parts='pcb')
    learner = match_learner(dls)
    with pytest.raises(InputError, match='tta=True: features of pictures have no mirror image'):
        learner.embeddings(tta=True)
    with pytest.raises(InputError, match='features of pictures .*, not a batch .2, 3, 32, 32.'):
        learner.model.features(torch.zeros(2, 3, 32, 32))
    with pytest.raises(InputError, match='dls hold pictures, and the model reads features of pictures'):
        learner.dls = loaders(listings, text_col=None)
    with pytest.raises(InputError, match='of another encoder, size or method'):
        learner.dls = loaders(listings, FrameFeatures(encoder, 48, device='cpu'), text_col=None)
    mirrored = loaders(listings, frozen(encoder, mirror=True), text_col=None)
    with pytest.raises(InputError, match='mirror=True.*check_matcher=False trains all the same'):
        match_learner(mirrored)
    other = match_learner(mirrored, check_matcher=False)
    with pytest.raises(InputError, match='a matcher does not repeat'): other.encoder()
    titles = loaders(listings, frozen(encoder))
    with pytest.raises(InputError, match="fusion='double' joins frames and text: .*frames=2 or more"):
        match_learner(titles, None, Letters(), fusion='double')
