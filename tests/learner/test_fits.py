"fastai's own ways to train and to look at a Learner: right with ours, or one error that says what to call."
import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.interpret import ClassificationInterpretation, Interpretation
from fastai.learner import Learner
from fastai.vision.all import Resize

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import LR_MULT, classify_learner, match_learner
from fastmatch.models.layered import parameters_by_layer
from tests.learner.small import Rates

LOADERS = dict(path=demo_path()/'images', text_col=None, fold_col='fold', item_tfms=Resize(32), bs=16,
               num_workers=0, phash=False)


def make(kind, listings, folder=None, **kwargs):
    if kind == 'match': loaders, maker = MatchDataLoaders.from_df(listings, **LOADERS), match_learner
    else:
        loaders = ClassifyDataLoaders.from_df(listings, label_col='vendor', **LOADERS)
        maker = classify_learner
    return maker(loaders, 'test_resnet', pretrained=False, path=folder, **kwargs)


@pytest.fixture(scope='module', params=['match', 'classify'])
def learner(request, listings, tmp_path_factory):
    made = make(request.param, listings, tmp_path_factory.mktemp(request.param))
    with made.no_bar(), made.no_logging(): made.fit(1, 1e-3)
    return made


def first_row(learner): return learner.dls.valid_df.iloc[0]


# public method of a Learner -> how it is called
CALLS = {
    'validate': lambda learner: learner.validate(), 'get_preds': lambda learner: learner.get_preds(),
    'predict': lambda learner: learner.predict(first_row(learner)), 'tta': lambda learner: learner.tta(n=1),
    'show_results': lambda learner: learner.show_results(), 'summary': lambda learner: learner.summary(),
    'show_training_loop': lambda learner: learner.show_training_loop(),
    'save': lambda learner: learner.save('weights'),
    'load': lambda learner: learner.load(learner.save('weights').stem),
    'export': lambda learner: learner.export(), 'freeze': lambda learner: learner.freeze(),
    'freeze_to': lambda learner: learner.freeze_to(-1), 'unfreeze': lambda learner: learner.unfreeze(),
    'fit': lambda learner: learner.fit(1, 1e-4),
    'fit_one_cycle': lambda learner: learner.fit_one_cycle(1, 1e-4),
    'fit_flat_cos': lambda learner: learner.fit_flat_cos(1, 1e-4),
    'fit_sgdr': lambda learner: learner.fit_sgdr(1, 1, 1e-4),
    'fine_tune': lambda learner: learner.fine_tune(1, 1e-4),
    'lr_find': lambda learner: learner.lr_find(num_it=8, show_plot=False),
    'Interpretation': lambda learner: Interpretation.from_learner(learner).plot_top_losses(2),
    'most_confused': lambda learner: ClassificationInterpretation.from_learner(learner).most_confused(),
    'interpreted': lambda learner: Interpretation.from_learner(learner).show_results([0, 1]),
    'dl.show_results': lambda learner: learner.dls.valid.show_results(learner.dls.one_batch(), None),
    'show_batch': lambda learner: learner.dls.show_batch(max_n=2),
    'plot_loss': lambda learner: learner.recorder.plot_loss(),
    'plot_sched': lambda learner: learner.recorder.plot_sched()}
# public, but pieces of the calls above, or for other hardware
NOT_CALLED = {
    'metrics', 'add_cb', 'add_cbs', 'remove_cb', 'remove_cbs', 'added_cbs', 'removed_cbs', 'ordered_cbs',
    'create_opt', 'all_batches', 'one_batch', 'validation_context', 'no_logging', 'no_mbar', 'no_bar',
    'loss_not_reduced', 'to_detach', 'x', 'y',
    'to_fp16', 'to_fp32', 'to_bf16', 'to_non_native_fp16',
    'to_non_native_fp32', 'to_channelslast', 'to_contiguous', 'to_parallel', 'detach_parallel',
    'parallel_ctx', 'distrib_ctx', 'to_distributed', 'detach_distributed', 'to_ddp', 'detach_ddp',
    'get_x', 'get_y', 'dl'}
REFUSED = {'match': ('predict', 'tta', 'show_results', 'Interpretation', 'most_confused',
                     'interpreted', 'dl.show_results'),
           'classify': ('show_results', 'interpreted', 'dl.show_results')}


def test_every_public_method_of_fastais_learner_is_on_the_list():
    from fastai.callback.schedule import lr_find  # noqa: F401, the schedules are fastai's methods then
    public = {name for name, method in inspect.getmembers(Learner) if not name.startswith('_')
              and (getattr(method, '__module__', 'fastai') or '').startswith('fastai')}
    assert public - set(CALLS) - NOT_CALLED == set()


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.filterwarnings('ignore')
def test_it_works_or_says_what_to_call(learner, call):
    kind = type(learner).__name__.removesuffix('Learner').lower()
    with learner.no_bar(), learner.no_logging():
        if call not in REFUSED[kind]: CALLS[call](learner)
        else:
            with pytest.raises(InputError, match=r'learn\.\w+\('): CALLS[call](learner)
    learner.unfreeze()
    plt.close('all')


