"Pseudo-labels as one more task of pretraining: the labels' loss beside objectives, on all items."
import numpy as np
import torch

from fastmatch.core import seed_everything
from fastmatch.learner import classify_learner
from fastmatch.semi import Everything, pseudo_label, with_pseudo_labels
from tests.learner.test_streams import features, loaders, pictures, text_arch  # noqa: F401


def test_a_second_task(pictures, features, text_arch):  # noqa: F811
    dls = loaders(pictures, features)
    seed_everything(0)
    options = {'text_arch': text_arch, 'fusion': 'single'}
    first = classify_learner(dls, **options)
    labels = pseudo_label(first, keep=Everything(), on_leak='skip')
    pre = classify_learner(with_pseudo_labels(dls, labels), objectives={'mlm': .8, 'itc': .5}, **options)
    with pre.no_bar(), pre.no_logging(): pre.fit(1, 1e-3)
    assert set(pre.trained_on.ids) == {*dls.train_df['id'], *labels['id']}
    assert np.isfinite(pre.recorder.losses).all()
    state = pre.encoder_state()
    assert state and not any(name.startswith(('heads', 'necks', 'objectives')) for name in state)
    learner = classify_learner(dls, **options).load_encoder_state(state)
    for name, tensor in learner.encoder_state().items(): torch.testing.assert_close(tensor, state[name])
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
