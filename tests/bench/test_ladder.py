"The ladder measures what it says: its plain rung is the held-out protocol, its steps are a rule's."
import numpy as np
import pytest

from fastmatch.match import Embeddings, Rule, candidates, decide, heldout_fused, paired, row_f1
from fastmatch.match.judge.heldout import random_halves
from tests.bench import ladder
from tests.match.cases import titles


def table(n=60, seed=0):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n // 3, n)
    centers = rng.normal(size=(n, 6))
    return Embeddings(
        {'image': centers[groups] + rng.normal(size=(n, 6)) * .8},
        [f'p{i}' for i in range(n)],
        titles(n, seed),
        [f'g{group}' for group in groups],
        phash=[None if i % 5 else f'h{group}' for i, group in enumerate(groups)],
    )


@pytest.fixture
def few(monkeypatch):
    "Few options of each kind, so that a ladder is quick."
    monkeypatch.setattr(ladder, 'FUSIONS', 2)
    for options, count in (('AUGMENT', 2), ('BLEND', 6), ('RERANK', 7), ('VETO', 2)):
        monkeypatch.setattr(ladder, options, getattr(ladder, options)[-count:])


def test_rungs(few):
    embeddings = table()
    tested = ladder.Ladder(embeddings, halvings=2, k=15)
    rungs = dict(tested.rungs(echo=None))
    assert list(rungs)[:9] == [
        'alone',
        'best modality',
        'fused',
        '+ other fusions',
        '+ min2',
        '+ QE/DBA',
        '+ INB',
        '+ rerank',
        '+ vetoes',
    ]
    plain = heldout_fused(candidates(embeddings.spaces(), 15), embeddings.groups, halvings=2)
    np.testing.assert_allclose(rungs['fused'].row_f1, plain.row_f1, atol=1e-12)
    # what a half chose, written as a rule, scores on the other what the ladder says
    total = np.zeros(60)
    for half in tested.halves:
        how, weights, *more = half.fusion
        all_steps = (*half.steps, *half.after)
        # a rule has no fusion of its own for its vector steps
        steps = all_steps if half.by in (None, half.fusion) else ()
        rule = Rule(how, weights, 0., 15, join=('phash',), steps=steps, options=dict(*more))
        if rule.steps == all_steps:
            matches = decide(rule.neighbors(embeddings.spaces(only=tuple(rule.reads))), half.cuts)
            scores = row_f1(matches, embeddings.groups)[half.scored]
            # a rule lifts equal keys above what a step made of them, a ladder does not
            if not half.after: np.testing.assert_allclose(scores, half.row_f1, atol=1e-12)
        total[half.scored] += half.row_f1
        assert half.value >= half.held >= 0
    np.testing.assert_allclose(rungs['+ vetoes'].row_f1, total / 2)
    assert len(list(random_halves(tested.groups, 2, 0))) == 2
    assert {len(rung.row_f1) for rung in rungs.values()} == {60}


def test_table_pairs_each_rung(few, tmp_path):
    tables = [table(40, seed) for seed in (1, 2)]
    for i, embeddings in enumerate(tables): ladder.save(embeddings, tmp_path/f'{i}.npz')
    loaded = [ladder.load(tmp_path/f'{i}.npz') for i in range(2)]
    for saved, again in zip(tables, loaded):
        np.testing.assert_array_equal(saved['image'], again['image'])
        assert saved.titles == again.titles
        assert saved.groups.tolist() == again.groups.tolist()
        assert saved.phash.tolist() == again.phash.tolist()
        assert saved.ids.tolist() == again.ids.tolist()
    df = ladder.measure('x', loaded, echo=lambda line: None, halvings=1, k=8).set_index('rung')
    assert (df.n == 80).all() and np.isnan(df.over_before['alone']) and np.isnan(df.over_fused['fused'])
    np.testing.assert_allclose(df.over_before[1:], df.row_f1.diff()[1:], atol=2e-4)
    np.testing.assert_allclose(df.over_fused[3:], (df.row_f1 - df.row_f1['fused'])[3:], atol=2e-4)
    assert (df.low_before[1:] <= df.over_before[1:]).all()
    assert (df.over_before[1:] <= df.high_before[1:]).all()
    folds = [heldout_fused(candidates(embeddings.spaces(), 8), embeddings.groups, halvings=1)
             for embeddings in loaded]
    fused = ladder.pooled(folds)
    assert df.row_f1['fused'] == round(fused.mean, 4) and df.se['fused'] == round(fused.se, 4)
    assert paired(fused, fused).diff == 0
