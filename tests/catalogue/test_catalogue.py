"A catalogue's groups are those of all listings at once, whatever came when; and what is refused, how."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fastmatch.catalogue import Catalogue
from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.match import Embeddings, Rule, Step
from fastmatch.matcher import Matcher
from tests.catalogue.made import RULES, blocks_of, listings, matcher_of, partition_of


def at_once(rule, embeddings, ids=None):
    "Pairs (first, second, score) of all listings as the matcher finds them in one self-join."
    matcher = matcher_of(rule)
    strangers = matcher.ids
    order = np.argsort(embeddings.ids)
    known = embeddings.take(order if ids is None else [row for row in order if embeddings.ids[row] in ids])
    matcher.add(Embeddings(known, [f'x{listing}' for listing in known.ids], known.titles, phash=known.phash))
    matcher.remove(strangers)
    pairs = matcher.match().pairs()
    return [(first[1:], second[1:], score)
            for first, second, score in zip(pairs.posting_id, pairs.match, pairs.score)]


@pytest.mark.parametrize('name', RULES)
def test_any_order_in_any_pieces_gives_the_groups_of_all_at_once(name, tmp_path):
    embeddings, rule = listings(36), RULES[name]
    wanted = blocks_of(embeddings.ids, at_once(rule, embeddings))
    assert 5 < len(wanted) < 36
    for seed, piece in enumerate([36, 7, 1]):
        order = np.random.default_rng(seed).permutation(36)
        with Catalogue.create(tmp_path/f'{piece}.db', matcher_of(rule)) as catalogue:
            for start in range(0, 36, piece): catalogue.add(embeddings.take(order[start:start + piece]))
            assert partition_of(catalogue) == wanted
            assert catalogue.check() == []
            assert len(catalogue.regroup()) == 0
            going = [listing for listing in embeddings.ids[::3]]
            catalogue.remove(going)
            left = set(embeddings.ids) - set(going)
            assert partition_of(catalogue) == blocks_of(left, at_once(rule, embeddings, left))


def test_numbers_of_groups_stay(tmp_path):
    embeddings = listings(40)
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['mean'])) as catalogue:
        for start in range(0, 40, 5):
            before = catalogue.groups()
            changes = catalogue.add(embeddings.take(np.arange(start, start + 5)))
            after = catalogue.groups().set_index('posting_id').group
            for group, members in before.groupby('group').posting_id:
                # what was together stays so, under its number or under an older one that took it in
                assert set(after[members]) == {catalogue.resolve(group)} and catalogue.resolve(group) <= group
                assert (catalogue.resolve(group) == group) == (group not in changes.merged)
            assert changes.frame.after.notna().all() and changes.event == catalogue.last_event
        assert catalogue.group_of('p000') == after['p000']
        assert 'p000' in catalogue.members(after['p000']) and 'p000' in catalogue and 'zz' not in catalogue


def test_a_dry_run_says_and_keeps_nothing(tmp_path):
    embeddings = listings(20)
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['mean'])) as catalogue:
        catalogue.add(embeddings.take(np.arange(10)))
        before = catalogue.groups()
        told = catalogue.add(embeddings.take(np.arange(10, 20)), dry_run=True)
        assert told.event is None and 'dry run' in repr(told) and catalogue.groups().equals(before)
        told_removal = catalogue.remove(['p000'], dry_run=True)
        assert told_removal.frame.posting_id[0] == 'p000' and len(catalogue) == 10
        done = catalogue.add(embeddings.take(np.arange(10, 20)))
        assert done.frame.equals(told.frame) and done.opened == told.opened and done.event == 2


