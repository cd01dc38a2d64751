"Layers that are computed again: the same gradients and running statistics, and really computed again."
import copy

import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.models.checkpointing import checkpoint_layers
from fastmatch.models.image import ImageEncoder
from fastmatch.models.text import TitleEncoder


def tiny_bert():
    from transformers import BertConfig, BertModel
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
                        intermediate_size=32, hidden_dropout_prob=.1)
    return TitleEncoder('tiny', pad_id=0, body=BertModel(config))


def pictures(n=6): return torch.rand(n, 3, 48, 48)
def token_ids(n=6): return torch.randint(1, 50, (n, 9))


ENCODERS = {'convolutions': (lambda: ImageEncoder('test_efficientnet', pretrained=False), pictures),
            'transformer of patches': (lambda: ImageEncoder('test_vit3', pretrained=False, img_size=(48, 48)),
                                       pictures),
            'BERT': (tiny_bert, token_ids)}


def count_calls(encoder):
    "How often each module without parts of its own runs forward, a dict that fills."
    calls = {}
    for name, module in encoder.named_modules():
        def count(module, inputs, output, name=name): calls[name] = calls.get(name, 0) + 1
        if not list(module.children()): module.register_forward_hook(count)
    return calls


def step(encoder, inputs):
    torch.manual_seed(1)  # of dropout
    encoder.zero_grad()
    (encoder(inputs)**2 * torch.linspace(.5, 2, encoder.n_out)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()
            if parameter.grad is not None}


@pytest.mark.parametrize('name', ENCODERS)
def test_gradients_and_statistics_are_the_same(name):
    make, make_inputs = ENCODERS[name]
    torch.manual_seed(0)
    plain, inputs = make().train(), make_inputs()
    again = copy.deepcopy(plain)
    checkpoint_layers(again)
    calls, calls_again = count_calls(plain), count_calls(again)
    for _ in range(2): expected, actual = step(plain, inputs), step(again, inputs)
    assert set(expected) == set(actual) and expected
    for parameter_name, gradient in expected.items():
        torch.testing.assert_close(actual[parameter_name], gradient, rtol=1e-6, atol=1e-6)
    for (buffer_name, buffer), other in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(buffer, other), buffer_name
    # most layers ran twice as often
    twice = [calls_again[layer] == 2*n_calls for layer, n_calls in calls.items()]
    assert sum(twice) > .5*len(twice)
    # in evaluation nothing is computed again
    calls_again.clear()
    with torch.no_grad(): torch.testing.assert_close(again.eval()(inputs), plain.eval()(inputs))
    assert set(calls_again.values()) == {1}


def test_without_the_hold_statistics_would_move_twice():
    "What the hooks are for: timm alone lets BatchNorm see each batch twice."
    torch.manual_seed(0)
    plain = ImageEncoder('test_efficientnet', pretrained=False).train()
    timms_own = copy.deepcopy(plain)
    timms_own.body.set_grad_checkpointing(True)
    inputs = pictures()
    step(plain, inputs), step(timms_own, inputs)
    assert not all(map(torch.equal, plain.buffers(), timms_own.buffers()))


def test_an_encoder_that_can_not_is_told():
    with pytest.raises(InputError, match='checkpointing=True: Linear can not compute its layers again'):
        checkpoint_layers(nn.Linear(2, 2))