def test_predictions_of_a_match_learner_are_its_embeddings(listings):
    learner = make('match', listings)
    embeddings = learner.embeddings()
    found, groups = learner.get_preds()
    assert list(found) == ['image'] and len(learner.dls.valid.vocab) > groups.max()
    np.testing.assert_allclose(found['image'], embeddings['image'], atol=1e-6)
    assert [learner.dls.vocab[group] for group in groups] == list(embeddings.groups)
    inputs, again, _ = learner.get_preds(dl=learner.dls.test_dl(learner.dls.valid_df[:3]), with_input=True)
    assert len(inputs) == 3
    torch.testing.assert_close(again['image'], found['image'][:3], atol=1e-5, rtol=0)
    assert 'Total params' in learner.summary()


@pytest.mark.parametrize('kind', ['match', 'classify'])
@pytest.mark.parametrize('tracker', [SaveModelCallback, EarlyStoppingCallback, ReduceLROnPlateau])
def test_a_tracker_of_an_unknown_value_names_the_known_ones(listings, tmp_path, kind, tracker):
    learner = make(kind, listings, tmp_path)
    known = 'recall@1' if kind == 'match' else 'accuracy'
    words = f"{tracker.__name__}: monitor='nothing'.*'{known}'"
    with pytest.raises(InputError, match=words), learner.no_bar():
        learner.fit(1, 1e-3, cbs=tracker('nothing'))
    with learner.no_bar(), learner.no_logging():
        if kind == 'match':
            with pytest.raises(InputError, match="monitor='valid_loss'"): learner.fit(1, 1e-3, cbs=tracker())
        else: learner.fit(1, 1e-3, cbs=tracker())
        learner.fit(1, 1e-3, cbs=tracker(known))


@pytest.mark.parametrize('fit', ['fit', 'fit_one_cycle', 'fit_sgdr'])
def test_rates_by_name_in_fastais_methods(listings, tmp_path, fit):
    rates = Rates()
    learner = make('match', listings, tmp_path, cbs=rates)
    epochs = (1, 1) if fit == 'fit_sgdr' else (1,)
    by_name = {'image': 1e-3, 'head': 1e-2}
    with learner.no_bar(), learner.no_logging(): getattr(learner, fit)(*epochs, by_name)
    np.testing.assert_allclose([head / image for image, head in rates.seen], 10)
    with pytest.raises(InputError, match='fit_head_first'): learner.fine_tune(1, by_name)


def test_a_short_search_on_a_small_table(listings, tmp_path):
    learner = make('match', listings, tmp_path)
    seen = []
    class Count(Callback):
        def after_batch(self): seen.append(self.training)
    learner.add_cb(Count())
    with learner.no_bar(): learner.lr_find(show_plot=False, stop_div=False)
    assert sum(seen) == max(30, len(learner.dls.train)) < 100


def test_rates_that_fall_with_the_depth(listings, tmp_path):
    from timm.optim import param_groups_layer_decay
    rates = Rates()
    learner = match_learner(MatchDataLoaders.from_df(listings, **LOADERS), 'test_vit', pretrained=False,
                            path=tmp_path, cbs=rates, layer_decay=.5)
    groups = list(learner.model.param_groups())
    n_layers = len(groups) - 1
    assert groups == [*(f'image.{layer}' for layer in range(n_layers)), 'head']
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    expected = [1e-3 * LR_MULT['image'] * .5**(n_layers - 1 - layer) for layer in range(n_layers)]
    np.testing.assert_allclose(rates.seen[0], [*expected, 1e-3 * LR_MULT['head']])
    # the layers are timm's own
    body = learner.model.encoders['image'].body
    own = param_groups_layer_decay(body, layer_decay=.5)
    scale_of = {id(parameter): group['lr_scale'] for group in own for parameter in group['params']}
    for layer, parameters in enumerate(parameters_by_layer(learner.model.encoders['image'])):
        for parameter in parameters: assert scale_of[id(parameter)] == .5**(n_layers - 1 - layer)
    with pytest.raises(InputError, match='layer_decay=2'): make('classify', listings, layer_decay=2)


def test_layers_of_a_transformer():
    from transformers import BertConfig, BertModel

    from fastmatch.models import TitleEncoder
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=3, num_attention_heads=2,
                        intermediate_size=8)
    encoder = TitleEncoder('mine', pad_id=0, body=BertModel(config))
    layers = parameters_by_layer(encoder)
    parts = [encoder.body.embeddings, *encoder.body.encoder.layer]
    expected = [list(map(id, part.parameters())) for part in parts]
    assert [list(map(id, layer)) for layer in layers] == expected


def test_groups_of_ones_own(listings, tmp_path):
    rates = Rates()
    def halves(model):
        parameters = list(model.parameters())
        return [parameters[:5], parameters[5:]]
    learner = make('match', listings, tmp_path, splitter=halves, cbs=rates)
    with learner.no_bar(), learner.no_logging(): learner.fit(1, slice(1e-4, 1e-3))
    np.testing.assert_allclose(rates.seen[0], [1e-4, 1e-3])
    with pytest.raises(InputError, match='splitter: lr_mult and layer_decay'):
        make('classify', listings, splitter=halves, layer_decay=.5)
