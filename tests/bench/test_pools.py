"The bench of thresholds over pools: its straight line and its figures against plain loops."
import numpy as np
import pytest

from fastmatch.match import Dense, Embeddings, Sweep, row_f1
from fastmatch.match.judge.pool_thresholds import Level, measured_levels, pool_thresholds
from fastmatch.match.search.structure import RuleStructure
from fastmatch.match.search.workbench import Workbench
from tests.bench import pools


def made_level(pool, scores):
    "Rows alone with one mate each, all found at these scores."
    n_rows = len(scores)
    gains = np.full(n_rows, 1 / 3)
    return Level.of([Level(pool, n_rows, n_rows * 2 / 3, np.array(scores), gains, gains)])


def test_the_line_has_the_best_mean_of_all_parts():
    # each part is worth most from its own highest threshold down: the line must pass below all of them
    levels = [made_level(800, [0.]), made_level(400, [-.05]), made_level(200, [-.1])]
    assert pools.line(levels, 4) == pytest.approx(.05 * 2, abs=1e-3)
    assert pools.line([made_level(800, [0.]), made_level(400, [0.])], 4) == 0


def test_the_figures_are_means_over_rows():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.arange(60) // 2)
    vectors = rng.normal(size=(30, 5))[groups] + .5 * rng.normal(size=(60, 5))
    space = Dense(vectors)
    sweep = Sweep(space.search(20), groups)
    first, second = groups < 20, groups >= 10
    cases = [(first, 15, dict.fromkeys(pools.WAYS, .8)), (second, 15, dict.fromkeys(pools.WAYS, .6))]
    row = pools.figures(sweep, groups, cases)
    f1 = {
        threshold: row_f1(
            [
                [i, *(j for j in ids[1:] if space.scores([i], [j])[0] >= threshold)]
                for i, ids in enumerate(space.search(20).ids)
            ],
            groups,
        )
        for threshold in (0.8, 0.6)
    }
    by_row = [np.mean([f1[threshold][i] for rows, threshold in ((first, .8), (second, .6)) if rows[i]])
              for i in range(60)]
    assert row['row_f1_carried'] == pytest.approx(np.mean(by_row), abs=1e-4)
    assert row['listings'] == 60 and row['seeds'] == 2 and row['threshold_as_is'] == pytest.approx(.7)
    assert row['short_carried'] == pytest.approx(row['row_f1_best'] - row['row_f1_carried'], abs=2e-4)
    assert row['short_carried'] >= 0 and row['carried_over_as_is'] == row['gain_low'] == 0


@pytest.mark.parametrize('rows', pools.ROWS)
def test_what_is_chosen_on_is_never_scored(rows, monkeypatch):
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat(np.arange(200), rng.integers(1, 4, 200)))
    titles = [f'item {group} {rng.integers(50)}' for group in groups]
    vectors = rng.normal(size=(200, 8))[groups] + .5 * rng.normal(size=(len(groups), 8))
    own = np.arange(len(groups)) < len(groups) - 40
    emb = Embeddings({'title': vectors}, np.arange(len(groups)), titles, groups)
    monkeypatch.setattr(pools, 'STRUCTURES', {'MiniLM': RuleStructure('mean', (('title', 1.),))})
    whole = pools.Whole(emb, own)
    asked = {}

    def looked_up(embeddings, rows_looked_up):
        asked.update(ids=embeddings.ids, rows=rows_looked_up)
        return original(embeddings, rows_looked_up)

    original = pools.looked_up
    monkeypatch.setattr(pools, 'looked_up', looked_up)
    [(name, scored, pool, by_way)] = list(whole.thresholds(0, rows))
    known_groups = groups[asked['ids']]
    assert name == 'MiniLM' and pool == len(asked['ids']) and abs(pool - len(groups) / 4) < 25
    assert not np.isin(groups[:own.sum()][scored], known_groups).any()
    assert not asked['rows'][~own[asked['ids']]].any()
    if rows == 'with a match':
        sizes = np.bincount(groups)
        assert (sizes[groups[:own.sum()][scored]] > 1).all()
        assert (sizes[known_groups[asked['rows']]] > 1).all()
    quarter = original(emb.take(asked['ids']), asked['rows'])
    search = Workbench(quarter).threshold_search(pools.STRUCTURES['MiniLM'])
    rule = Workbench(quarter).rule(pools.STRUCTURES['MiniLM'], search.best()[0])
    assert by_way['as_is'] == rule.threshold
    assert by_way['carried'] == pytest.approx(min(pool_thresholds(quarter, rule).at(len(groups)), 1.01))
    growth = len(groups) / quarter.pool
    assert by_way['line'] == rule.threshold + pools.line(measured_levels(quarter, rule), growth)
