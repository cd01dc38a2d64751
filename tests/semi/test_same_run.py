"A changed number, constant or function is noticed; comments, names of files and the hash seed are not."
import os
import subprocess
import sys
from functools import partial

import pytest

from fastmatch.semi.same_run import code_of, digest_of, is_same_code

BASE = """
RATE = 1e-3
OPTIONS = {'bs': 16}
def inner(learner): return learner.fit(4)
def fit(learner, wd=.1):
    if learner in {'a', 'b', 'c'}: return inner(learner)
    return learner.fit(3, RATE, **OPTIONS, cb=lambda: 5)
"""


def made(source, name='one'):
    space = {'__name__': name}
    exec(compile(source, f'{name}.py', 'exec'), space)
    return space['fit']


@pytest.mark.parametrize('change', [
    ('1e-3', '2e-3'), ("{'bs': 16}", "{'bs': 8}"), ('fit(4)', 'fit(5)'), ('fit(3,', 'fit(2,'),
    ('lambda: 5', 'lambda: 6'), ('wd=.1', 'wd=.2'), ("'c'}", "'d'}"), ('cb=lambda', 'cbs=lambda')])
def test_changes_are_noticed(change):
    assert change[0] in BASE
    assert not is_same_code(code_of(made(BASE)), code_of(made(BASE.replace(*change))))


def test_what_makes_no_difference():
    commented = BASE.replace('    if', '    # why\n    if').replace('RATE = ', '\n\n# the rate\nRATE = ')
    assert code_of(made(commented, 'two')) == code_of(made(BASE))
    # code of another version of Python can't be compared
    assert is_same_code({**code_of(made(BASE)), 'python': '3.0'}, code_of(made(BASE.replace('3,', '4,'))))


def test_closures_partials_and_circles():
    def outer(rate):
        def fit(learner): return learner.fit(1, rate) if learner else fit(1)
        return fit
    assert code_of(outer(1)) == code_of(outer(1)) != code_of(outer(2))
    fit = made(BASE)
    assert code_of(partial(fit, wd=1)) == code_of(partial(fit, wd=1)) != code_of(partial(fit, wd=2))
    assert code_of(len) == code_of(len)


@pytest.mark.slow
def test_the_same_in_every_process():
    "Sets of texts come in another order with every hash seed."
    program = 'from tests.semi.test_same_run import *; print(code_of(made(BASE))["sha256"])'
    ended = subprocess.run([sys.executable, '-W', 'ignore', '-c', program], capture_output=True, text=True,
                           check=True, env={**os.environ, 'PYTHONHASHSEED': '12'})
    assert ended.stdout.strip() == code_of(made(BASE))['sha256']


def test_rows_in_any_order():
    assert digest_of([1, 2], ['a', 'b']) == digest_of(['2', 1], ['b', 'a']) != digest_of([1, 2], ['b', 'a'])
