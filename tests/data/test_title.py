"Titles as token ids: decoded exactly, padded to the longest of the batch, cut at the limit."
from fastmatch.data.title import TensorTitle, Title, Tokenize
from fastmatch.models import load_tokenizer
from tests.data.batches import make, needs_titles, texts


def test_codepoints_decode_exactly(listings):
    odd = ['Été ☕ 茶', 'a', 'two  blanks ', '🐵 monkey', 'x' * 300]
    df = listings.assign(title=[*odd, *listings.title[len(odd):]])
    dls = make(df, fn_col=None)
    ids = dls.test_dl(df.head(5)).one_batch()[0]
    assert texts(dls, ids) == [*odd[:4], 'x' * 256] and ids.shape == (5, 256)


def test_titles_are_padded_to_the_longest_of_the_batch(listings):
    dls = make(listings, fn_col=None, val_bs=5)
    at = 0
    for ids, _ in dls.valid:
        want = dls.valid_df.title[at:at + 5]
        assert ids.shape[1] == want.str.len().max()
        for row, t in zip(ids, want):
            assert row[:len(t)].tolist() == [ord(c) for c in t] and (row[len(t):] == 0).all()
        at += 5


def test_max_len_cuts(listings):
    ids = make(listings, fn_col=None, max_len=2).train.one_batch()[0]
    assert ids.shape == (8, 8)  # a stand-in token is a character, four to a word piece


def test_an_empty_title_still_has_a_column():
    "Blank titles are refused by the check, but a listing to embed may have one."
    batch = [(Title(''), 1), (Title(''), 2)]
    out = Tokenize().encodes(batch)
    assert [sample[0].tolist() for sample in out] == [[0], [0]] and [sample[1] for sample in out] == [1, 2]
    assert all(isinstance(sample[0], TensorTitle) for sample in out)
    assert [sample[0].tolist() for sample in Tokenize().encodes([(Title(''),), (Title('ab'),)])] == [
        [0, 0],
        [97, 98],
    ]
    assert Tokenize().encodes([(1, 2)]) == [(1, 2)]


@needs_titles
def test_word_pieces_decode_to_lower_case_words(listings):
    tok = load_tokenizer('all-MiniLM-L6-v2')
    dls = make(listings.assign(title=['A Red BAG', 'Ça va', 'one ' * 100, *listings.title[3:]]), fn_col=None)
    for dl in dls.loaders: dl.before_batch.fs[0].tokenizer = tok
    ids = dls.test_dl(dls.df).one_batch()[0]
    assert texts(dls, ids)[:3] == ['a red bag', 'ca va', ' '.join(['one'] * 62)]
    assert ids.shape[1] == 64 and ids[0, 5:].eq(tok.pad_token_id).all()
    assert ids[0, 0] == tok.cls_token_id and ids[0, 4] == tok.sep_token_id
    assert Tokenize(tok).encodes([(Title(''),)])[0][0].tolist() == [tok.cls_token_id, tok.sep_token_id]
    assert len(Tokenize(tok, 6).encodes([(Title('one ' * 9),)])[0][0]) == 6
