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
    learn = SimpleNamespace(epoch=0, recorder=SimpleNamespace(metric_names=['epoch', 'train_loss', 'time']))
    log = epoch_logger(learn, lines.append)
    log([0, 1.5, '00:01'])
    learn.epoch = 1
    log([1, 1.25, '00:01'])
    assert [line.split() for line in lines] == [['epoch', 'train_loss', 'time'], ['0', '1.5000', '00:01'],
                                                ['1', '1.2500', '00:01']]
    assert len({len(line) for line in lines}) == 1


def test_a_lost_loss_ends_the_training():
    bar = StepBar(.1)
    learn = SimpleNamespace(epoch=1, n_epoch=3, iter=4, training=True, dls=SimpleNamespace(train=range(9)),
                            loss=torch.tensor(1.))
    bar.learn = learn
    bar.before_train()
    bar.after_batch()
    assert bar.bar.total == 9
    learn.loss = torch.tensor(float('nan'))
    with pytest.raises(InputError, match=r'lr=0.1: the loss is nan in epoch 2, batch 5; lower the rate'):
        bar.after_batch()
    learn.training = False
    bar.after_batch()
    bar.after_train()
