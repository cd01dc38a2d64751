"Options by keyword: each goes to the object that has such a field, and an unknown one names the nearest."
from dataclasses import dataclass

import pytest

from fastmatch.core import InputError
from fastmatch.study.engine.options import StudyOptions, TrainingStudyOptions, read_options


@dataclass(frozen=True)
class Choices:
    hows: tuple = ('mean',)


def search(embeddings, n_trials=3, **options):
    return read_options(search, options, Choices(), StudyOptions('rule'))


def test_each_keyword_finds_its_object():
    assert search(None) == [Choices(), StudyOptions('rule')]
    given = {'hows': ('union',), 'seed': 3, 'storage': 'a.db'}
    assert search(None, **given) == [Choices(('union',)), StudyOptions('rule', 'a.db', seed=3)]
    assert given.keys() == {'hows', 'seed', 'storage'}


@pytest.mark.parametrize('keyword, nearest', [
    ('how', 'hows'), ('n_trial', 'n_trials'), ('study_nam', 'study_name')])
def test_an_unknown_keyword_names_the_nearest(keyword, nearest):
    with pytest.raises(InputError) as error: search(None, **{keyword: 1})
    assert str(error.value) == f'{keyword}=1: no option of search (did you mean {nearest}?)'


def test_an_unknown_keyword_without_a_neighbor():
    with pytest.raises(InputError, match=r'^zzz=1: no option of search$'): search(None, zzz=1)


def test_trainings_have_defaults_of_their_own():
    options = TrainingStudyOptions()
    assert options.study_name == 'tune' and options.storage == 'fastmatch-studies.db'
    assert options.sampler == 'tpe' and options.pruner == 'hyperband' and options.seed == 0
    assert options.max_failed == .5 and options.echo is print
