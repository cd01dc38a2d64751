"Memory of a gradient that is used again: only when nobody holds the gradient any more."
import copy
import pickle

import pytest
import torch

from fastmatch.layers.gradient_memory import GradientMemory
from fastmatch.layers.heads import CosineHead


def test_memory_is_used_again_when_nothing_refers_to_it():
    memory, weight = GradientMemory(), torch.zeros(3, 2)
    first = memory.empty_like(weight)
    place, view = first.data_ptr(), first[1:]
    del first
    # a view holds the memory too
    second = memory.empty_like(weight)
    assert second.data_ptr() != place
    del view
    assert memory.empty_like(weight).data_ptr() == place
    assert second.shape == (3, 2) and second.dtype == torch.float32


def test_other_shapes_and_dtypes_get_their_own():
    memory = GradientMemory()
    assert memory.empty_like(torch.zeros(3, 2)).shape == (3, 2)
    assert memory.empty_like(torch.zeros(5, 2)).shape == (5, 2)
    assert memory.empty_like(torch.zeros(5, 2, dtype=torch.float64)).dtype == torch.float64
    assert memory.empty_like(torch.zeros(5, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
    # a transposed weight has a gradient in the usual order
    assert memory.empty_like(torch.zeros(2, 5).t()).is_contiguous()


def test_copies_and_files_hold_no_memory():
    memory = GradientMemory()
    memory.empty_like(torch.zeros(3, 2))
    assert copy.deepcopy(memory).arrays == [] == pickle.loads(pickle.dumps(memory)).arrays
    head = CosineHead(2, 3)
    assert list(head.state_dict()) == ['weight']


def gradient_of(head, embeddings):
    head(embeddings).cos.sin().sum().backward()


@pytest.mark.parametrize('held', [True, False])
def test_gradients_that_are_held_or_added_to_stay_right(held):
    torch.manual_seed(0)
    head = CosineHead(4, 6)
    batches = torch.randn(5, 3, 4)
    expected = []
    for batch in batches:
        # a head of its own for each, whose memory is new
        alone = CosineHead(4, 6)
        alone.load_state_dict(head.state_dict())
        gradient_of(alone, batch)
        expected.append(alone.weight.grad)
    gradients = []
    for batch in batches:
        gradient_of(head, batch)
        gradients.append(head.weight.grad if held else head.weight.grad.clone())
        head.weight.grad = None
    torch.testing.assert_close(gradients, expected)
    for batch in batches: gradient_of(head, batch)
    torch.testing.assert_close(head.weight.grad, sum(expected))


def test_a_training_step_maps_no_new_memory():
    head = CosineHead(4, 6)
    places = set()
    for _ in range(4):
        gradient_of(head, torch.randn(3, 4))
        places.add(head.weight.grad.data_ptr())
        head.weight.grad = None
    assert len(places) == 1
