"Which listings a model was trained on is known wherever its weights go; where it can't be, all count."
import copy

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import load_learner
from fastai.vision.augment import Resize

from fastmatch.callback.snapshots import average_weights, each_weights
from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import classify_learner, match_learner
from fastmatch.models import MatchNet
from fastmatch.models.registry import make_encoder


@pytest.fixture(scope='module')
def listings():
    sample = pd.read_csv(demo_path()/'listings.csv')
    is_first = sample.groupby('fold').label_group.transform(
        lambda groups: groups.isin(sorted(groups.unique())[:8]))
    sample = sample[is_first].reset_index(drop=True)
    return sample.assign(posting_id=range(len(sample)))


def make(listings, path, valid_fold=0):
    dls = MatchDataLoaders.from_df(listings, demo_path()/'images', title_col=None, fold_col='fold',
                                   valid_fold=valid_fold, item_tfms=Resize(32), bs=16, num_workers=0,
                                   phash=False)
    return match_learner(dls, 'test_resnet', pretrained=False, path=path)


def train(learner, **options):
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-4, **options)
    return learner


def flags(learner, df): return learner.embeddings(df).trained_on


@pytest.fixture(scope='module')
def trained(listings, tmp_path_factory): return train(make(listings, tmp_path_factory.mktemp('trained')))


def test_ids_are_the_same_in_any_type(trained):
    df = trained.dls.df
    wanted = ~trained.dls.is_valid
    for column in (df.posting_id.astype(str), df.posting_id.astype(float), df.posting_id.astype(object)):
        np.testing.assert_array_equal(flags(trained, df.assign(posting_id=column)), wanted)


@pytest.mark.parametrize('with_opt', [True, False])
def test_saved_weights_know_it(trained, listings, tmp_path, with_opt):
    wanted = ~trained.dls.is_valid
    weights_file = trained.save(tmp_path/'weights', with_opt=with_opt)
    again = make(listings, tmp_path).load(weights_file.with_suffix(''), with_opt=with_opt)
    np.testing.assert_array_equal(flags(again, again.dls.df), wanted)
    # saved once more, and without fastai
    torch.save(again.model.state_dict(), tmp_path/'plain.pth')
    by_hand = make(listings, tmp_path)
    by_hand.model.load_state_dict(torch.load(tmp_path/'plain.pth', weights_only=True))
    np.testing.assert_array_equal(flags(by_hand, by_hand.dls.df), wanted)
    # other weights, other listings
    fresh = make(listings, tmp_path)
    fresh.save('fresh')
    assert not flags(by_hand.load('fresh'), by_hand.dls.df).any()


def test_an_exported_learner_knows_it(trained, tmp_path):
    trained.export(tmp_path/'learn.pkl')
    with pytest.warns(UserWarning): again = load_learner(tmp_path/'learn.pkl')
    df = trained.dls.df
    np.testing.assert_array_equal(flags(again, df), ~trained.dls.is_valid)
    np.testing.assert_array_equal(flags(again, df.assign(posting_id=df.posting_id.astype(str))),
                                  ~trained.dls.is_valid)


def test_weights_that_do_not_tell_count_as_trained_on_all(trained, listings, tmp_path):
    plain = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    (tmp_path/'models').mkdir()
    torch.save(plain, tmp_path/'models'/'earlier.pth')
    learner = make(listings, tmp_path)
    with pytest.warns(UserWarning): learner.load('earlier')
    with pytest.warns(UserWarning, match='does not tell which listings'): embeddings = learner.embeddings()
    with pytest.raises(InputError, match='were trained on'): embeddings.refuse_trained_on('a rule')
    learner.save('later')
    assert make(listings, tmp_path).load('later').trained_on.unknown
    learner.trained_on.declare(learner.dls.train_df.posting_id)
    np.testing.assert_array_equal(flags(learner, learner.dls.df), ~learner.dls.is_valid)
    learner.trained_on.declare()
    assert not flags(learner, learner.dls.df).any()


class BreakOff(Callback):
    order = 90
    def after_step(self): raise KeyboardInterrupt


