"Training to the best epoch ends where the best epoch ended."
import numpy as np
import pytest
import torch
from fastai.callback.tracker import SaveModelCallback

from fastmatch.callback.averaging import EMA
from fastmatch.core import InputError
from fastmatch.optim import ranger
from tests.callback.small import BS, Items, N, Net, Steps, data, fit, learner, net, weights


@pytest.mark.parametrize('cbs', [lambda: [], lambda: [EMA(.5)]], ids=['plain', 'EMA'])
@pytest.mark.parametrize('fit_name', ['fit_flat_cos', 'fit_one_cycle'])
def test_trained_to_the_best_epoch(fit_name, cbs, tmp_path):
    "Bit for bit what fastai's SaveModel would have loaded."
    lr = {'fit_flat_cos': .6, 'fit_one_cycle': .8}[fit_name]
    saved = learner(Net(), ranger, tmp_path, shuffle=True)
    state = {name: value.clone() for name, value in saved.model.state_dict().items()}
    one = learner(net(), ranger, tmp_path, shuffle=True, cbs=cbs())
    one.model.load_state_dict(state)
    fit(one, fit_name, 5, lr, cbs=SaveModelCallback())
    best = int(np.argmin([row[1] for row in one.recorder.values]))
    two = learner(net(), ranger, tmp_path, shuffle=True, cbs=cbs())
    two.model.load_state_dict(state)
    assert fit(two, 'fit_to_best', 5, lr, fit=fit_name) == best
    assert len(two.recorder.values) == best + 1
    assert torch.equal(weights(one), weights(two))


def test_second_training_on_all_data():
    learn = learner(cbs=Steps())
    every = learner(n=2 * N).dls
    best = fit(learn, 'fit_to_best', 3, .05, dls=every, patience=2)
    assert learn.steps.n_steps == (best + 1) * 2 * N // BS and learn.dls is not every
    learn.dls.loaders[1] = learn.dls.valid.new(dataset=Items(data(4)))
    with pytest.raises(InputError, match='never better'): fit(learn, 'fit_to_best', 1, float('nan'))
