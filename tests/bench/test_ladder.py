"The ladder measures what it says: its plain rung is the held-out protocol, its steps are a rule's."
import numpy as np
import pytest

from fastmatch.match import Embeddings, Rule, candidates, decide, heldout_fused, paired, row_f1
from fastmatch.match.judge.heldout import random_halves
from tests.bench import ladder
from tests.match.cases import titles


def table(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n // 3, n)
    centre = rng.normal(size=(n, 6))
    return Embeddings(
        {'image': centre[y] + rng.normal(size=(n, 6)) * 0.8},
        [f'p{i}' for i in range(n)],
        titles(n, seed),
        [f'g{item}' for item in y],
        phash=[None if i % 5 else f'h{y[i]}' for i in range(n)],
    )


@pytest.fixture
def few(monkeypatch):
    for k, n in (('AUGMENT', 2), ('BLEND', 6), ('RERANK', 7), ('VETO', 2), ('FUSIONS', 2)):
        monkeypatch.setattr(ladder, k, n if k == 'FUSIONS' else getattr(ladder, k)[-n:])


def test_rungs(few):
    embeddings = table()
    x = ladder.Ladder(embeddings, halvings=2, k=15)
    rungs = dict(x.rungs(echo=None))
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
    spaces = embeddings.spaces()
    np.testing.assert_allclose(
        rungs['fused'].row_f1,
        heldout_fused(candidates(spaces, 15), embeddings.groups, halvings=2).row_f1,
        atol=1e-12,
    )
    # what a half chose, written as a rule, scores on the other what the ladder says
    total = np.zeros(60)
    for random_halve in x.random_halves:
        how, weights, *more = random_halve.fusion
        rule = Rule(
            how,
            weights,
            0.0,
            15,
            join=('phash',),
            steps=(*random_halve.steps, *random_halve.after)
            if random_halve.by in (None, random_halve.fusion)
            else (),
            options=dict(*more),
        )
        if rule.steps == (*random_halve.steps, *random_halve.after):
            got = row_f1(
                decide(rule.neighbors(embeddings.spaces(only=tuple(rule.reads))), random_halve.cuts),
                embeddings.groups,
            )[random_halve.scored]
            # a rule lifts equal keys above what a step made of them, a ladder does not
            if not random_halve.after: np.testing.assert_allclose(got, random_halve.row_f1, atol=1e-12)
        total[random_halve.scored] += random_halve.row_f1
        assert random_halve.value >= random_halve.held >= 0
    np.testing.assert_allclose(rungs['+ vetoes'].row_f1, total / 2)
    assert len(list(random_halves(x.y, 2, 0))) == 2 and {len(r.row_f1) for r in rungs.values()} == {60}


def test_table_pairs_each_rung(few, tmp_path):
    tables = [table(40, s) for s in (1, 2)]
    for i, item in enumerate(tables): ladder.save(item, tmp_path/f'{i}.npz')
    again = [ladder.load(tmp_path/f'{i}.npz') for i in range(2)]
    for a, b in zip(tables, again):
        np.testing.assert_array_equal(a['image'], b['image'])
        assert (
            a.titles == b.titles
            and a.groups.tolist() == b.groups.tolist()
            and a.phash.tolist() == b.phash.tolist()
            and a.ids.tolist() == b.ids.tolist()
        )
    df = ladder.measure('x', again, echo=lambda value: None, halvings=1, k=8).set_index('rung')
    assert (df.n == 80).all() and np.isnan(df.over_before['alone']) and np.isnan(df.over_fused['fused'])
    steps = df.row_f1.diff()[1:]
    np.testing.assert_allclose(df.over_before[1:], steps, atol=2e-4)
    np.testing.assert_allclose(df.over_fused[3:], (df.row_f1 - df.row_f1['fused'])[3:], atol=2e-4)
    assert (df.low_before[1:] <= df.over_before[1:]).all() and (
        df.over_before[1:] <= df.high_before[1:]
    ).all()
    fused = ladder.pooled(
        [heldout_fused(candidates(item.spaces(), 8), item.groups, halvings=1) for item in again]
    )
    assert (
        df.row_f1['fused'] == round(fused.mean, 4)
        and df.se['fused'] == round(fused.se, 4)
        and paired(fused, fused).diff == 0
    )
