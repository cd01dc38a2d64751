"What a matcher found: scores by modality against the embeddings, and the reason for each candidate."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, Rule, Step, blend
from fastmatch.matcher import Matcher
from tests.matcher.stepped import BELOW, KNOWN, RULE, VECTORS, reasons
from tests.matcher.trained import as_sets


def test_scores_of_pairs_by_modality(trained):
    embeddings, rule = trained.emb, trained.rule
    pairs = trained.matcher.match().pairs()
    row_of = {listing: row for row, listing in enumerate(embeddings.ids)}
    rows, others = pairs.posting_id.map(row_of).to_numpy(), pairs.match.map(row_of).to_numpy()
    for modality in rule.modalities:
        if modality not in embeddings: continue
        wanted = (embeddings[modality][rows].astype(np.float64) * embeddings[modality][others]).sum(1)
        np.testing.assert_allclose(pairs[modality], wanted, atol=1e-5)
    if rule.how == 'mean':
        total = sum(weight * pairs[modality] for modality, weight in rule.weights.items())
        np.testing.assert_allclose(pairs.score, total / sum(rule.weights.values()), atol=1e-5)


def test_explain_says_what_each_step_did():
    result = Matcher(RULE, KNOWN).match()
    explanation = result.explain('p0')
    table = explanation.frame
    assert reasons(explanation) == {'p1': (True, 'score'), 'p2': (False, 'veto'), 'p3': (False, BELOW),
                                    'p4': (False, BELOW), 'p5': (False, BELOW), 'p6': (False, BELOW)}
    assert table.match.tolist()[0] == 'p1' and (table.score[1:].diff().dropna() <= 0).all()
    assert table.set_index('match').units.to_dict()['p2'] == 0
    assert table.set_index('match').image['p1'] == pytest.approx(result.spaces['image'].scores([0], [1])[0])
    assert reasons(result.explain('p3'))['p4'] == (True, 'same_title')
    assert reasons(result.explain('p2'))['p6'][1] == BELOW
    # its nearest by the picture was vetoed; what is left is too far to be forced
    assert not result.explain('p2').frame.matches.any()
    assert 'p0: 1 matches among 6' in repr(explanation) and '<table' in explanation._repr_html_()
    pairs = result.pairs()
    for listing in KNOWN.ids:
        found = reasons(result.explain(listing))
        its_pairs = pairs[pairs.posting_id == listing]
        matches = {(other, reason) for other, (is_match, reason) in found.items() if is_match}
        assert matches == set(zip(its_pairs.match, its_pairs.why))
        assert set(found) == set(KNOWN.ids) - {listing}


def test_explain_forced_dropped_and_too_many():
    rule = Rule('mean', {'image': 1.}, .99, max_matches=2, steps=[Step('mutual', k=3), 'min2'])
    matcher = Matcher(rule, KNOWN)
    result = matcher.match()
    matches = as_sets(result)
    for listing in KNOWN.ids:
        for other, (is_match, reason) in reasons(matcher.explain(listing)).items():
            assert is_match == (other in matches[listing])
            assert reason in (('score', 'min2') if is_match else ('mutual', BELOW, 'past 2 matches'))
    assert 'min2' in set(result.pairs().why)
    assert (False, 'past 2 matches') in reasons(matcher.explain('p0')).values()


def test_explain_shows_modalities_as_they_were_before_refinement():
    result = Matcher(Rule('mean', {'image': 1.}, .5, steps=[Step('blend', threshold=.5)]), KNOWN).match()
    for row, listing in enumerate(KNOWN.ids):
        table = result.explain(listing).frame
        others = [list(KNOWN.ids).index(other) for other in table.match]
        rows = [row] * len(others)
        np.testing.assert_array_equal(table.image, Dense(VECTORS).scores(rows, others))
        refined = blend(Dense(VECTORS), threshold=.5).scores(rows, others)
        np.testing.assert_allclose(table.score, refined, atol=1e-6)
    assert (table.image != table.score).any()


def crowd(groups, size):
    "Known listings in groups of equal size, whose pictures are near each other and far from all others."
    rng = np.random.default_rng(0)
    centers = np.eye(groups, dtype=np.float32)[np.repeat(np.arange(groups), size)]
    vectors = centers + rng.uniform(0, .02, centers.shape).astype(np.float32)
    return Embeddings({'image': vectors}, [f'p{number}' for number in range(groups * size)])


