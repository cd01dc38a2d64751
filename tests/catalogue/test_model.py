"A catalogue against a model of it: sets of ids, pairs, verdicts, and the slow definition of groups."
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fastmatch.catalogue import Catalogue
from fastmatch.core import InputError
from tests.catalogue.made import RULES, blocks_of, listings, matcher_of, partition_of
from tests.catalogue.test_catalogue import at_once

EMBEDDINGS = listings(24, spread=.35)
RULE = RULES['above']
PLACES = st.lists(st.integers(0, 23), min_size=1, max_size=6, unique=True)


class Life(RuleBasedStateMachine):
    "What may happen to a catalogue, in any order."
    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp())
        self.matcher = matcher_of(RULE)
        self.pairs = at_once(RULE, EMBEDDINGS)
        self.catalogue = Catalogue.create(self.folder/'shop.db', self.matcher)
        # what is written need not outlive a power cut here
        self.catalogue.record.execute('pragma synchronous = off')
        # after each event what is there, and what was said
        self.states = [(frozenset(), {})]
        self.groups = {}

    @property
    def there(self): return self.states[-1][0]

    @property
    def said(self): return self.states[-1][1]

    def done(self, there, said): self.states.append((frozenset(there), dict(said)))

    @rule(places=PLACES)
    def add(self, places):
        ids = [f'p{place:03d}' for place in places]
        if set(ids) & self.there:
            with pytest.raises(InputError, match='already'): self.catalogue.add(EMBEDDINGS.take(places))
            return
        self.catalogue.add(EMBEDDINGS.take(places))
        self.done(self.there | set(ids), self.said)

    @precondition(lambda self: len(self.states[-1][0]) > 1)
    @rule(data=st.data())
    def remove(self, data):
        ids = data.draw(st.lists(st.sampled_from(sorted(self.there)), min_size=1, max_size=4, unique=True))
        self.catalogue.remove(ids)
        self.done(self.there - set(ids), self.said)

    @precondition(lambda self: len(self.states[-1][0]) > 1)
    @rule(data=st.data(), same=st.booleans())
    def say(self, data, same):
        pair = data.draw(st.lists(st.sampled_from(sorted(self.there)), min_size=2, max_size=2, unique=True))
        said = {**self.said, tuple(sorted(pair)): same}
        linked = blocks_of(EMBEDDINGS.ids, [], [each for each, is_same in said.items() if is_same])
        if any(not is_same and any(set(each) <= block for block in linked) for each, is_same in said.items()):
            with pytest.raises(InputError, match='called different'): self.catalogue.verdict(*pair, same)
            return
        self.catalogue.verdict(*pair, same)
        self.done(self.there, said)

    @precondition(lambda self: len(self.states) > 1)
    @rule()
    def undo_the_last(self):
        before, (there, said) = self.states[-1], self.states[-2]
        if before == (there, said): return
        # the numbers of the groups are those of before, too
        earlier = self.earlier_groups
        self.catalogue.undo(self.catalogue.last_event)
        self.done(there, said)
        assert self.catalogue.groups().set_index('posting_id').group.to_dict() == earlier

    @rule()
    def reopen(self):
        self.catalogue.close()
        self.catalogue = Catalogue(self.folder/'shop.db', self.matcher)

    @rule()
    def regroup(self):
        assert len(self.catalogue.regroup()) == 0
        self.done(self.there, self.said)

    @invariant()
    def groups_are_those_of_the_definition(self):
        if not hasattr(self, 'states'): return
        there, said = self.states[-1]
        pairs = [pair for pair in self.pairs if pair[0] in there and pair[1] in there]
        same, apart = ([pair for pair, each in said.items() if each == wanted and set(pair) <= there]
                       for wanted in (True, False))
        assert partition_of(self.catalogue) == blocks_of(there, pairs, same, apart)
        index = self.catalogue.index()
        assert sorted(index.numbers) == self.catalogue.record.present().tolist()
        assert len(self.catalogue) == len(there) and self.catalogue.last_event == len(self.states) - 1

    @invariant()
    def a_group_that_holds_the_same_listings_has_the_same_number(self):
        if not hasattr(self, 'states'): return
        groups = self.catalogue.groups().set_index('posting_id').group.to_dict()
        blocks, earlier = ({frozenset(each for each in held if held[each] == number): number
                            for number in set(held.values())} for held in (groups, self.groups))
        assert all(earlier[block] == number for block, number in blocks.items() if block in earlier)
        if len(self.states) != getattr(self, 'seen', None):
            self.earlier_groups, self.groups, self.seen = self.groups, groups, len(self.states)

    def teardown(self):
        if not hasattr(self, 'folder'): return
        # what is found in the index that lived is what a fresh one finds
        if len(self.catalogue):
            query = EMBEDDINGS.take(np.arange(6))
            found = self.catalogue.match(query)
            with Catalogue(self.folder/'shop.db', self.matcher) as fresh:
                again = fresh.match(query)
                assert fresh.check() == []
            columns = ['posting_id', 'match', 'group']
            assert found[columns].equals(again[columns]) and np.allclose(found.score, again.score, atol=1e-6)
        self.catalogue.close()
        shutil.rmtree(self.folder)


def life(examples, steps):
    run_state_machine_as_test(Life, settings=settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck)))


def test_a_short_life(): life(6, 12)


@pytest.mark.slow
def test_long_lives(): life(30, 40)
