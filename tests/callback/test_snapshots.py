"Snapshots at the ends of cycles, means of saved weights and soups of them."
import numpy as np
import pytest
import torch

from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.snapshots import Snapshots
from fastmatch.core import InputError
from tests.callback.small import everything, fit, make_learner, weights
from tests.callback.test_averaging import Trace, floats


def test_snapshots_at_the_ends_of_cycles(tmp_path):
    learner = make_learner(cbs=[Snapshots(), Trace()], path=tmp_path)
    fit(learner, 'fit_cycles', 3, 1, .05, warmup=1)
    files = learner.snapshots.files
    assert [file.name for file in files] == ['snapshot_0.pth', 'snapshot_1.pth', 'snapshot_2.pth']
    own_state = everything(learner)
    for cycle, member in enumerate(learner.each_weights(files)):
        assert torch.equal(floats(member.model), learner.trace.done[cycle + 1])
    assert torch.equal(everything(learner), own_state)
    # a warm-up and one fall are one cycle
    fit(learner, 'fit_flat_cos', 2, .05, warmup=.5)
    assert len(learner.snapshots.files) == 1


@pytest.mark.parametrize('make_average', [lambda: EMA(.7), lambda: SWA(.5)], ids=['EMA', 'SWA'])
def test_snapshots_beside_an_average(make_average, tmp_path):
    "The live weights at the ends of cycles, the average in the last file."
    learner = make_learner(cbs=[make_average(), Snapshots(), Trace()], path=tmp_path)
    fit(learner, 'fit_cycles', 3, 1, .05)
    members = learner.each_weights(learner.snapshots.files)
    *first_weights, last_weights = [floats(member.model) for member in members]
    assert len(first_weights) == 2 and all(map(torch.equal, first_weights, learner.trace.done))
    assert torch.equal(last_weights, floats(learner.model))
    assert not torch.equal(last_weights, learner.trace.done[2])


def test_average_of_checkpoints_and_a_greedy_soup(tmp_path):
    learner = make_learner(path=tmp_path)
    files, file_weights = [], []
    for i in range(3):
        fit(learner, 'fit', 1, .05)
        files.append(learner.save(f'c{i}', with_opt=i == 1))
        file_weights.append(weights(learner).double())
    # one that spoils every mean it is in
    with torch.no_grad():
        for weight in learner.model.parameters(): weight.copy_(torch.randn_like(weight) * 3)
    bad_file = learner.save('bad', with_opt=False)
    learner.average_weights(files)
    mean_weights = torch.stack(file_weights).mean(0)
    torch.testing.assert_close(weights(learner).double(), mean_weights, rtol=1e-6, atol=1e-7)
    kept_files, score = fit(learner, 'greedy_soup', [bad_file, *files])
    assert bad_file not in kept_files and kept_files
    assert abs(float(fit(learner, 'validate')[0]) - score) < 1e-6
    scores_alone = []
    for _ in learner.each_weights([bad_file, *files]): scores_alone.append(float(fit(learner, 'validate')[0]))
    assert [bad_file, *files][int(np.argmin(scores_alone))] == kept_files[0]
    # nor do weights that are not finite, wherever they stand
    with torch.no_grad(): learner.model.head.bias.fill_(float('nan'))
    lost_file = learner.save('lost', with_opt=False)
    for i in range(4):
        with_lost = [*files[:i], lost_file, *files[i:]]
        assert fit(learner, 'greedy_soup', with_lost) == fit(learner, 'greedy_soup', files)
    with pytest.raises(InputError, match='valid_loss is NaN with each of 2 files'):
        fit(learner, 'greedy_soup', [lost_file, lost_file])
    with pytest.raises(InputError, match='records'): fit(learner, 'greedy_soup', files, monitor='recall')
    with pytest.raises(InputError, match='no files'): learner.average_weights([])
