"Two tables matched: what is found, what is said of it, and what is refused."
import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.link import match_tables
from fastmatch.match import PairModel
from tests.link.shops import labelled, pair_f1, two_shops

LEFT, RIGHT, PAIRS = two_shops()
KNOWN = labelled(LEFT, RIGHT, PAIRS)


@pytest.fixture(scope='module')
def learned(): return match_tables(LEFT, RIGHT, known=KNOWN)


@pytest.fixture(scope='module')
def alone(): return match_tables(LEFT, RIGHT)


def test_columns_are_recognised(alone):
    kinds = {name: field.kind for name, field in alone.fields.items()}
    assert kinds == {'title': 'text', 'brand': 'category', 'model': 'code', 'price': 'number'}


def test_without_labels_it_beats_the_nearest_title(alone):
    "Each title's nearest in the other table, where that is mutual, is what a user would do by hand."
    from sklearn.feature_extraction.text import TfidfVectorizer
    vectorizer = TfidfVectorizer(analyzer='char_wb', ngram_range=(3, 5)).fit([*LEFT.title, *RIGHT.name])
    similarity = (vectorizer.transform(LEFT.title) @ vectorizer.transform(RIGHT.name).T).toarray()
    nearest, nearest_back = similarity.argmax(1), similarity.argmax(0)
    mutual = {(LEFT.id[row], RIGHT.sku[nearest[row]]) for row in range(len(LEFT))
              if nearest_back[nearest[row]] == row}
    true = set(PAIRS.itertuples(index=False, name=None))
    by_hand = 2 * len(mutual & true) / (len(mutual) + len(true))
    assert pair_f1(alone, PAIRS) > by_hand
    assert alone.learnt.figures == {} and alone.blocking == {}


def test_with_labels(learned):
    assert pair_f1(learned, PAIRS) > .9
    figures = learned.learnt.figures
    assert figures['low'] <= figures['pair_f1'] <= figures['high'] and figures['pairs'] == len(KNOWN)
    assert learned.blocking['recall'] == 1 and 0 < learned.blocking['of_all_pairs'] <= 1
    # 'HP' is how the other shop writes it, which the matches show; the rarer spelling stands for the other
    assert set(learned.candidates.spaces['brand'].cells) == {'sony', 'hp', 'canon', 'logitech inc'}


def test_matches_alone_are_enough():
    "Half of the left listings with all of their matches: the others are matched by what these show."
    found = match_tables(LEFT, RIGHT, known=PAIRS[:20])
    assert pair_f1(found, PAIRS) > .85
    # each of the candidates of those twenty is a pair that is known
    assert found.learnt.figures['pairs'] == np.isin(
        found.tables.left_ids[found.candidates.left], PAIRS.left_id[:20]).sum()


def test_nobody_matches_twice_or_in_its_own_table(learned):
    matches = learned.matches
    assert matches.left_id.is_unique and matches.right_id.is_unique
    assert matches.left_id.isin(LEFT.id).all() and matches.right_id.isin(RIGHT.sku).all()
    assert (matches.probability >= learned.learnt.threshold).all()
    assert matches.probability.is_monotonic_decreasing


@pytest.mark.parametrize('how, left_unique, right_unique', [
    ('one-to-many', False, True), ('many-to-one', True, False), ('free', False, False)])
def test_how_many_partners(learned, how, left_unique, right_unique):
    found = match_tables(LEFT, RIGHT, model=learned.learnt.model, threshold=.0, how=how)
    assert found.matches.left_id.is_unique == left_unique
    assert found.matches.right_id.is_unique == right_unique
    if how == 'free': assert len(found) == len(found.candidates)


def test_a_model_may_be_used_again(learned, tmp_path):
    learned.learnt.model.save(tmp_path/'model')
    threshold = learned.learnt.threshold
    again = match_tables(LEFT, RIGHT, model=PairModel.load(tmp_path/'model'), threshold=threshold)
    other_left, other_right, other_pairs = two_shops(seed=1)
    elsewhere = match_tables(other_left, other_right, model=PairModel.load(tmp_path/'model'),
                             threshold=threshold)
    # without the synonyms that the labels of the first tables have shown
    assert pair_f1(again, PAIRS) > .8 and pair_f1(elsewhere, other_pairs) > .8


def test_any_pairs_are_scored(learned):
    candidates = learned.candidates
    asked = pd.DataFrame({'left_id': [LEFT.id[candidates.left[3]], *LEFT.id[:20]],
                          'right_id': [RIGHT.sku[candidates.right[3]], *RIGHT.sku[:20]]})
    scored = learned.score(asked)
    assert scored.probability[0] == learned.probabilities[3]
    assert scored.probability.between(0, 1).all()
    with pytest.raises(InputError, match="left_id of no listing in the left table: 'X' .row 0."):
        learned.score(pd.DataFrame({'left_id': ['X'], 'right_id': ['R1']}))


