"Options by object and by keyword, their one set of defaults, and what is said of a wrong one."
import pytest
import typer

from fastmatch.cli import app
from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.jobs.options import (
    PICTURE_SIZE,
    RULES,
    SAMPLE_SIZE,
    RuleChoice,
    Search,
    Training,
    check_least,
    refuse_unknown,
    take_columns,
    with_keywords,
)
from fastmatch.jobs.train import train_and_judge
from fastmatch.jobs.tune import TRIAL, tune_listings


def defaults(command):
    "Option -> default of a command."
    return {option.name: option.default for option in typer.main.get_command(app).commands[command].params}


def test_one_picture_size_for_commands_and_functions():
    assert Training().size == TRIAL.size == PICTURE_SIZE == 224
    assert defaults('train')['size'] == defaults('tune')['size'] == PICTURE_SIZE
    # the sample's pictures are small: the demo says its own size
    assert SAMPLE_SIZE < PICTURE_SIZE and 'size' not in defaults('demo')


@pytest.mark.parametrize('command, options', [('train', Training()), ('tune', TRIAL)])
def test_commands_and_functions_share_their_defaults(command, options):
    field_of = dict(image_arch='image_arch', text_arch='text_arch', epochs='epochs', bs='bs', aug='aug',
                    folds='n_folds', seed='seed', on_error='on_error', workers='num_workers', device='device')
    command_defaults = defaults(command)
    wanted = {option: getattr(options, field) for option, field in field_of.items()}
    assert {option: command_defaults[option] for option in field_of} == wanted


def test_the_searchs_defaults():
    command_defaults = defaults('tune')
    search = Search()
    for option, field in dict(study='name', storage='storage', n_trials='n_trials', jobs='jobs',
                              monitor='monitor', sampler='sampler', pruner='pruner').items():
        assert command_defaults[option] == getattr(search, field)
    assert tuple(command_defaults['space'].split(',')) == search.space


def test_keywords_win_and_are_taken_out():
    keywords = dict(epochs=3, size=96, fn_col='photo', group_col='product', monitr='x')
    assert take_columns(Columns(title=None), keywords) == Columns(image='photo', title=None, group='product')
    assert with_keywords(Training(bs=8, size=64), keywords) == Training(bs=8, size=96, epochs=3)
    assert keywords == {'monitr': 'x'}


@pytest.mark.parametrize('keyword, near_name', [
    ('epohcs', 'epochs'), ('valid_fld', 'valid_fold'), ('titel_col', 'title_col'), ('fn_kol', 'fn_col')])
@pytest.mark.parametrize('job', [train_and_judge, tune_listings])
def test_an_unknown_keyword_and_its_near_name(job, keyword, near_name):
    if job is tune_listings and near_name == 'valid_fold': keyword, near_name = 'n_trails', 'n_trials'
    with pytest.raises(InputError, match=rf"{keyword}=7: no option \(did you mean {near_name}\?\)"):
        job(None, '.', **{keyword: 7})


def test_nothing_near_and_nothing_wrong():
    with pytest.raises(InputError, match='qqqq=1: no option$'): refuse_unknown({'qqqq': 1}, train_and_judge)
    refuse_unknown({}, train_and_judge)


@pytest.mark.parametrize('change, message', [
    (dict(epochs=0), 'epochs=0: give 1'), (dict(size=2), 'size=2: give 8'), (dict(bs=1), 'bs=1: give 2'),
    (dict(n_folds=2), 'n_folds=2: give 3'), (dict(num_workers=-1), 'num_workers=-1: give 0'),
    (dict(device='gpu'), "device='gpu'")])
def test_numbers_that_are_too_small(change, message):
    with pytest.raises(InputError, match=message): Training(**change).check(least_folds=3)
    Training(n_folds=2).check()
    with pytest.raises(InputError, match='jobs=0: give 1'): check_least(n_trials=(5, 1), jobs=(0, 1))


def test_the_choice_of_a_rule():
    for rule in RULES: RuleChoice(rule, .3).check()
    for share in (0, 1, .5, 0., 1.): RuleChoice(matchless=share).check()
    assert RuleChoice() == RuleChoice('ladder', None) and defaults('train')['rule'] == RuleChoice().rule
    assert defaults('demo')['rule'] == RuleChoice().rule and defaults('train')['matchless'] is None


@pytest.mark.parametrize('choice, message', [
    (dict(rule='optuna'), "rule='optuna': choose one of ladder, plain, tune"),
    (dict(matchless=-.1), 'matchless=-0.1: a share'), (dict(matchless=1.01), 'matchless=1.01: a share'),
    (dict(matchless=float('nan')), 'matchless=nan'), (dict(matchless='.3'), "matchless='.3'"),
    (dict(matchless=True), 'matchless=True'), (dict(n_trials=0), 'n_trials=0: give 1')])
def test_a_choice_that_can_not_be_made(choice, message):
    with pytest.raises(InputError, match=message): RuleChoice(**choice).check()
