"Which weights are decayed and whose gradients centralized, for this package's Learners."
import pytest
import torch
from torch import nn

from fastmatch.layers.heads import CosineHead
from fastmatch.optim import adamw, opt_func, ranger, sgd
from fastmatch.optim.prepare import uncentralized_weights
from tests.optim.tiny import learner


@pytest.mark.parametrize('func', [ranger, adamw, sgd, opt_func('lion')],
                         ids=['ranger', 'adamw', 'sgd', 'lion'])
@pytest.mark.parametrize('wd_bn_bias', [False, True])
def test_wd_bn_bias(func, wd_bn_bias, tmp_path):
    "With gradients of zero only decay moves a weight."
    learn = learner(func, tmp_path, wd=.5, wd_bn_bias=wd_bn_bias)
    learn.create_opt()
    learn.opt.set_hypers(lr=.1, wd=.5)
    params = list(learn.model.parameters())
    before = [param.detach().clone() for param in params]
    for param in params: param.grad = torch.zeros_like(param)
    learn.opt.step()
    for param, old in zip(params, before):
        decayed = param.ndim > 1 or wd_bn_bias
        torch.testing.assert_close(param.detach(), old * (.95 if decayed else 1.))


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
    net = Net()
    assert {id(param) for param in uncentralized_weights(net)} == {id(net.emb.weight), id(net.head.weight)}
    learn = learner(ranger, model=net)
    learn.create_opt()
    for param in net.parameters(): param.grad = torch.arange(param.numel()).float().view(param.shape) + 1
    learn.opt.step()
    means = {name: param.grad.flatten(1).mean(1).abs().max().item()
             for name, param in net.named_parameters() if param.ndim > 1}
    assert means['body.weight'] < 1e-5
    # a gradient of one number a row, the scale's, would be gone altogether
    assert min(means['emb.weight'], means['head.weight'], means['scale']) > 1


def flags(learn):
    "Name -> what the optimizer was told of the weight."
    return {name: dict(learn.opt.state[param]) for name, param in learn.model.named_parameters()}


def test_norms_that_fastai_does_not_know_are_not_decayed():
    learn = learner(ranger, model=Net())
    learn.create_opt()
    told = flags(learn)
    decayed = [name for name in told if told[name].get('do_wd', True)]
    assert decayed == ['scale', 'emb.weight', 'body.weight', 'head.weight']


def test_fastais_own_optimizers_are_left_alone():
    from fastai.optimizer import ranger as fastai_ranger
    learn = learner(fastai_ranger, model=Net())
    learn.create_opt()
    assert not any('do_gc' in told for told in flags(learn).values())
