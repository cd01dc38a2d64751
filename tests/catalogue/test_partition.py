"Groups from pairs and verdicts: against the definition step by step, and the numbers that groups keep."
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.catalogue.partition import Pairs, joined, number_blocks
from tests.catalogue.made import blocks_of

PAIR = st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: pair[0] != pair[1])


def blocks(pairs, same, apart, tree=False):
    numbers = np.arange(10) * 3 + 5
    rows = [(*(numbers[side] for side in pair), score) for pair, score in pairs.items()]
    rows += [(numbers[first], numbers[second], np.inf) for first, second in same]
    found, is_used = joined(numbers, Pairs.of(rows), Pairs.of((numbers[a], numbers[b], 0.) for a, b in apart),
                            {int(number): f'p{place}' for place, number in enumerate(numbers)}, tree)
    members = [frozenset(f'p{place}' for place in np.flatnonzero(found == block)) for block in set(found)]
    return set(members), is_used


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(PAIR, st.sampled_from([.5, .6, .7, .8]), max_size=20), st.lists(PAIR, max_size=2),
       st.lists(PAIR, max_size=5))
def test_joined_is_the_definition(pairs, same, apart):
    pairs = {tuple(sorted(pair)): score for pair, score in pairs.items()}
    # verdicts that contradict each other are refused before
    linked = blocks_of(map(str, range(10)), [], [tuple(map(str, pair)) for pair in same])
    apart = [pair for pair in apart if not any({*map(str, pair)} <= block for block in linked)]
    named = [(f'p{first}', f'p{second}', score) for (first, second), score in pairs.items()]
    wanted = blocks_of([f'p{place}' for place in range(10)], named,
                       [(f'p{first}', f'p{second}') for first, second in same],
                       [(f'p{first}', f'p{second}') for first, second in apart])
    assert blocks(pairs, same, apart)[0] == wanted
    found, is_used = blocks(pairs, same, apart, tree=True)
    # a tree has a pair less than it has listings
    assert found == wanted and is_used.sum() == 10 - len(wanted)


def test_the_oldest_group_keeps_its_number():
    # group 4 (two listings) and group 2 (one) come together, a listing without a group joins them
    merged = number_blocks(np.array([0, 0, 0, 0]), np.array([4, 4, 2, 0]), set())
    assert merged.groups.tolist() == [2] * 4 and merged.merged == {4: 2} and merged.gone == []
    # group 2 falls in two: the number stays with most of its listings, of equal parts with the first
    assert number_blocks(np.array([0, 1, 1]), np.array([2, 2, 2]), set()).groups.tolist() == [-1, 2, 2]
    assert number_blocks(np.array([1, 0]), np.array([2, 2]), set()).groups.tolist() == [2, -1]
    # group 3 lost its best part to group 1, and takes what is left
    both = number_blocks(np.array([0, 0, 0, 1]), np.array([1, 3, 3, 3]), set())
    assert both.groups.tolist() == [1, 1, 1, 3] and both.merged == {}
    # nothing is left of group 5; group 7 comes back where its merging is undone
    gone = number_blocks(np.array([0, 1]), np.array([1, 1]), {5, 1}, np.array([1, 7]))
    assert gone.groups.tolist() == [1, 7] and gone.gone == [5]
    # each gets its own number back, also where the older group kept the smaller part
    undone = number_blocks(np.array([0, 1, 1]), np.array([1, 1, 1]), set(), np.array([1, 2, 2]))
    assert undone.groups.tolist() == [1, 2, 2] and undone.merged == {}
    # a group that only the undone event had opened is merged
    back = number_blocks(np.array([0, 0]), np.array([1, 4]), set(), np.array([1, 1]))
    assert back.groups.tolist() == [1, 1] and back.merged == {4: 1}


def test_nothing_at_all():
    found, is_used = joined(np.empty(0, np.int64), Pairs.of([]), Pairs.of([]), {})
    assert len(found) == len(is_used) == 0
    assert number_blocks(found, found, {3}).gone == [3]
