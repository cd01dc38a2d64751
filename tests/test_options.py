"A misspelt option is refused by every public call that takes options by keyword, with the right one."
import inspect

import numpy as np
import pandas as pd
import pytest

import fastmatch.all as fm
from fastmatch.core import InputError, checks_options
from fastmatch.data import split, table
from tests.models.needs import has_minilm

TABLE = pd.DataFrame({'posting_id': list('abcd'), 'title': ['a bag', 'bag', 'a lamp', 'lamp'],
                      'label_group': [1, 1, 2, 2], 'label': [1, 1, 2, 2]})
LOSSES = [name for name, value in vars(fm).items() if inspect.isclass(value) and issubclass(value, fm.Loss)]
FIRST = {'CombinedMargin': (.9, .1, .1), 'HardRows': (fm.ArcFace(),), 'SumLoss': ({'a': fm.ArcFace()},)}


def learner(kind=fm.MatchDataLoaders, make=fm.match_learner, **kwargs):
    loaders = kind.from_df(TABLE, image_col=None, valid_fold=None, bs=2, num_workers=0, phash=False)
    return make(loaders, **kwargs)


@pytest.mark.parametrize('name', LOSSES)
def test_losses(name):
    makes = getattr(fm, name)
    if 'unknown' not in inspect.signature(fm.Loss).parameters or name == 'SumLoss': return
    with pytest.raises(InputError, match=r"reductoin='sum': no option of .*did you mean reduction\?"):
        makes(*FIRST.get(name, ()), reductoin='sum')


@pytest.mark.parametrize('kind', [fm.MatchDataLoaders, fm.ClassifyDataLoaders])
@pytest.mark.parametrize('slip, meant', [
    ({'smapler': 'pk'}, 'sampler'), ({'max_length': 16}, 'max_len'), ({'valid_pct': .5}, 'valid_fold'),
    ({'lable_col': 'vendor'}, 'label_col'), ({'batch_tfm': []}, 'batch_tfms'),
    ({'on_eror': 'skip'}, 'on_error'),
    ({'folds': 3}, 'n_folds'), ({'drop_lats': True}, 'drop_last'), ({'fold': 'fold'}, 'fold_col')])
def test_dataloaders(kind, slip, meant):
    with pytest.raises(InputError, match=f'no option of from_df .did you mean {meant}') as told:
        kind.from_df(TABLE, image_col=None, num_workers=0, **slip)
    assert str(told.value).startswith(next(iter(slip)))


def test_dataloaders_hand_fastais_options_on():
    loaders = fm.MatchDataLoaders.from_df(TABLE, image_col=None, valid_fold=None, bs=3, num_workers=0,
                                          phash=False, drop_last=True, pin_memory=False)
    assert len(loaders.train) == 1


@has_minilm
@pytest.mark.parametrize('kind, make', [(fm.MatchDataLoaders, fm.match_learner),
                                        (fm.ClassifyDataLoaders, fm.classify_learner)])
def test_learners(kind, make):
    for slip, meant in (({'los_func': 1}, 'loss_func'), ({'pretrain': False}, 'pretrained'),
                        ({'wd_bias': 1}, 'wd_bn_bias'), ({'poool': 'cls'}, 'pool'),
                        ({'head_fun': 1}, 'head_func')):
        with pytest.raises(InputError, match=f'no option of {make.__name__} .did you mean {meant}'):
            learner(kind, make, **slip)
    made = learner(kind, make, pretrained=False)
    for method in ('fit_one_cycle', 'fit_sgdr', 'fine_tune', 'fit_cos', 'fit_steps', 'fit_exp', 'fit_cycles',
                   'fit_plateau'):
        with pytest.raises(InputError, match=rf"cbss=\[\]: no option of {method} .did you mean cbs"):
            getattr(made, method)(1, *([1] if method == 'fit_sgdr' else []), cbss=[])


def test_a_matcher():
    rule = fm.Rule('mean', {'tfidf': 1.}, .5)
    matcher = fm.Matcher(rule, fm.Embeddings({'image': np.eye(4)}, list('abcd'), TABLE.title.tolist()))
    with pytest.raises(InputError, match='withn=True: no option of explain .did you mean within'):
        matcher.explain('a', withn=True)


