"""Training in two processes (over gloo, on the CPU) against one process with the batch of both, in float64:
every step has to be the same."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastmatch.layers.synchronized import desynchronize, synchronize

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]
SAME = ['arcface', 'triplet', 'tracked', 'similarity', 'looksam', 'pgd', 'classify']
ROOT = Path(__file__).resolve().parents[2]


def start(jobs, folder, bs, **environment):
    "A process that trains `jobs`."
    command = [sys.executable, '-W', 'ignore', '-m', 'tests.learner.distributed_job', jobs, folder, bs]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', **environment}
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def start_two(jobs, folder, **environment):
    "Two processes that train `jobs` together."
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    shared = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), ACCELERATE_USE_CPU='true')
    return [start(jobs, folder, 16, RANK=str(number), LOCAL_RANK=str(number), **shared, **environment)
            for number in range(2)]


def finish(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    "Of a job: (by one process, by the first of two, by the second)."
    folder = tmp_path_factory.mktemp('processes')
    jobs = ','.join(SAME)
    finish(start(jobs, folder, 32), *start_two(f'{jobs},sam', folder))
    return lambda what: [torch.load(folder/f'{what}_{of}.pt') for of in ('0_32', '0_16', '1_16')
                         if (folder/f'{what}_{of}.pt').exists()]


def largest_difference(first, second):
    assert list(first) == list(second)
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


@pytest.mark.parametrize('what', SAME)
def test_two_processes_are_one_with_the_doubled_batch(outcomes, what):
    one, *two = outcomes(what)
    assert one['steps'] == two[0]['steps'] >= 20
    for of_process in two:
        assert largest_difference(one['weights'], of_process['weights']) < 1e-6
        # of all validation listings, whichever process embedded them; train_loss is of a process's own rows
        assert of_process['scores'][1:] == pytest.approx(one['scores'][1:], abs=1e-9)
        assert of_process['after'] == pytest.approx(one['after'], abs=1e-9)


def test_the_weights_have_moved(outcomes):
    weights = outcomes('arcface')[0]['weights'], outcomes('similarity')[0]['weights']
    assert largest_difference(*weights) > 1e-2


def test_sam_goes_uphill_by_each_process_own_rows(outcomes):
    from tests.learner import distributed_job
    distributed_job.FOLDER, distributed_job.BS = Path('.'), 32
    torch.set_default_dtype(torch.float64)
    try: expected = naive_sam(distributed_job)
    finally: torch.set_default_dtype(torch.float32)
    for of_process in outcomes('sam'): assert largest_difference(expected, of_process['weights']) < 1e-9


def gradients(learn, weights, images, groups):
    return torch.autograd.grad(learn.loss_func(learn.model(images), groups), weights)


def naive_sam(distributed_job):
    "SAM whose way uphill is found on each half of a batch by itself; the gradients found there are averaged."
    from fastmatch.core import seed_everything
    seed_everything(0)
    learn = distributed_job.JOBS['sam']()
    weights = [weight for weight in learn.model.parameters() if weight.requires_grad]
    learn.model.train()
    for _ in range(4):
        for images, groups in learn.dls.train:
            found = []
            for half in (slice(0, 16), slice(16, 32)):
                batch = images[half], groups[half]
                uphill = gradients(learn, weights, *batch)
                length = torch.cat([each.flatten() for each in uphill]).norm()
                start = [weight.detach().clone() for weight in weights]
                with torch.no_grad():
                    for weight, each in zip(weights, uphill): weight += .5 / length * each
                found.append(gradients(learn, weights, *batch))
                with torch.no_grad():
                    for weight, before in zip(weights, start): weight.copy_(before)
            with torch.no_grad():
                for weight, first, second in zip(weights, *found):
                    is_head = any(weight is each for each in learn.model.heads.parameters())
                    weight -= .05 * (5. if is_head else .25) * (first + second) / 2
    return learn.model.state_dict()


@pytest.mark.parametrize('kill', ['epoch', 'saving'])
def test_a_training_goes_on_after_a_kill(tmp_path, kill):
    whole, broken = tmp_path/'whole', tmp_path/'broken'
    for folder in (whole, broken): folder.mkdir()
    killed = start_two('resume', broken, KILL=kill)
    finish(*start_two('resume', whole))
    # the other waits for the killed one, or is told that it is gone
    killed[1].wait(timeout=900)
    killed[0].kill()
    for process in killed: process.communicate()
    assert not (broken/'resume_1_16.pt').exists() and list(broken.glob('models/resume*'))
    finish(*start_two('resume', broken))
    for number in range(2):
        expected, found = (torch.load(folder/f'resume_{number}_16.pt') for folder in (whole, broken))
        assert largest_difference(expected['weights'], found['weights']) == 0
        assert expected['scores'][1:] == found['scores'][1:]


def test_layers_are_as_they_were_after_the_training():
    from timm.layers import BatchNormAct2d
    layer = BatchNormAct2d(4, act_layer=torch.nn.SiLU)
    values = torch.randn(6, 4, 3, 3)
    expected = layer(values)
    statistics = layer.running_mean.clone(), layer.running_var.clone()
    layer.reset_running_stats()
    synchronized = synchronize(layer)
    # one process by itself: the same layer
    torch.testing.assert_close(layer(values), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close((layer.running_mean, layer.running_var), statistics)
    desynchronize(synchronized)
    assert 'forward' not in layer.__dict__
    assert list(layer.state_dict()) == list(BatchNormAct2d(4).state_dict())
