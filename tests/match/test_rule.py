"A rule: kept as json, applied to other listings, and what it refuses."
import json

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Embeddings,
    Neighbors,
    Rule,
    Tfidf,
    candidates,
    choose_rule,
    decide,
    fuse,
    row_f1,
)
from tests.match.cases import noisy, titles

NB = Neighbors.from_pairs([0, 0, 1, 2, 3], [1, 2, 0, 0, 4], [.75, .5, .75, .5, .25], 5)


SPACES = {'image': Dense(noisy(60, 6, 0, 60)), 'tfidf': Tfidf(titles(60, 0))}
LABELS = np.random.default_rng(1).integers(0, 20, 60)


@pytest.mark.parametrize('k, max_matches', [(60, 50), (12, 5), (12, 12)])
def test_rule_keeps_its_promise(k, max_matches, tmp_path):
    rule = choose_rule(candidates(SPACES, k), LABELS, max_matches=max_matches)
    (tmp_path/'rule.json').write_text(json.dumps(rule.to_dict()))
    again = Rule.from_dict(json.loads((tmp_path/'rule.json').read_text()))
    assert again == rule and again.k == k and again.max_matches == max_matches
    f1 = row_f1(again.apply(SPACES), LABELS)
    assert f1.mean() == pytest.approx(rule.score['row_f1_chosen_on'], abs=1.01e-5 / 2)
    # modalities that the rule doesn't name don't matter
    for a, b in zip(again.apply(SPACES), again.apply({'else': SPACES['image'], **SPACES})):
        np.testing.assert_array_equal(a, b)


def test_a_rule_takes_as_many_as_there_are():
    """Its `k` stays what it was, whatever it is applied to; one chosen without a `k` on few asks for 50 among
    many."""
    few = {name: item.take(np.arange(7)) for name, item in SPACES.items()}
    rule = Rule('mean', {'image': .5, 'tfidf': .5}, .2)
    want = decide(fuse(candidates(few, 7), 'mean', rule.weights), .2)
    assert (
        rule.k == 50
        and [item.tolist() for item in rule.apply(few)] == [item.tolist() for item in want]
        and rule.neighbors(SPACES).ids.shape[1] >= 50
    )
    assert (
        choose_rule(candidates(few), LABELS[:7]).k == 50
        and choose_rule(candidates(few, 7), LABELS[:7]).k == 7
    )
    blended = Rule('mean', rule.weights, .2, steps=['blend', 'augment', 'expand'])
    assert len(blended.apply(few)) == 7 and blended.neighbors(few).ids.shape[1] <= 7


@pytest.mark.parametrize(
    'bad, says',
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
def test_rule_refuses(bad, says):
    good = {'how': 'mean', 'weights': {'a': 1.}, 'threshold': .5}
    Rule(**good)
    with pytest.raises(InputError, match=says): Rule(**{**good, **bad})
    with pytest.raises(InputError, match=says): Rule.from_dict({**good, **bad})


def test_rule_from_dict_refuses():
    good = {'how': 'mean', 'weights': {'a': 1}, 'threshold': 0.}
    with pytest.raises(InputError, match=r"unknown entries \['cut'\]"): Rule.from_dict({**good, 'cut': 1})
    with pytest.raises(InputError, match=r"\['threshold', 'weights'\] missing"):
        Rule.from_dict({'how': 'mean'})
    with pytest.raises(InputError, match=r"needs the modalities \['title'\]"):
        Rule('mean', {'image': .5, 'title': .5}, .5).apply(SPACES)


def test_a_rule_remembers_how_the_vectors_it_was_chosen_on_were_made():
    vectors = {'image': SPACES['image'].vectors}
    settings = {'tta': True, 'size': (104, 104)}
    emb = Embeddings(vectors, np.arange(60), titles(60, 0), LABELS, made_with=settings)
    found = candidates(emb.spaces())
    assert found.made_with == settings
    rule = choose_rule(found, emb.groups)
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
