"Learners with a fusion: pretraining, what goes on from it, objectives beside the loss, matching, refusals."
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import SchedLin
from fastai.learner import load_learner
from fastai.vision.augment import Resize

from fastmatch.callback.adversarial import FGM, PGD
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.heads import MarginSchedule
from fastmatch.callback.mix import MixUp
from fastmatch.callback.resume import Resume
from fastmatch.callback.saf import SAF
from fastmatch.callback.sharpness import SAM
from fastmatch.core import InputError, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.layers.heads import CosineHead
from fastmatch.learner import classify_learner, match_learner, pretrain_learner
from fastmatch.losses import ArcFace, FocalLoss
from fastmatch.models import FrameFeatures
from fastmatch.study import heldout_trial, learner_maker, search_space, tune_learner
from tests.data.made import noise
from tests.learner.test_frozen_features import Still

WORDS = 'red blue green bag shoe hat dress new old big small cheap'.split()
RATE = 1e-2


@pytest.fixture(scope='module')
def text_arch(tmp_path_factory):
    "A BERT of two thin layers with random weights and a vocabulary of a few words, as a folder."
    from transformers import BertConfig, BertModel, BertTokenizer
    folder = tmp_path_factory.mktemp('streams')/'tiny'
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS]
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=24, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=32, max_position_embeddings=40)
    BertModel(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for number in range(60): noise(16, 16, number).save(folder/f'{number}.png')
    return folder


def table(n=40, n_unlabelled=12, seed=0):
    "Items of two classes told by a word, with 0 to 3 pictures; the last ones without a class."
    rng = np.random.default_rng(seed)
    rows = []
    for item in range(n):
        label = ['bag', 'shoe'][item % 2]
        words = [*rng.choice(WORDS[:3], 2), label]
        names = [f'{number}.png' for number in rng.choice(60, item % 4, replace=False)]
        rows.append({'id': f'i{item}', 'photos': ' '.join(names) or None, 'title': ' '.join(words),
                     'more': str(rng.choice(WORDS[7:])) if item % 3 else None,
                     'label': label if item < n - n_unlabelled else None, 'fold': item // 4 % 4})
    return pd.DataFrame(rows)


@pytest.fixture(scope='module')
def features():
    seed_everything(0)
    return FrameFeatures('test_efficientnet', size=16, pretrained=False)


def loaders(pictures, features=None, **kwargs):
    options = dict(image_col='photos', title_col=['title', 'more'], id_col='id', fold_col='fold', frames=3,
                   bs=8, item_tfms=Resize(16), num_workers=0, phash=False, max_len={'title': 6, 'more': 4},
                   frame_features=features)
    with pytest.warns(UserWarning, match='12 listings without a group'):
        return ClassifyDataLoaders.from_df(table(), pictures, **{**options, **kwargs})


def quiet(learn, epochs=1, rate=RATE, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, rate, **kwargs)
    return learn


def check_it_goes_on(make, epochs, state_of):
    "A training that breaks off in its last epoch ends, by `Resume`, where an unbroken one does."
    class Breaks(Callback):
        def before_batch(self):
            if self.epoch == epochs - 1: raise KeyboardInterrupt
    whole = make()
    whole.remove_cb(Resume)
    quiet(whole, epochs)
    broken = make()
    with pytest.raises(KeyboardInterrupt): quiet(broken, epochs, cbs=[Breaks()])
    again = state_of(quiet(make(), epochs))
    for name, tensor in state_of(whole).items():
        torch.testing.assert_close(again[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('fusion', ['single', 'double'])
def test_a_fusion_learns_what_a_word_says(pictures, features, text_arch, fusion):
    dls = loaders(pictures, features)
    seed_everything(1)
    learn = quiet(classify_learner(dls, text_arch=text_arch, fusion=fusion, lr_mult={}), 18)
    assert learn.validate()[1] == 1
    assert list(learn.model.param_groups()) == ['title', 'fusion', 'head']
    predicted = learn.predictions(table().drop(columns='label'))
    assert predicted.label.tolist() == table().title.str.split().str[-1].tolist()


@pytest.mark.parametrize('fusion', ['single', 'double'])
def test_pictures_themselves_are_trained(pictures, text_arch, fusion):
    dls = loaders(pictures)
    learn = classify_learner(dls, 'test_efficientnet', text_arch, fusion=fusion,
                             pretrained={'image': False, 'title': True})
    parameters = list(learn.model.encoders['image'].parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    quiet(learn)
    moved = [not torch.equal(old, new) for old, new in zip(before, parameters)]
    assert np.mean(moved) > .9
    learn.show_worst(2)


CALLBACKS = {'sam': SAM, 'fgm': FGM, 'pgd': PGD, 'ema': EMA, 'swa': SWA, 'mixup': MixUp}


@pytest.mark.parametrize('objectives', [None, {'itc': .1, 'mlm': .1}])
@pytest.mark.parametrize('name', CALLBACKS)
def test_callbacks(pictures, features, text_arch, name, objectives):
    dls = loaders(pictures, None if name == 'mixup' else features)
    learn = classify_learner(dls, 'test_efficientnet', text_arch, fusion='single', cbs=[CALLBACKS[name]()],
                             objectives=objectives, pretrained={'image': False, 'title': True},
                             loss_func=FocalLoss())
    quiet(learn, 2)
    assert np.isfinite(learn.recorder.losses).all()
    assert np.isfinite(learn.validate()[0])


@pytest.mark.parametrize('fusion', ['single', 'double'])
def test_a_training_that_broke_off_goes_on(pictures, features, text_arch, tmp_path, fusion):
    def make():
        seed_everything(0)
        return classify_learner(loaders(pictures, features), text_arch=text_arch, fusion=fusion,
                                cbs=[Resume(tmp_path/'state'), FGM(), EMA()])

    check_it_goes_on(make, 2, lambda learn: learn.model.state_dict())

def test_rates_by_name_of_each_layer(pictures, features, text_arch):
    learn = classify_learner(loaders(pictures, features), text_arch=text_arch, fusion='single',
                             lr_mult={'text': .1, 'fusion': .5}, layer_decay=.5)
    names = list(learn.model.param_groups())
    layers = [name for name in names if name.startswith('title.')]
    assert names == [*layers, 'fusion', 'head'] and len(layers) > 2
    rates = {}

    class Rates(Callback):
        order = 66

        def before_step(self): rates.update(zip(names, [hypers['lr'] for hypers in self.opt.hypers]))
    quiet(learn, 1, 1e-2, cbs=[Rates()])
    # the text's tenth at its last layer, and half of it in each one below
    expected = [1e-3 * .5**depth for depth in reversed(range(len(layers)))]
    np.testing.assert_allclose(list(rates.values()), [*expected, 5e-3, 1e-2])


@pytest.mark.parametrize('fusion', ['single', 'double'])
def test_features_train_as_an_encoder_that_stands_still(pictures, features, text_arch, fusion):
    def run(image_arch, frame_features, **options):
        seed_everything(0)
        dls = loaders(pictures, frame_features, **options)
        seed_everything(1)
        learn = classify_learner(dls, image_arch, text_arch, fusion=fusion)
        quiet(learn, 2)
        return learn.predictions()[list(dls.vocab)].to_numpy()
    encoded = run(Still(features.encoder), None)
    np.testing.assert_allclose(run(None, features, item_tfms=None), encoded, rtol=1e-4, atol=1e-5)


def several_pictures():
    "Listings of 24 groups with one or two pictures each."
    df = table(48, 0)
    return pd.DataFrame({'posting_id': df.id, 'title': df.title, 'label_group': np.arange(48) // 2,
                         'image': [f'{item}.png|{item + 1}.png' if item % 2 == 0 else f'{item}.png'
                                   for item in range(48)],
                         'fold': np.arange(48) // 2 % 4})


@pytest.mark.parametrize('fusion', ['single', 'double'])
def test_a_study_over_a_fusion(pictures, features, text_arch, tmp_path, fusion):
    listings = several_pictures()
    dls = MatchDataLoaders.from_df(listings[listings.fold > 0], pictures, fold_col='fold', valid_fold=1,
                                   frames=2, bs=8, num_workers=0, phash=False, frame_features=features,
                                   max_len=30)
    test = listings[listings.fold == 0].reset_index(drop=True)
    study = tune_learner(learner_maker(dls, text_arch=text_arch, fusion=fusion),
                         search_space(lr=(1e-4, 1e-2, 'log')), 2, epochs=1, test=test,
                         storage=tmp_path/'studies.db')
    scores = [trial.value for trial in study.trials]
    assert len(scores) == 2 and all(0 <= score <= 1 for score in scores)
    assert 0 <= heldout_trial(study).mean <= 1


def test_an_objective_goes_on_beside_the_loss(pictures, features, text_arch):
    dls = loaders(pictures, features)
    seed_everything(0)
    learn = classify_learner(dls, text_arch=text_arch, fusion='double', objectives={'itc': .5})
    model, batch = learn.model.eval(), learn.dls.valid.one_batch()
    for part in (model, model.objectives): part.training = True
    output = model(*batch[:-1])
    assert set(output) == {'joint', 'itc'}
    expected = torch.nn.functional.cross_entropy(output['joint'], batch[-1]) + .5 * output['itc']
    torch.testing.assert_close(learn.loss_func(output, batch[-1]), expected)
    temperature = float(model.objectives.objectives['itc'].temperature)
    quiet(learn, 2)
    assert float(model.objectives.objectives['itc'].temperature) != temperature


def test_pretraining_reads_labelled_and_unlabelled_items(pictures, features, text_arch):
    dls = loaders(pictures, features)
    learn = pretrain_learner(dls, text_arch=text_arch)
    assert sorted(learn.pretrained_on) == sorted(table().id) and len(learn.left_out) == 0
    quiet(learn, 2)
    assert list(learn.model.objectives.weights) == ['mlm', 'mfm', 'itm', 'itc']
    some = pretrain_learner(dls, text_arch=text_arch, without_valid=True, objectives={'mlm': 1.})
    assert sorted(some.left_out) == sorted(dls.valid_df.id)
    assert sorted([*some.left_out, *some.pretrained_on]) == sorted(table().id)
    quiet(some)
    assert np.isfinite(some.validate()[0])


def test_what_was_learnt_goes_on(pictures, features, text_arch):
    dls = loaders(pictures, features)
    pre = quiet(pretrain_learner(dls, text_arch=text_arch))
    learn = classify_learner(dls, text_arch=text_arch, fusion='single')
    head = {name: tensor.clone() for name, tensor in learn.model.heads.state_dict().items()}
    assert learn.load_encoder_state(pre.encoder_state()) is learn
    state = learn.model.state_dict()
    for name, tensor in pre.encoder_state().items(): torch.testing.assert_close(state[name], tensor)
    torch.testing.assert_close(learn.model.heads.state_dict(), head)
    other = classify_learner(dls, text_arch=text_arch, fusion='double')
    with pytest.raises(InputError, match='other encoders or another fusion'):
        other.load_encoder_state(pre.encoder_state())


def test_pretraining_learns(pictures, features, text_arch):
    dls = loaders(pictures, features)
    seed_everything(0)
    learn = pretrain_learner(dls, text_arch=text_arch, objectives={'mlm': 1.}, lr_mult={})
    quiet(learn, 40, 3e-3)
    losses = [float(loss) for loss in learn.recorder.losses]
    assert np.mean(losses[-10:]) < .75 * np.mean(losses[:5])


def test_a_pretraining_that_broke_off_goes_on(pictures, features, text_arch, tmp_path):
    def make():
        seed_everything(0)
        return pretrain_learner(loaders(pictures, features), text_arch=text_arch,
                                cbs=[Resume(tmp_path/'state')],
                                objectives={'mlm': 1., 'mfm': 1., 'itm': 1., 'itc': 1.},
                                options={'itc': {'momentum': .9, 'queue': 16}})

    check_it_goes_on(make, 3, lambda learn: learn.encoder_state())

def test_matching_by_all_pictures_and_texts_of_a_listing(pictures, features, text_arch):
    listings = several_pictures()
    seed_everything(0)
    dls = MatchDataLoaders.from_df(listings, pictures, fold_col='fold', frames=2, bs=8, num_workers=0,
                                   phash=False, frame_features=features, max_len=30)
    learn = quiet(match_learner(dls, text_arch=text_arch, fusion='double'))
    embeddings = learn.embeddings()
    assert list(embeddings.keys()) == ['joint'] and embeddings['joint'].shape == (len(dls.valid_df), 24)
    again = learn.embeddings(dls.valid_df[['posting_id', 'image', 'title']])
    np.testing.assert_allclose(again['joint'], embeddings['joint'], atol=1e-5)
    learn.show_mistakes(1)
    with pytest.raises(InputError, match='it can not hold a fusion'): learn.encoder()


def test_bfloat16_on_a_processor_that_has_it(pictures, features, text_arch):
    from fastmatch.callback.half import has_bfloat16, has_matrix_units
    learn = classify_learner(loaders(pictures, features), text_arch=text_arch, fusion='single').to_bf16()
    if not has_bfloat16():
        with pytest.raises(InputError, match='this processor has no bfloat16'): quiet(learn)
        return
    dtypes = set()
    learn.model.encoders['title'].body.encoder.layer[0].output.dense.register_forward_hook(
        lambda module, given, output: dtypes.add(output.dtype))
    if has_matrix_units(): quiet(learn, 2)
    else:
        with pytest.warns(UserWarning, match='bfloat16 without AMX'): quiet(learn, 2)
    assert dtypes == {torch.bfloat16} and np.isfinite(learn.recorder.losses).all()
    assert all(parameter.dtype == torch.float32 for parameter in learn.model.parameters())


def test_refusals(pictures, features, text_arch):
    dls = loaders(pictures, features)

    def classify(**options): return classify_learner(dls, text_arch=text_arch, **options)
    with pytest.raises(InputError, match="fusion='triple': choose one of"): classify(fusion='triple')
    with pytest.raises(InputError, match="objectives are of frames and text together"):
        classify(objectives={'itc': 1.})
    with pytest.raises(InputError, match='mlmm.*did you mean mlm'):
        classify(fusion='single', objectives={'mlmm': 1.})
    with pytest.raises(InputError, match='weight is a number, 0 or above'):
        pretrain_learner(dls, text_arch=text_arch, objectives={'mlm': -1.})
    with pytest.raises(InputError, match='queue=4096: with 40 items'):
        pretrain_learner(dls, text_arch=text_arch,
                         options={'itc': {'momentum': .9, 'queue': 4096}})
    one_picture = loaders(pictures, max_len=8, image_col=None)
    with pytest.raises(InputError, match='frames=2 or more'):
        pretrain_learner(one_picture, text_arch=text_arch)
    with pytest.raises(InputError, match='joins frames and text'):
        classify_learner(one_picture, text_arch=text_arch, fusion='single')


def test_new_items_in_another_folder(pictures, features, text_arch, tmp_path):
    import shutil
    other = tmp_path/'other'
    other.mkdir()
    for file in pictures.iterdir(): shutil.copy(file, other/f'n{file.name}')
    new = table().drop(columns='label')
    cells = [cell if isinstance(cell, str) else '' for cell in new.photos]
    renamed = new.assign(photos=[' '.join(f'n{name}' for name in cell.split()) or None for cell in cells])
    for draw in (False, True):
        learn = classify_learner(loaders(pictures, features, frames=2, draw_frames=draw), text_arch=text_arch,
                                 fusion='double')
        here, there = learn.predictions(new), learn.predictions(renamed, other)
        np.testing.assert_allclose(there.prob, here.prob, atol=1e-5)


def test_features_have_no_further_views(pictures, features, text_arch):
    learn = classify_learner(loaders(pictures, features), text_arch=text_arch, fusion='single')
    with pytest.raises(InputError, match='tta=True: features of pictures have no mirror image'):
        learn.predictions(tta=True)


def test_learners_are_exported(pictures, features, text_arch, tmp_path):
    learn = quiet(classify_learner(loaders(pictures, features), text_arch=text_arch, fusion='single'))
    expected = learn.predictions(table().drop(columns='label'))
    learn.export(tmp_path/'classify.pkl')
    loaded = load_learner(tmp_path/'classify.pkl')
    found = loaded.predictions(table().drop(columns='label'))
    np.testing.assert_allclose(found.prob, expected.prob, atol=1e-5)
    # no picture's features are handed on
    assert len(pickle.loads(pickle.dumps(features))._vectors) == 0 and len(features._vectors) > 0
    with pytest.raises(InputError, match='hold no items'): loaded.show_attention()
    pretrain_learner(loaders(pictures, features), text_arch=text_arch).export(tmp_path/'pretrain.pkl')


def test_features_of_another_encoder_are_refused(pictures, features, text_arch):
    learn = classify_learner(loaders(pictures, features), text_arch=text_arch, fusion='single')
    others = FrameFeatures('test_efficientnet', size=24, pretrained=False)
    with pytest.raises(InputError, match='of another encoder, size or method'):
        learn.dls = loaders(pictures, others)
    with pytest.raises(InputError, match='dls hold pictures, and the model reads features'):
        learn.dls = loaders(pictures)


def test_attention_is_shown_where_there_is_any(pictures, features, text_arch):
    dls = loaders(pictures, features)
    pretrain_learner(dls, text_arch=text_arch).show_attention('i3')
    learn = classify_learner(dls, text_arch=text_arch, fusion='single')
    learn.show_attention()
    with pytest.raises(InputError, match="item='i0': it lacks frames"): learn.show_attention('i0')
    with pytest.raises(InputError, match="item='nobody'"): learn.show_attention('nobody')
    with pytest.raises(InputError, match="give fusion='single' or 'double'"):
        classify_learner(dls, text_arch=text_arch).show_attention()


def test_callbacks_look_through_objectives(pictures, features, text_arch):
    dls = loaders(pictures, features)
    learn = classify_learner(dls, text_arch=text_arch, fusion='single', objectives={'itc': .1},
                             loss_func=ArcFace(m=.1, s=10.), head_func=CosineHead)
    quiet(learn, 4, cbs=[MarginSchedule(SchedLin(.1, .3)), SAF(start=1, back=1)])
    assert np.isfinite(learn.recorder.losses).all() and learn.loss_func.loss.m == .1


def test_limits_that_the_text_encoder_can_not_read(pictures, features, text_arch):
    dls = loaders(pictures, features, max_len={'title': 30, 'more': 30})
    with pytest.raises(InputError, match=r'max_len: \(30, 30\) tokens and separators are 63'):
        classify_learner(dls, text_arch=text_arch, fusion='single')
