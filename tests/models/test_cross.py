"The cross-encoder: learns, repeats, reads pairs either way round, and is saved without pickle."
import random

import numpy as np
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.data.augment import TextChanges
from fastmatch.models.cross import CrossEncoder
from fastmatch.models.sentence import PromptTokenizer
from tests.models.needs import has_minilm

WORDS = 'red blue green bag shoe lamp desk sony lg 100 200 300'.split()
LETTERS = [chr(code) for code in range(ord('a'), ord('z') + 1)] + list('0123456789|:')


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A BERT of two thin layers with random weights and a vocabulary of a few words, as a folder."
    from transformers import BertConfig, BertModel, BertTokenizerFast
    folder = tmp_path_factory.mktemp('cross')/'tiny'
    folder.mkdir()
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS, *LETTERS,
                  *(f'##{letter}' for letter in LETTERS)]
    (folder/'vocab.txt').write_text('\n'.join(vocabulary))
    tokenizer = BertTokenizerFast(str(folder/'vocab.txt'))
    tokenizer.model_max_length = 64
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=64)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def pairs(n=96, seed=0):
    "Pairs of three words; those that match are the same words in another order."
    rng = random.Random(seed)
    first, second, same = [], [], []
    for number in range(n):
        words = rng.sample(WORDS, 3)
        others = words if number % 2 else [word for word in WORDS if word not in words]
        others = rng.sample(others, 3)
        first.append(' '.join(words))
        second.append(' '.join(others))
        same.append(bool(number % 2))
    return first, second, np.array(same)


@pytest.fixture(scope='module')
def fitted(tiny): return CrossEncoder(tiny, max_len=32).fit(*pairs(), epochs=2, lr=1e-3, seed=3)


def test_it_learns(tiny):
    first, second, same = pairs(256, 5)
    learned = CrossEncoder(tiny, max_len=32).fit(first, second, same, epochs=30, lr=3e-3, bs=16)
    scores = learned.scores(first, second)
    assert scores.dtype == np.float32 and ((scores >= .5) == same).mean() > .9


def test_the_same_seed_gives_the_same_bits(tiny, fitted):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = CrossEncoder(tiny, max_len=32).fit(*pairs(), epochs=2, lr=1e-3, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    first, second, _ = pairs(30, 1)
    np.testing.assert_array_equal(again.scores(first, second), fitted.scores(first, second))
    assert again.fingerprint == fitted.fingerprint
    # fitted anew it starts where it started, and another seed draws other numbers
    again.fit(*pairs(), epochs=2, lr=1e-3, seed=3)
    assert again.fingerprint == fitted.fingerprint
    assert again.fit(*pairs(), epochs=1, seed=4).fingerprint != fitted.fingerprint


def test_pairs_have_no_direction_and_no_order(fitted):
    first, second, _ = pairs(30, 1)
    scores = fitted.scores(first, second)
    np.testing.assert_array_equal(fitted.scores(second, first), scores)
    one_by_one = [fitted.scores([one], [other])[0] for one, other in zip(first, second)]
    np.testing.assert_allclose(scores, one_by_one, atol=1e-6)
    np.testing.assert_allclose(fitted.scores(first, second, bs=7), scores, atol=1e-6)
    assert fitted.scores([], []).shape == (0,)


def test_saved_and_loaded_it_scores_the_same(fitted, tmp_path):
    fitted.save(tmp_path/'saved')
    fitted.save(tmp_path/'saved')
    loaded = CrossEncoder.load(tmp_path/'saved')
    first, second, _ = pairs(30, 1)
    np.testing.assert_array_equal(loaded.scores(first, second), fitted.scores(first, second))
    assert loaded.fingerprint == fitted.fingerprint and loaded.max_len == 32
    files = [file for file in (tmp_path/'saved').rglob('*') if file.is_file()]
    assert {file.suffix for file in files} <= {'.json', '.safetensors', '.txt', '.jinja'}
    loaded.save(tmp_path/'again')
    assert CrossEncoder.load(tmp_path/'again').fingerprint == fitted.fingerprint
    weights = next(file for file in files if file.suffix == '.safetensors')
    weights.write_bytes(weights.read_bytes()[:-1] + b'x')
    with pytest.raises(InputError, match='damaged'): CrossEncoder.load(tmp_path/'saved')
    with pytest.raises(InputError, match='missing'): CrossEncoder.load(tmp_path/'nowhere')


def test_long_texts_lose_words_of_the_longer_one(fitted):
    long, short = ' '.join(WORDS * 5), 'red bag lamp'
    ids, which = fitted._tokens([long], [short])[0]
    assert len(ids) == 32
    # all of the short one is there, with what stands around both
    kept = fitted.tokenizer.decode(ids)
    assert short in kept and kept.count('[SEP]') == 2 and set(which) == {0, 1}
    assert fitted.scores([long], [short]).shape == (1,)


def test_probabilities_may_be_targets(tiny):
    first, second, same = pairs()
    hard = CrossEncoder(tiny).fit(first, second, same, epochs=1)
    soft = CrossEncoder(tiny).fit(first, second, same.astype(float), epochs=1)
    assert hard.fingerprint == soft.fingerprint
    unsure = CrossEncoder(tiny).fit(first, second, np.where(same, .8, .1), epochs=1)
    assert unsure.fingerprint != hard.fingerprint


def test_augmentation_repeats_by_seed(tiny):
    def made(seed, augment=None):
        return CrossEncoder(tiny).fit(*pairs(), epochs=1, seed=seed, augment=augment).fingerprint
    change = TextChanges(.5, 1.)
    assert made(0, change) == made(0, change) != made(0)


def test_epochs_are_told(tiny):
    lines = []
    CrossEncoder(tiny).fit(*pairs(), epochs=2, echo=lines.append)
    assert len(lines) == 2 and 'epoch 2 of 2' in lines[1]


def test_what_is_wrong_is_named(tiny, fitted):
    first, second, same = pairs(4)
    new = CrossEncoder(tiny)
    with pytest.raises(InputError, match='not fitted'): new.scores(first, second)
    with pytest.raises(InputError, match='not fitted'): new.save('anywhere')
    with pytest.raises(InputError, match='not fitted'): str(new.fingerprint)
    for empty in ('', '  ', None, 3):
        with pytest.raises(InputError, match=r'second: no text in 1 pairs: rows 2'):
            fitted.scores(first, [*second[:2], empty, second[3]])
    with pytest.raises(InputError, match='4 first texts, 3 second'): fitted.scores(first, second[:3])
    with pytest.raises(InputError, match='one kind'): new.fit(first, second, [True] * 4)
    with pytest.raises(InputError, match='shape'): new.fit(first, second, [True])
    with pytest.raises(InputError, match='0 to 1'): new.fit(first, second, [0, 1, 2, 0])
    with pytest.raises(InputError, match='epochs=0'): new.fit(first, second, same, epochs=0)
    with pytest.raises(InputError, match='bs=0'): new.fit(first, second, same, bs=0)
    with pytest.raises(InputError, match='lr=0'): new.fit(first, second, same, lr=0)
    with pytest.raises(InputError, match='max_len=2'): CrossEncoder(tiny, max_len=2)


def test_a_prompt_stands_before_the_pair_once(fitted):
    plain = fitted.tokenizer
    prompted = PromptTokenizer(plain, 'RED ', lower=True)
    read = prompted(['Bag'], ['LAMP'], max_length=9)['input_ids']
    assert read == plain(['red bag'], ['lamp'], max_length=9)['input_ids']


@has_minilm
def test_minilm_is_the_default():
    assert CrossEncoder().name == 'all-MiniLM-L6-v2'