@pytest.mark.parametrize('rule, size, is_said', [
    (Rule('mean', {'image': 1.}, .9, k=8, max_matches=5), 6, 'max_matches=5 allows,'),
    (Rule('mean', {'image': 1.}, .9, k=8, max_matches=5), 5, ''),
    # all that were searched match: there may be more
    (Rule('mean', {'image': 1.}, .9, k=5, max_matches=5), 6,
     'max_matches=5 and k=5 (candidates of each modality) allow,'),
    (Rule('mean', {'image': 1.}, .9, k=4), 6, 'k=4 (candidates of each modality) allows,'),
    # the step finds the whole group by way of others, whatever was searched
    (Rule('mean', {'image': 1.}, .9, k=5, steps=['components']), 4, ''),
    (Rule('mean', {'image': 1.}, .9, k=8, max_matches=5, steps=['components']), 6, 'max_matches=5 allows,'),
    # a step that takes matches away leaves nothing cut
    (Rule('mean', {'image': 1.}, .9, k=8, max_matches=5, steps=[Step('chisel', shares=[1.])]), 6, ''),
])
def test_a_result_says_where_matches_were_cut(rule, size, is_said):
    result = Matcher(rule, crowd(3, size)).match()
    assert len(result.cut_short) == (3 * size if is_said else 0)
    assert is_said in result.cut_in_words and bool(result.cut_in_words) == bool(is_said)
    assert repr(result).endswith(result.cut_in_words)
    if is_said: assert result.cut_in_words.startswith(f'{3 * size} listings have as many matches as')


def test_only_the_listings_that_are_cut_are_named():
    known = crowd(2, 6)
    known = known.take(np.arange(12) < 9)
    result = Matcher(Rule('mean', {'image': 1.}, .9, k=9, max_matches=4), known).match()
    assert result.cut_short.tolist() == [f'p{number}' for number in range(6)]
    # of new listings these alone, whatever the catalogue's have
    new = Embeddings({'image': known['image'][[0, 8]]}, ['new', 'other'])
    result = Matcher(Rule('mean', {'image': 1.}, .9, k=9, max_matches=4), known).match(new)
    assert result.cut_short.tolist() == ['new']
    # five of five match: there is no sixth to be found
    few = Matcher(Rule('mean', {'image': 1.}, .5, k=5), known.take(np.arange(9) < 5)).match()
    assert not len(few.cut_short) and np.diff(few.matches.indptr).tolist() == [5] * 5


@pytest.mark.parametrize('step', ['components', Step('tiers', merge=.5, join=.5)])
def test_a_group_is_as_large_as_the_rule_lets_it_be(step):
    known = crowd(1, 70)
    result = Matcher(Rule('mean', {'image': 1.}, .9, k=10, max_matches=64, steps=[step]), known).match()
    assert np.diff(result.matches.indptr).tolist() == [64] * 70 and len(result.cut_short) == 70
    result = Matcher(Rule('mean', {'image': 1.}, .9, k=10, max_matches=70, steps=[step]), known).match()
    assert np.diff(result.matches.indptr).tolist() == [70] * 70 and not len(result.cut_short)
    with pytest.raises(InputError, match='Rule.max_matches'): Step('components', max_matches=70)


def test_a_key_on_too_many_listings_is_told():
    known = crowd(2, 30)
    rule = Rule('mean', {'image': 1.}, 1.01, join=('phash',))
    with_hashes = Embeddings(known, known.ids, phash=['f0'] * 49 + ['0a'] * 11)
    matcher = Matcher(rule, with_hashes)
    result = matcher.match()
    assert result.notes == [] and result.placeholders == {'phash': []}
    # two more with the same hash, new ones, and it joins nothing any more
    new = Embeddings({'image': known['image'][:2]}, ['new', 'newer'], phash=['f0', 'f0'])
    result = matcher.match(new)
    assert result.notes == ["1 phash on more than 50 listings is taken for a placeholder and joins nothing: "
                            "'f0'"]
    assert repr(result).endswith(result.notes[0]) and np.diff(result.matches.indptr).tolist() == [1, 1]
    matcher.add(new)
    assert matcher.match().notes == result.notes
