"A rule: kept as json, applied to other listings, and what it refuses."
import json

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Embeddings,
    Rule,
    Tfidf,
    among_themselves,
    candidates,
    choose_rule,
    decide,
    fuse,
    ladder,
    row_f1,
)
from fastmatch.study import tune_rule
from tests.match.cases import noisy, titles

SPACES = {'image': Dense(noisy(60, 6, 0, 60)), 'tfidf': Tfidf(titles(60, 0))}
LABELS = np.random.default_rng(1).integers(0, 20, 60)


@pytest.mark.parametrize('k, max_matches', [(60, 50), (12, 5), (12, 12)])
def test_rule_keeps_its_promise(k, max_matches, tmp_path):
    rule = choose_rule(candidates(SPACES, k), LABELS, max_matches=max_matches)
    (tmp_path/'rule.json').write_text(json.dumps(rule.to_dict()))
    restored = Rule.from_dict(json.loads((tmp_path/'rule.json').read_text()))
    assert restored == rule and restored.k == k and restored.max_matches == max_matches
    f1 = row_f1(restored.apply(SPACES), LABELS)
    assert f1.mean() == pytest.approx(rule.score['row_f1_chosen_on'], abs=1.01e-5 / 2)
    # modalities that the rule doesn't name don't matter
    matches = restored.apply(SPACES)
    with_another = restored.apply({'else': SPACES['image'], **SPACES})
    for matched_ids, other_ids in zip(matches, with_another):
        np.testing.assert_array_equal(matched_ids, other_ids)


def test_a_rule_takes_as_many_as_there_are():
    """Its `k` stays what it was, whatever it is applied to; one chosen without a `k` on few asks for 50 among
    many."""
    few_spaces = {modality: space.take(np.arange(7)) for modality, space in SPACES.items()}
    rule = Rule('mean', {'image': .5, 'tfidf': .5}, .2)
    expected = decide(fuse(candidates(few_spaces, 7), 'mean', rule.weights), .2)
    assert (
        rule.k == 50
        and [matched_ids.tolist() for matched_ids in rule.apply(few_spaces)]
        == [matched_ids.tolist() for matched_ids in expected]
        and rule.neighbors(SPACES).ids.shape[1] >= 50
    )
    assert (
        choose_rule(candidates(few_spaces), LABELS[:7]).k == 50
        # all seven were taken: that says how many there were, not how many are wanted
        and choose_rule(candidates(few_spaces, 7), LABELS[:7]).k == 50
        and choose_rule(candidates(few_spaces, 6), LABELS[:7]).k == 6
    )
    blended = Rule('mean', rule.weights, .2, steps=['blend', 'augment', 'expand'])
    assert len(blended.apply(few_spaces)) == 7 and blended.neighbors(few_spaces).ids.shape[1] <= 7


@pytest.mark.parametrize(
    'invalid, message',
    [
        ({'how': 'max'}, "how='max'"),
        ({'weights': {}}, 'none is above 0'),
        ({'weights': {'a': 0.0}}, 'none is above 0'),
        ({'weights': {'a': -1.0}}, '0 or more'),
        ({'weights': {'a': np.nan}}, 'finite'),
        ({'weights': {'a': np.inf}}, 'finite'),
        ({'threshold': np.nan}, 'finite'),
        ({'k': 0}, 'k=0'),
        ({'max_matches': 0}, 'max_matches=0'),
        ({'threshold': 84}, "'threshold': 84}: outside the range"),
        ({'threshold': -2.0}, 'outside'),
        ({'how': 'union', 'weights': {'a': 84.0}}, "'a': 84.0}: outside"),
        ({'how': 'power', 'weights': {'a': 1.2}}, 'outside'),
    ],
)
def test_rule_refuses(invalid, message):
    valid = {'how': 'mean', 'weights': {'a': 1.}, 'threshold': .5}
    Rule(**valid)
    with pytest.raises(InputError, match=message): Rule(**{**valid, **invalid})
    with pytest.raises(InputError, match=message): Rule.from_dict({**valid, **invalid})


def test_rule_from_dict_refuses():
    valid = {'how': 'mean', 'weights': {'a': 1}, 'threshold': 0.}
    with pytest.raises(InputError, match=r"unknown entries \['cut'\]"): Rule.from_dict({**valid, 'cut': 1})
    with pytest.raises(InputError, match=r"\['threshold', 'weights'\] missing"):
        Rule.from_dict({'how': 'mean'})
    with pytest.raises(InputError, match=r"needs the modalities \['title'\]"):
        Rule('mean', {'image': .5, 'title': .5}, .5).apply(SPACES)


def test_a_rule_remembers_how_the_vectors_it_was_chosen_on_were_made():
    vectors = {'image': SPACES['image'].vectors}
    settings = {'tta': True, 'size': (104, 104)}
    embeddings = Embeddings(vectors, np.arange(60), titles(60, 0), LABELS, made_with=settings)
    scored_candidates = candidates(embeddings.spaces())
    assert scored_candidates.made_with == settings
    rule = choose_rule(scored_candidates, embeddings.groups)
    # as json gives it back
    assert rule.made_with == {'tta': True, 'size': [104, 104]}
    assert Rule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    # what is not known is not kept, and leaves the rule as it was written before
    unknown = choose_rule(candidates(Embeddings(vectors, np.arange(60), titles(60, 0)).spaces()), LABELS)
    assert unknown.made_with is None and 'made_with' not in unknown.to_dict()


def test_a_rule_is_refused_on_vectors_that_were_made_otherwise():
    vectors = {'image': SPACES['image'].vectors}
    def spaces(tta): return Embeddings(vectors, np.arange(60), made_with={'tta': tta}).spaces()
    rule = choose_rule(candidates(spaces(True)), LABELS)
    assert len(rule.apply(spaces(True))) == 60
    with pytest.raises(InputError, match='rule: chosen on embeddings made with tta=True, but here tta=False'):
        rule.apply(spaces(False))
    # vectors of which nothing is known are taken as they are
    assert len(rule.apply({'image': SPACES['image']})) == 60


def test_k_follows_the_pool_a_rule_meets():
    "Chosen on a few held-out listings, used in a catalogue of large groups: all of a group are found."
    rng = np.random.default_rng(0)

    def listings(n, groups):
        labels = np.arange(n) % groups
        vectors = rng.normal(size=(groups, 16))[labels] + .05 * rng.normal(size=(n, 16))
        return Embeddings({'image': vectors}, [f'p{n}_{row}' for row in range(n)], labels=labels)
    small, catalogue = listings(12, 6), listings(120, 4)
    found = candidates(small.spaces())
    rules = {
        'candidates': choose_rule(found, small.labels),
        'all of the fold': choose_rule(candidates(small.spaces(), len(small)), small.labels),
        'setting': choose_rule(among_themselves(small)),
        'ladder': ladder(among_themselves(small), 'quick', halvings=1).rule,
        'tune_rule': tune_rule(small, n_trials=2, halvings=0)[0],
        'tune_rule, all of the fold': tune_rule(small, n_trials=2, halvings=0, k=12)[0]}
    for name, rule in rules.items():
        assert rule.k == 50, name
        matches = rule.apply(catalogue.spaces())
        assert row_f1(matches, catalogue.labels).mean() > .99, name
    # what was wanted fewer stays fewer; what was wanted more stays more
    assert choose_rule(candidates(small.spaces(), 5), small.labels).k == 5
    assert ladder(among_themselves(small), 'quick', halvings=1, k=5).rule.k == 5
    assert choose_rule(candidates(catalogue.spaces(), 120), catalogue.labels).k == 120