def test_an_epoch_that_was_broken_off_counts(listings, tmp_path):
    learner = make(listings, tmp_path)
    with pytest.raises(KeyboardInterrupt): train(learner, cbs=BreakOff())
    np.testing.assert_array_equal(flags(learner, learner.dls.df), ~learner.dls.is_valid)


def test_what_is_put_back_takes_its_record_along(listings, tmp_path):
    learner = make(listings, tmp_path)
    learner.largest_bs(stop=8)
    learner.lr_find(show_plot=False, num_it=12)
    learner.noise_scale(2)
    assert not flags(learner, learner.dls.df).any()
    with learner.no_bar(), learner.no_logging():
        learner.fit(1, 1e-4, cbs=SaveModelCallback('recall@1', fname='first', every_epoch=False))
        files = [learner.save('first')]
        other = make(listings, tmp_path, valid_fold=1)
        files.append(other.save('untrained'))
        for member, expected in zip(each_weights(other, files), (True, False)):
            assert flags(member, learner.dls.train_df).all() == expected
        assert not flags(other, other.dls.df).any()
        average_weights(other, files)
        np.testing.assert_array_equal(flags(other, learner.dls.df), ~learner.dls.is_valid)
        # trained again from the start
        best = make(listings, tmp_path)
        best.fit_to_best(1, 1e-4, monitor='recall@1', fit='fit')
        np.testing.assert_array_equal(flags(best, best.dls.df), ~best.dls.is_valid)


def load_part(learner, trained):
    learner.model.encoders['image'].load_state_dict(trained.model.encoders['image'].state_dict())


def load_all_encoders(learner, trained):
    learner.model.encoders.load_state_dict(trained.model.encoders.state_dict())


def put_model(learner, trained): learner.model = copy.deepcopy(trained.model)


@pytest.mark.parametrize('take_over', [load_part, load_all_encoders, put_model])
def test_parts_and_whole_models_know_it(trained, listings, tmp_path, take_over):
    learner = make(listings, tmp_path)
    take_over(learner, trained)
    np.testing.assert_array_equal(flags(learner, learner.dls.df), ~trained.dls.is_valid)
    # trained on the way on other listings
    other = train(make(listings, tmp_path, valid_fold=1))
    own = ~other.dls.is_valid
    take_over(other, trained)
    is_replaced = take_over is put_model
    np.testing.assert_array_equal(flags(other, other.dls.df),
                                  ~trained.dls.is_valid if is_replaced else own | ~trained.dls.is_valid)


def test_a_trained_encoder_is_known_in_another_learner(trained, listings):
    encoder = copy.deepcopy(trained.model.encoders['image'])
    learner = match_learner(trained.dls, encoder, pretrained=False)
    np.testing.assert_array_equal(flags(learner, learner.dls.df), ~trained.dls.is_valid)


def test_an_encoder_of_a_classifier_is_known(trained, listings, tmp_path):
    dls = ClassifyDataLoaders.from_df(listings.assign(label=listings.fold % 2), demo_path()/'images',
                                      title_col=None, item_tfms=Resize(32), bs=16, num_workers=0, phash=False)
    classifier = train(classify_learner(dls, 'test_resnet', pretrained=False))
    learner = make(listings, tmp_path)
    load_part(learner, classifier)
    wanted = np.isin(learner.dls.df.posting_id, dls.train_df.posting_id)
    np.testing.assert_array_equal(flags(learner, learner.dls.df), wanted)


@pytest.mark.parametrize('replace', [
    lambda learner, plain: learner.model.encoders['image'].load_state_dict(plain),
    lambda learner, plain: setattr(learner, 'model', bare_model(learner.model))])
def test_parts_and_models_that_do_not_tell_are_unknown(trained, listings, tmp_path, replace):
    learner = make(listings, tmp_path)
    plain = {name: tensor.clone() for name, tensor in trained.model.encoders['image'].state_dict().items()}
    replace(learner, plain)
    assert learner.trained_on.unknown
    learner.trained_on.declare(())
    assert not flags(learner, learner.dls.df).any()


def bare_model(model):
    image = make_encoder('image', 'test_resnet', False)
    return MatchNet(model.heads['image'].weight.shape[0], image)