def test_known_ids(tmp_path):
    embeddings, changed = listings(10), listings(10, seed=5)
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['mean'])) as catalogue:
        catalogue.add(embeddings.take(np.arange(6)))
        with pytest.raises(InputError, match='already: p000, p001, .* and 1 more; give on_known'):
            catalogue.add(embeddings)
        assert len(catalogue) == 6
        assert catalogue.add(embeddings, on_known='skip').known == [f'p00{row}' for row in range(6)]
        again = catalogue.add(embeddings, on_known='skip')
        assert again.event is None and repr(again) == 'nothing new, add: 10 listings were there before'
        catalogue.add(changed, on_known='replace')
        assert partition_of(catalogue) == blocks_of(changed.ids, at_once(RULES['mean'], changed))
        # one that is alone in its group keeps the number too
        rest = sorted(set(changed.ids) - {'p003'})
        catalogue.remove(rest)
        number = catalogue.group_of('p003')
        catalogue.add(changed.take([3]), on_known='replace')
        assert catalogue.group_of('p003') == number and catalogue.check() == []
        with pytest.raises(InputError, match="on_known='overwrite': choose one of raise, skip, replace"):
            catalogue.add(changed, on_known='overwrite')


@pytest.mark.parametrize('name', ['pools', 'augmented pools'])
def test_the_threshold_that_is_told_is_that_for_the_listings_there(name, tmp_path):
    "Also where the rule decides on all listings at once."
    rule = RULES['pools']
    if name == 'augmented pools': rule = replace(rule, steps=(Step('augment', by='fused', k=2), Step('min2')))
    with Catalogue.create(tmp_path/'shop.db', matcher_of(rule)) as catalogue:
        for before, pieces in ((0, 5), (5, 20), (20, 40)):
            changes = catalogue.add(listings(40).take(np.arange(pieces)), on_known='skip')
            assert catalogue.threshold == rule.at(pieces).threshold > .7
            moved = (rule.at(before).threshold, rule.at(pieces).threshold) if before else None
            assert changes.threshold == moved
            assert ('the threshold moved from' in repr(changes)) == bool(before)
        changes = catalogue.remove(listings(40).ids[3:].tolist())
        assert catalogue.threshold == rule.at(3).threshold
        assert f'moved from {rule.at(40).threshold:.4f} to {rule.at(3).threshold:.4f}' in repr(changes)


def test_verdicts_hold_against_pairs_and_time(tmp_path):
    embeddings, rule = listings(40), RULES['mean']
    with Catalogue.create(tmp_path/'shop.db', matcher_of(rule)) as catalogue:
        catalogue.add(embeddings.take(np.arange(0, 40, 2)))
        members = max(partition_of(catalogue), key=len)
        first, second, *_ = sorted(members)
        others = sorted(set(embeddings.ids[::2]) - members)
        catalogue.verdict(first, second, False, who='ana', reason='other size')
        catalogue.verdict(others[0], first, True, who='ana')
        catalogue.add(embeddings.take(np.arange(1, 40, 2)))
        same, apart = [(others[0], first)], [(first, second)]
        assert partition_of(catalogue) == blocks_of(embeddings.ids, at_once(rule, embeddings), same, apart)
        with pytest.raises(InputError, match=f'{others[0]} and {second}.*|{second}.*called different'):
            catalogue.verdict(others[0], second, True)
        # they outlive the listing
        catalogue.remove(first)
        catalogue.add(embeddings.take(embeddings.ids == first))
        catalogue.regroup()
        assert partition_of(catalogue) == blocks_of(embeddings.ids, at_once(rule, embeddings), same, apart)
        assert catalogue.verdicts()[['first', 'second', 'same']].values.tolist() == [
            [*sorted((first, second)), False], [*sorted((others[0], first)), True]]
        assert 'ana called them different' in catalogue.why(first, second).sentence
        assert 'other size' in catalogue.why(first, second).sentence


