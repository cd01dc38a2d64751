"Which weights are decayed and whose gradients centralized, for this package's Learners."
import pytest
import torch
from torch import nn

from fastmatch.layers.heads import CosineHead
from fastmatch.optim import adamw, opt_func, ranger, sgd
from fastmatch.optim.prepare import uncentralized_weights
from tests.optim.tiny import make_learner


@pytest.mark.parametrize('make_optimizer', [ranger, adamw, sgd, opt_func('lion')],
                         ids=['ranger', 'adamw', 'sgd', 'lion'])
@pytest.mark.parametrize('wd_bn_bias', [False, True])
def test_wd_bn_bias(make_optimizer, wd_bn_bias, tmp_path):
    "With gradients of zero only decay moves a weight."
    learner = make_learner(make_optimizer, tmp_path, wd=.5, wd_bn_bias=wd_bn_bias)
    learner.create_opt()
    learner.opt.set_hypers(lr=.1, wd=.5)
    parameters = list(learner.model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters: parameter.grad = torch.zeros_like(parameter)
    learner.opt.step()
    for parameter, earlier in zip(parameters, before):
        decayed = parameter.ndim > 1 or wd_bn_bias
        torch.testing.assert_close(parameter.detach(), earlier * (.95 if decayed else 1.))


@pytest.mark.parametrize('name', ['adamw', 'ranger', 'sgd', 'lion', 'lookahead_sgd'])
@pytest.mark.parametrize('bn_wd', [False, True])
def test_bn_wd_of_the_optimizer_is_carried(name, bn_wd, tmp_path):
    "It counts more than what the Learner was made with, and is there again after freezing."
    learner = make_learner(opt_func(name, bn_wd=bn_wd), tmp_path, wd=.5, wd_bn_bias=not bn_wd)
    learner.freeze()
    learner.unfreeze()
    learner.opt.set_hypers(lr=.1, wd=.5)
    parameters = list(learner.model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters: parameter.grad = torch.zeros_like(parameter)
    learner.opt.step()
    for parameter, earlier in zip(parameters, before):
        decayed = parameter.ndim > 1 or bn_wd
        torch.testing.assert_close(parameter.detach(), earlier * (.95 if decayed else 1.))


class Net(nn.Module):
    "An embedding, a linear layer, a scale of its own kind, and class centers."
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 5)
        self.norm = nn.GroupNorm(1, 5)
        self.scale = nn.Parameter(torch.ones(5, 1))
        self.head = CosineHead(5, 3)

    def forward(self, rows): return self.head(self.norm(self.body(self.emb(rows))) * self.scale[:, 0]).cos
    def param_groups(self): return {'all': list(self.parameters())}


def test_embeddings_and_centres_are_not_centralised():
    model = Net()
    uncentralized = {id(parameter) for parameter in uncentralized_weights(model)}
    assert uncentralized == {id(model.emb.weight), id(model.head.weight)}
    learner = make_learner(ranger, model=model)
    learner.create_opt()
    for parameter in model.parameters():
        parameter.grad = torch.arange(parameter.numel()).float().view(parameter.shape) + 1
    learner.opt.step()
    means = {name: parameter.grad.flatten(1).mean(1).abs().max().item()
             for name, parameter in model.named_parameters() if parameter.ndim > 1}
    assert means['body.weight'] < 1e-5
    # a gradient of one number a row, the scale's, would be gone altogether
    assert min(means['emb.weight'], means['head.weight'], means['scale']) > 1


def flags(learner):
    "Name -> what the optimizer was told of the weight."
    return {name: dict(learner.opt.state[parameter]) for name, parameter in learner.model.named_parameters()}


def test_norms_that_fastai_does_not_know_are_not_decayed():
    learner = make_learner(ranger, model=Net())
    learner.create_opt()
    flags_by_name = flags(learner)
    decayed = [name for name in flags_by_name if flags_by_name[name].get('do_wd', True)]
    assert decayed == ['scale', 'emb.weight', 'body.weight', 'head.weight']


def test_fastais_own_optimizers_are_left_alone():
    from fastai.optimizer import ranger as fastai_ranger
    learner = make_learner(fastai_ranger, model=Net())
    learner.create_opt()
    assert not any('do_gc' in told for told in flags(learner).values())
