"Importing changes nothing in fastai, the patch functions do: each seen in a process of its own."
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTS = '''
import warnings
warnings.filterwarnings('ignore')
from fastai.callback import schedule
from fastai.learner import Learner
own = Learner.fit_flat_cos
import fastmatch.schedule, fastmatch.callback.guard, fastmatch.learner
from fastmatch.learner.base import ListingLearner
OURS = ['fit_curve', 'fit_cos', 'fit_steps', 'fit_exp', 'fit_cycles', 'fit_plateau', 'fit_head_first',
        'fit_gradual', 'largest_bs', 'noise_scale', 'fit_to_best', 'each_weights', 'average_weights',
        'greedy_soup']
'''

UNTOUCHED = IMPORTS + '''
assert Learner.fit_flat_cos is own and own.__module__ == 'fastai.callback.schedule'
assert not [name for name in OURS if hasattr(Learner, name)]
assert ListingLearner.fit_flat_cos.__module__ == 'fastmatch.schedule.fit'
assert all(hasattr(ListingLearner, name) for name in OURS)
'''

PATCHED = IMPORTS + '''
from fastcore.docments import docments
from fastmatch.callback.learner_methods import patch_callbacks
from fastmatch.schedule import patch_schedules
patch_schedules()
patch_callbacks()
assert all(hasattr(Learner, name) for name in OURS)
for method in (Learner.fit_flat_cos, ListingLearner.fit_flat_cos):
    assert method.__module__ == 'fastmatch.schedule.fit' and 'cosine' in method.__doc__
    assert 'warm-up' in docments(method)['warmup']
assert 'data' in Learner.fit_to_best.__doc__ and docments(Learner.fit_to_best)['patience']
from fastmatch.optim import sgd
from tests.schedule.small import make_learner
small = make_learner(sgd)
learner = Learner(small.dls, small.model, small.loss_func, opt_func=sgd)
with learner.no_bar(), learner.no_logging():
    learner.fit_flat_cos(1, .1, warmup=.5)
    assert learner.fit_to_best(2, .1) in (0, 1)
'''


@pytest.mark.parametrize('script', [UNTOUCHED, PATCHED], ids=['imports change nothing', 'patched'])
def test_what_a_plain_learner_can_do(script):
    repository = Path(__file__).parents[2]
    finished = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, cwd=repository)
    assert finished.returncode == 0, finished.stderr