def test_the_check_leaves_a_function_as_it_is():
    def reader(name, *, flag=False): "Not called."

    @checks_options(reader)
    def told(first, second=2, **kwargs):
        "Words."
        return first, second, kwargs

    assert told(1, flag=True) == (1, 2, {'flag': True}) and told.__doc__ == 'Words.'
    assert list(inspect.signature(told).parameters) == ['first', 'second', 'kwargs']
    with pytest.raises(InputError, match='flagg=True: no option of told .did you mean flag'):
        told(1, flagg=True)


EMBEDDINGS = fm.Embeddings({'image': np.eye(4, dtype=np.float32)}, list('abcd'), TABLE.title.tolist())
WEIGHTS = [fm.torch.nn.Parameter(fm.torch.zeros(2))]
# public call -> it, with an option that nobody has
SLIPS = {
    'BNNeck': lambda: fm.BNNeck(3, epss=1), 'Plateau': lambda: fm.Plateau(patiense=1),
    'adversarial_validation': lambda: fm.adversarial_validation(TABLE, TABLE, titel_col='x'),
    'check_listings': lambda: fm.check_listings(TABLE, titel_col='x'),
    'crop_to_product': lambda: fm.crop_to_product(TABLE, '.', None, 'cropped', margins=0),
    'components': lambda: split.components(TABLE, titel_col='x'),
    'group_folds': lambda: fm.group_folds(TABLE, imag_col='x'),
    'heldout_fused': lambda: fm.heldout_fused(fm.match.candidates(EMBEDDINGS.spaces()), TABLE.label,
                                              halvingss=2),
    'learner_maker': lambda: fm.learner_maker(None, loss_fun=1),
    'ranger': lambda: fm.ranger(WEIGHTS, 1e-3, betaa=1), 'rmsprop': lambda: rmsprop(alphaa=1),
    'ranger_adabelief': lambda: fm.ranger_adabelief(WEIGHTS, 1e-3, betaa=1),
    'recognise': lambda: table.recognise(TABLE, titel_col='x'), 'sgd': lambda: sgd(dampenin=1),
    'stratified_folds': lambda: fm.stratified_folds(TABLE, 'label', imag_col='x'),
    'train_and_judge': lambda: fm.train_and_judge(TABLE, '.', epoch=3),
    'with_attention': lambda: fm.with_attention('test_resnet', 'scse', 'layer2', pretrain=False),
    'with_ibn': lambda: fm.with_ibn('test_resnet', pretrain=False),
    'tune_head': lambda: fm.tune_head(EMBEDDINGS, TABLE.label, sampeler='x'),
    'tune_learner': lambda: fm.tune_learner(None, {}, 1, sampeler='x'),
    'tune_listings': lambda: fm.tune_listings(TABLE, '.', epoch=3),
    'tune_rule': lambda: fm.tune_rule(EMBEDDINGS, 3, sampeler='x')}
# those whose options have names of the user's own, or of an optimizer or function that is given: the place
# that is given them refuses
OWN_NAMES = {'Step', 'Wrapped', 'fit_to_best', 'opt_func', 'search_space', 'with_scores'}


def rmsprop(**options): return fm.rmsprop(WEIGHTS, 1e-3, **options)
def sgd(**options): return fm.sgd(WEIGHTS, 1e-3, **options)


@pytest.mark.parametrize('name', SLIPS)
def test_other_calls(name):
    with pytest.raises(InputError, match=r'no option.*did you mean \w+\?'): SLIPS[name]()


def test_every_public_call_with_options_is_on_a_list():
    takes_any = set()
    for name, value in (*vars(fm).items(), *vars(fm.match).items(), *vars(table).items()):
        is_ours = (getattr(value, '__module__', None) or '').startswith('fastmatch')
        is_error = inspect.isclass(value) and issubclass(value, Exception)
        if name.startswith('_') or not is_ours or not callable(value) or is_error: continue
        parameters = inspect.signature(value).parameters.values()
        if any(each.kind is each.VAR_KEYWORD for each in parameters): takes_any.add(name)
    # the classes get what their makers have checked
    learners = {'match_learner', 'classify_learner', 'pretrain_learner', 'segment_learner', 'MatchLearner',
                'ClassifyLearner', 'PretrainLearner', 'SegmentLearner'}
    assert takes_any - set(LOSSES) - set(SLIPS) - OWN_NAMES - learners == set()
