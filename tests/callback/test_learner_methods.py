"Training to the best epoch ends where the best epoch ended."
import numpy as np
import pytest
import torch
from fastai.callback.tracker import SaveModelCallback

from fastmatch.callback.averaging import EMA
from fastmatch.core import InputError
from fastmatch.optim import ranger
from tests.callback.small import BS, Items, N, Net, Steps, data, fit, make_learner, net, weights


@pytest.mark.parametrize('make_callbacks', [lambda: [], lambda: [EMA(.5)]], ids=['plain', 'EMA'])
@pytest.mark.parametrize('fit_name', ['fit_flat_cos', 'fit_one_cycle'])
def test_trained_to_the_best_epoch(fit_name, make_callbacks, tmp_path):
    "Bit for bit what fastai's SaveModel would have loaded."
    lr = {'fit_flat_cos': .6, 'fit_one_cycle': .8}[fit_name]
    start_learner = make_learner(Net(), ranger, tmp_path, shuffle=True)
    start_state = {name: value.clone() for name, value in start_learner.model.state_dict().items()}
    with_saved_best = make_learner(net(), ranger, tmp_path, shuffle=True, cbs=make_callbacks())
    with_saved_best.model.load_state_dict(start_state)
    fit(with_saved_best, fit_name, 5, lr, cbs=SaveModelCallback())
    best_epoch = int(np.argmin([row[1] for row in with_saved_best.recorder.values]))
    trained_to_best = make_learner(net(), ranger, tmp_path, shuffle=True, cbs=make_callbacks())
    trained_to_best.model.load_state_dict(start_state)
    assert fit(trained_to_best, 'fit_to_best', 5, lr, fit=fit_name) == best_epoch
    assert len(trained_to_best.recorder.values) == best_epoch + 1
    assert torch.equal(weights(with_saved_best), weights(trained_to_best))


def test_second_training_on_all_data():
    learner = make_learner(cbs=Steps())
    all_dls = make_learner(n_items=2 * N).dls
    best_epoch = fit(learner, 'fit_to_best', 3, .05, dls=all_dls, patience=2)
    assert learner.steps.n_steps == (best_epoch + 1) * 2 * N // BS and learner.dls is not all_dls
    learner.dls.loaders[1] = learner.dls.valid.new(dataset=Items(data(4)))
    with pytest.raises(InputError, match='never better'): fit(learner, 'fit_to_best', 1, 1e38)
