"What fastai is before and after `fastmatch.all` patches it, each in a process of its own."
import subprocess
import sys


def run_python(code):
    "What a process of its own prints."
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_learners_and_optimizers_leaves_fastai_alone():
    code = '''
from fastai.learner import Learner
before = Learner.create_opt
import fastmatch.optim, fastmatch.learner
print(Learner.create_opt is before, Learner.create_opt.__module__)
'''
    assert run_python(code) == ['True', 'fastai.learner']


PLAIN_LEARNER = '''
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from torch import nn
def told(opt_func):
    loader = DataLoader([(0, 0)] * 4, bs=2)
    model = nn.Sequential(nn.Embedding(4, 3), nn.GroupNorm(1, 3))
    learn = Learner(DataLoaders(loader, loader), model, nn.MSELoss(), opt_func=opt_func)
    learn.create_opt()
    return [sorted(learn.opt.state[param]) for param in learn.model.parameters()]
'''


def test_all_patches_every_learner_once():
    code = PLAIN_LEARNER + '''
from fastmatch.optim import ranger
# of GroupNorm fastai spares the bias only
print(told(ranger) == [[], [], ['do_wd']])
import fastmatch.all
print(told(ranger) == [['do_gc'], ['do_wd'], ['do_wd']])
from fastai.optimizer import ranger as fastais
print(told(fastais) == [[], [], ['do_wd']])
patched = Learner.create_opt
fastmatch.all.patch_fastai()
print(Learner.create_opt is patched)
'''
    assert run_python(code) == ['True'] * 4