def test_the_same_call_gives_the_same():
    first, second = (match_tables(LEFT, RIGHT, known=KNOWN, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first.matches, second.matches)


@pytest.mark.parametrize('side', ['left', 'right'])
def test_the_order_of_rows_and_columns_does_not_matter(side, alone):
    tables = {'left': LEFT, 'right': RIGHT}
    rng = np.random.default_rng(0)
    shuffled = tables[side].iloc[rng.permutation(len(tables[side]))]
    shuffled = shuffled[[*reversed(shuffled.columns)]]
    found = match_tables(*({**tables, side: shuffled}.values()),
                         columns=BOTH_COLUMNS, model=alone.learnt.model)
    expected = {tuple(pair) for pair in alone.matches[['left_id', 'right_id']].itertuples(index=False)}
    actual = {tuple(pair) for pair in found.matches[['left_id', 'right_id']].itertuples(index=False)}
    assert len(actual ^ expected) <= 2  # a pair at the threshold may round to the other side


def _columns(table, id_column, title):
    return Columns(id=id_column, image=None, title=title, group=None,
                   fields={'brand': 'category', 'model': 'code', 'price': 'number'})


def test_why(learned):
    match = learned.matches.iloc[0]
    table = learned.explain(match.left_id, 5)
    assert table.right_id[0] == match.right_id and table.matches[0]
    assert 'brand' in table.why[0] and len(table) == 5
    with pytest.raises(InputError, match="'nobody': no listing of the left table"): learned.explain('nobody')


def test_encoders_besides():
    rng = np.random.default_rng(0)
    places = {listing: row for row, listing in enumerate(RIGHT.sku)}
    left, right = rng.normal(size=(len(LEFT), 6)), rng.normal(size=(len(RIGHT), 6))
    for pair in PAIRS.itertuples():
        right[places[pair.right_id]] = left[LEFT.index[LEFT.id == pair.left_id][0]] + .1 * rng.normal(size=6)
    found = match_tables(LEFT[['id', 'title']], RIGHT[['sku', 'name']], vectors={'image': (left, right)})
    assert pair_f1(found, PAIRS) > .95 and 'image' in found.matches
    with pytest.raises(InputError, match=r"vectors\['image'\]: \(59, 70\) rows for 60 and 70 listings"):
        match_tables(LEFT, RIGHT, vectors={'image': (left[:-1], right)})


BOTH_COLUMNS = _columns(LEFT, 'id', 'title'), _columns(RIGHT, 'sku', 'name')
CHEAP = RIGHT.assign(price=RIGHT.price.astype(object).where(RIGHT.index != 3, 'cheap'))
BAD = {
    'left table: df lacks': (LEFT, RIGHT, dict(columns=(_columns(LEFT, 'idd', 'title'), None))),
    'right table: price: 1 cells hold no number: row 3': (LEFT, CHEAP, dict(columns=BOTH_COLUMNS)),
    'left table: id: given twice': (LEFT.assign(id='x'), RIGHT, {}),
    'right table: sku: no id in rows 2': (LEFT, RIGHT.assign(sku=RIGHT.sku.where(RIGHT.index != 2)), {}),
    'left table: it has no rows': (LEFT[:0], RIGHT, dict(columns=(_columns(LEFT, 'id', 'title'), None))),
    'left table: dict: hand in a DataFrame': ({}, RIGHT, {}),
    'the tables have no column in common': (LEFT[['id', 'brand']], RIGHT[['sku', 'price']], {}),
    "how='one': choose one of": (LEFT, RIGHT, dict(how='one')),
    'k=0: give a whole number': (LEFT, RIGHT, dict(k=0)),
    'threshold=2: 0 to 1': (LEFT, RIGHT, dict(threshold=2)),
    'known: 5 of 5 pairs match': (LEFT, RIGHT, dict(known=PAIRS[:5].assign(label=1))),
    'known: lacks right_id': (LEFT, RIGHT, dict(known=PAIRS[['left_id']])),
    'known: right_id of no listing in the right table': (LEFT, RIGHT, dict(known=PAIRS.assign(right_id='?'))),
    'known: label: neither 1 nor 0 in rows 0': (LEFT, RIGHT, dict(known=KNOWN.assign(label='maybe'))),
    'known: pairs that match and that do not': (LEFT, RIGHT, dict(known=pd.concat(
        [KNOWN, KNOWN.assign(label=1 - KNOWN.label)]))),
}


@pytest.mark.parametrize('message', BAD)
def test_what_is_refused(message):
    left, right, options = BAD[message]
    with pytest.raises(InputError, match=f'^{message}'): match_tables(left, right, **options)


def test_features_of_some_pairs_are_those_of_all(alone):
    pairs = alone.candidates.pairs
    places = np.random.default_rng(0).permutation(len(pairs))[:50]
    some = alone.candidates.with_pairs([0], [0]).pairs
    np.testing.assert_array_equal(some.features_at(places), some.features[places])
