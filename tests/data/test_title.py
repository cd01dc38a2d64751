"Titles as token ids: decoded exactly, padded to the longest of the batch, cut at the limit."
from fastmatch.data.title import TensorTitle, Title, Tokenize
from fastmatch.models import load_tokenizer
from tests.data.batches import make_loaders, needs_titles, texts


def test_codepoints_decode_exactly(listings):
    odd_titles = ['Été ☕ 茶', 'a', 'two  blanks ', '🐵 monkey', 'x' * 300]
    changed = listings.assign(title=[*odd_titles, *listings.title[len(odd_titles):]])
    loaders = make_loaders(changed, fn_col=None)
    token_ids = loaders.test_dl(changed.head(5)).one_batch()[0]
    assert texts(loaders, token_ids) == [*odd_titles[:4], 'x' * 256] and token_ids.shape == (5, 256)


def test_titles_are_padded_to_the_longest_of_the_batch(listings):
    loaders = make_loaders(listings, fn_col=None, val_bs=5)
    start = 0
    for token_ids, _ in loaders.valid:
        expected = loaders.valid_df.title[start:start + 5]
        assert token_ids.shape[1] == expected.str.len().max()
        for title_ids, title in zip(token_ids, expected):
            assert title_ids[:len(title)].tolist() == [ord(letter) for letter in title]
            assert (title_ids[len(title):] == 0).all()
        start += 5


def test_max_len_cuts(listings):
    token_ids = make_loaders(listings, fn_col=None, max_len=2).train.one_batch()[0]
    assert token_ids.shape == (8, 8)  # a stand-in token is a character, four to a word piece


def test_an_empty_title_still_has_a_column():
    "Blank titles are refused by the check, but a listing to embed may have one."
    batch = [(Title(''), 1), (Title(''), 2)]
    tokenized = Tokenize().encodes(batch)
    assert [sample[0].tolist() for sample in tokenized] == [[0], [0]]
    assert [sample[1] for sample in tokenized] == [1, 2]
    assert all(isinstance(sample[0], TensorTitle) for sample in tokenized)
    assert [sample[0].tolist() for sample in Tokenize().encodes([(Title(''),), (Title('ab'),)])] == [
        [0, 0],
        [97, 98],
    ]
    assert Tokenize().encodes([(1, 2)]) == [(1, 2)]


@needs_titles
def test_word_pieces_decode_to_lower_case_words(listings):
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    changed = listings.assign(title=['A Red BAG', 'Ça va', 'one ' * 100, *listings.title[3:]])
    loaders = make_loaders(changed, fn_col=None)
    for loader in loaders.loaders: loader.before_batch.fs[0].tokenizer = tokenizer
    token_ids = loaders.test_dl(loaders.df).one_batch()[0]
    assert texts(loaders, token_ids)[:3] == ['a red bag', 'ca va', ' '.join(['one'] * 62)]
    assert token_ids.shape[1] == 64 and token_ids[0, 5:].eq(tokenizer.pad_token_id).all()
    assert token_ids[0, 0] == tokenizer.cls_token_id and token_ids[0, 4] == tokenizer.sep_token_id
    empty_ids = Tokenize(tokenizer).encodes([(Title(''),)])[0][0].tolist()
    # a missing text has no token
    assert empty_ids == [tokenizer.pad_token_id]
    assert len(Tokenize(tokenizer, 6).encodes([(Title('one ' * 9),)])[0][0]) == 6
