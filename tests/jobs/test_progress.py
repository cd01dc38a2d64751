"Stages with their seconds, a line for each epoch, and a training whose loss is lost ends."
from types import SimpleNamespace

import pytest
import torch

from fastmatch.core import InputError
from fastmatch.jobs.progress import Stages, StepBar, epoch_logger


def test_stages_are_said_and_timed():
    lines = []
    seconds = {}
    stages = Stages(lines.append, seconds)
    with stages('data', 'reading'): pass
    assert lines == ['reading ...'] and stages.seconds is seconds and seconds['data'] >= 0


def test_a_line_for_each_epoch():
    lines = []
    learner = SimpleNamespace(epoch=0, recorder=SimpleNamespace(metric_names=['epoch', 'train_loss', 'time']))
    log_epoch = epoch_logger(learner, lines.append)
    log_epoch([0, 1.5, '00:01'])
    learner.epoch = 1
    log_epoch([1, 1.25, '00:01'])
    assert [line.split() for line in lines] == [['epoch', 'train_loss', 'time'], ['0', '1.5000', '00:01'],
                                                ['1', '1.2500', '00:01']]
    assert len({len(line) for line in lines}) == 1


def test_a_lost_loss_ends_the_training():
    step_bar = StepBar(.1)
    learner = SimpleNamespace(epoch=1, n_epoch=3, iter=4, training=True, dls=SimpleNamespace(train=range(9)),
                              loss=torch.tensor(1.))
    step_bar.learn = learner
    step_bar.before_train()
    step_bar.after_batch()
    assert step_bar.bar.total == 9
    learner.loss = torch.tensor(float('nan'))
    with pytest.raises(InputError, match=r'lr=0.1: the loss is nan in epoch 2, batch 5; lower the rate'):
        step_bar.after_batch()
    learner.training = False
    step_bar.after_batch()
    step_bar.after_train()
