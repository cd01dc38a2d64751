"Snapshots at the ends of cycles, means of saved weights and soups of them."
import numpy as np
import pytest
import torch

from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.snapshots import Snapshots
from fastmatch.core import InputError
from tests.callback.small import everything, fit, learner, weights
from tests.callback.test_averaging import Trace, floats


def test_snapshots_at_the_ends_of_cycles(tmp_path):
    learn = learner(cbs=[Snapshots(), Trace()], path=tmp_path)
    fit(learn, 'fit_cycles', 3, 1, .05, warmup=1)
    files = learn.snapshots.files
    assert [file.name for file in files] == ['snapshot_0.pth', 'snapshot_1.pth', 'snapshot_2.pth']
    own = everything(learn)
    for i, member in enumerate(learn.each_weights(files)):
        assert torch.equal(floats(member.model), learn.trace.done[i + 1])
    assert torch.equal(everything(learn), own)
    # a warm-up and one fall are one cycle
    fit(learn, 'fit_flat_cos', 2, .05, warmup=.5)
    assert len(learn.snapshots.files) == 1


@pytest.mark.parametrize('make', [lambda: EMA(.7), lambda: SWA(.5)], ids=['EMA', 'SWA'])
def test_snapshots_beside_an_average(make, tmp_path):
    "The live weights at the ends of cycles, the average in the last file."
    learn = learner(cbs=[make(), Snapshots(), Trace()], path=tmp_path)
    fit(learn, 'fit_cycles', 3, 1, .05)
    *first, last = [floats(member.model) for member in learn.each_weights(learn.snapshots.files)]
    assert len(first) == 2 and all(map(torch.equal, first, learn.trace.done))
    assert torch.equal(last, floats(learn.model)) and not torch.equal(last, learn.trace.done[2])


def test_average_of_checkpoints_and_a_greedy_soup(tmp_path):
    learn = learner(path=tmp_path)
    files, flat = [], []
    for i in range(3):
        fit(learn, 'fit', 1, .05)
        files.append(learn.save(f'c{i}', with_opt=i == 1))
        flat.append(weights(learn).double())
    # one that spoils every mean it is in
    with torch.no_grad():
        for weight in learn.model.parameters(): weight.copy_(torch.randn_like(weight) * 3)
    bad = learn.save('bad', with_opt=False)
    learn.average_weights(files)
    torch.testing.assert_close(weights(learn).double(), torch.stack(flat).mean(0), rtol=1e-6, atol=1e-7)
    kept, score = fit(learn, 'greedy_soup', [bad, *files])
    assert bad not in kept and kept and abs(float(fit(learn, 'validate')[0]) - score) < 1e-6
    alone = []
    for _ in learn.each_weights([bad, *files]): alone.append(float(fit(learn, 'validate')[0]))
    assert [bad, *files][int(np.argmin(alone))] == kept[0]
    # nor do weights that are not finite, wherever they stand
    with torch.no_grad(): learn.model.head.bias.fill_(float('nan'))
    lost = learn.save('lost', with_opt=False)
    for i in range(4):
        with_lost = [*files[:i], lost, *files[i:]]
        assert fit(learn, 'greedy_soup', with_lost) == fit(learn, 'greedy_soup', files)
    with pytest.raises(InputError, match='valid_loss is NaN with each of 2 files'):
        fit(learn, 'greedy_soup', [lost, lost])
    with pytest.raises(InputError, match='records'): fit(learn, 'greedy_soup', files, monitor='recall')
    with pytest.raises(InputError, match='no files'): learn.average_weights([])