def test_split_and_undo(tmp_path):
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['mean'])) as catalogue:
        catalogue.add(listings(40))
        group = catalogue.groups().group.value_counts().index[0]
        members, whole = catalogue.members(group), catalogue.groups()
        done = catalogue.split(group, members[:1])
        assert catalogue.members(group) == members[1:] and catalogue.members(done.opened[0]) == members[:1]
        catalogue.undo(done.event)
        assert catalogue.groups().equals(whole) and catalogue.resolve(done.opened[0]) == group
        catalogue.undo(catalogue.last_event)
        assert catalogue.members(done.opened[0]) == members[:1]
        # it counts again, and is taken back again
        catalogue.undo(done.event)
        gone = catalogue.remove(members)
        with pytest.raises(InputError, match=f'group {group}: has no listings any more'):
            catalogue.resolve(group)
        catalogue.undo(gone.event)
        assert catalogue.members(group) == members and catalogue.check() == []
        # what came back goes again
        catalogue.undo(catalogue.last_event)
        assert not set(members) & set(catalogue.groups().posting_id)
        catalogue.undo(catalogue.last_event)
        assert catalogue.members(group) == members
        with pytest.raises(InputError, match='add.*nothing is left'):
            catalogue.undo(1)
            catalogue.undo(1)
        assert len(catalogue) == 0
        with pytest.raises(InputError, match='event 99: there is none'): catalogue.undo(99)
        with pytest.raises(InputError, match='group 99999: there is none'): catalogue.members(99999)


def test_a_key_on_too_many_listings_joins_none_whenever_they_came(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(56, 16)).astype(np.float32)
    known = Embeddings({'image': vectors}, [f'p{row}' for row in range(56)], phash=['00ff00ff00ff00ff'] * 56)
    rule = Rule('mean', {'image': 1.}, .99, k=60, max_matches=60, join=('phash',))
    with Catalogue.create(tmp_path/'shop.db', Matcher(rule, known)) as catalogue:
        catalogue.add(known.take(np.arange(30)))
        catalogue.add(known.take(np.arange(30, 50)))
        assert len(partition_of(catalogue)) == 1
        catalogue.add(known.take(np.arange(50, 56)))
        assert len(partition_of(catalogue)) == 56 and len(catalogue.regroup()) == 0
        catalogue.remove([f'p{row}' for row in range(6)])
        assert len(partition_of(catalogue)) == 1 and len(catalogue.regroup()) == 0


def test_matching_without_adding(tmp_path):
    embeddings, rule = listings(30), RULES['mean']
    with Catalogue.create(tmp_path/'shop.db', matcher_of(rule)) as catalogue:
        catalogue.add(embeddings.take(np.arange(20)))
        found = catalogue.match(embeddings.take(np.arange(15, 30)))
        wanted = {(first, second) for first, second, _ in at_once(rule, embeddings) if int(first[1:]) >= 15}
        assert set(zip(found.posting_id, found.match)) == wanted and len(catalogue) == 20
        groups = catalogue.groups().set_index('posting_id').group
        known = found[found.match.isin(groups.index)]
        assert (known.group == groups[known.match].to_numpy()).all() and found.group.isna().any()
        assert found.group[found.match.isin(embeddings.ids[20:])].isna().all()


def test_another_encoder_or_rule_is_refused(tmp_path):
    rule, file = RULES['mean'], tmp_path/'shop.db'
    matcher = matcher_of(rule)
    with Catalogue.create(file, matcher) as catalogue: catalogue.add(listings(20))
    with pytest.raises(InputError, match='another encoder.*embed all listings anew'):
        Catalogue(file, Matcher(Rule('mean', {'image': 1.}, .5), Embeddings({'image': np.eye(5)}, range(5))))
    stricter = Matcher(replace(rule, threshold=.97), matcher.catalogue)
    with pytest.raises(InputError, match='another rule.*new_rule=True'): Catalogue(file, stricter)
    with Catalogue(file, stricter, new_rule=True) as catalogue:
        assert partition_of(catalogue) == blocks_of(catalogue.groups().posting_id,
                                                    at_once(stricter.rule, listings(20)))
    Catalogue(file, stricter).close()
    with Catalogue(file) as reader:
        assert len(reader.groups()) == 20 and 'group' in reader.why('p000').sentence
        with pytest.raises(InputError, match='without a matcher'): reader.add(listings(21))
        reader.verdict('p000', 'p001', False)


@pytest.mark.parametrize('name', ['mean', 'augment'])
def test_how_similar_listings_are_that_are_apart(tmp_path, name):
    embeddings = listings(40)
    matcher = matcher_of(RULES[name])
    with Catalogue.create(tmp_path/'shop.db', matcher) as catalogue:
        catalogue.add(embeddings)
        groups = catalogue.groups().set_index('posting_id').group
        first = 'p000'
        # far apart, so that the record has no score of both
        by_image = dict(zip(embeddings.ids, embeddings['image'] @ embeddings['image'][0]))
        second = min((listing for listing in groups.index if groups[listing] != groups[first]),
                     key=by_image.get)
        answer = catalogue.why(first, second)
        row = answer.frame.iloc[0]
        one, other = (embeddings['image'][embeddings.ids.tolist().index(each)] for each in (first, second))
        cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
        assert row.scores['image'] == pytest.approx(cosine, abs=1e-5) and row.why == 'no match'
        if name == 'mean':
            fused = .7 * row.scores['image'] + .3 * row.scores['tfidf']
            assert row.score == pytest.approx(fused, abs=1e-5)
            assert f'they score {row.score:.4f},' in answer.sentence
        else: assert pd.isna(row.score) and 'no pair of the rule' in answer.sentence
    with Catalogue(tmp_path/'shop.db') as reader: assert not len(reader.why(first, second).frame)


def test_a_table_of_titles(tmp_path):
    table = pd.DataFrame({'posting_id': [1, 2, 3, 4], 'title': ['red bag', 'Red  bag', 'desk lamp', 'cup']})
    matcher, _ = Matcher.from_df(table, '.', Rule('mean', {'tfidf': 1.}, .9, join=('same_title',)), None,
                                 Columns(image=None))
    with Catalogue.create(tmp_path/'shop.db', matcher) as catalogue:
        told = catalogue.add(table)
        assert partition_of(catalogue) == {frozenset('12'), frozenset('3'), frozenset('4')}
        assert told.in_words() == '4 listings came, 3 groups opened'
        with pytest.raises(InputError, match='title'): catalogue.add(table[['posting_id']])
        assert catalogue.why(1, 2).frame.why[0].startswith(('same_title', 'score'))
        apart = catalogue.why(1, 3)
        expected = matcher.spaces['tfidf'].scores(np.array([0]), np.array([2]))[0]
        assert f'they score {expected:.4f}, the threshold is 0.9' in apart.sentence
        assert apart.frame.scores[0] == {'tfidf': round(float(expected), 6)}
        assert apart.frame.why.tolist() == ['no match']
        assert catalogue.history(1).posting_id.tolist() == ['1', '2']


def test_many_parts_are_one(tmp_path, monkeypatch):
    from fastmatch.catalogue import index
    monkeypatch.setattr(index, 'SMALL', 3)
    monkeypatch.setattr(index, 'SHARE', 2)
    embeddings, rule = listings(40), RULES['mean']
    with Catalogue.create(tmp_path/'shop.db', matcher_of(rule)) as catalogue:
        counts = []
        for start in range(0, 40, 2):
            catalogue.add(embeddings.take([start, start + 1]))
            counts.append(len(catalogue.index().parts))
        assert 1 < max(counts) <= 6 and len(catalogue.index()) == 40
        assert partition_of(catalogue) == blocks_of(embeddings.ids, at_once(rule, embeddings))
        catalogue.index().merge()
        found = catalogue.match(embeddings.take(np.arange(5)))
        with Catalogue(tmp_path/'shop.db', matcher_of(rule)) as fresh:
            again = fresh.match(embeddings.take(np.arange(5)))
        assert found[['posting_id', 'match']].equals(again[['posting_id', 'match']])
        assert np.allclose(found.score, again.score, atol=1e-6)
