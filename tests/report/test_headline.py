"The headline and the table: their figures against independent ones."
import numpy as np
import pandas as pd
import pytest

from fastmatch.match import alone_heldout, paired
from fastmatch.report.headline import headline
from tests.report.made import run
from tests.report.reader import Reader, table_of


def test_the_headline(html):
    embeddings, rule, table, _ = run()
    page = Reader(html)
    groups = embeddings.groups
    sets = [set(matches.tolist()) for matches in rule.apply(embeddings.spaces())]
    n = len(groups)
    true = {(i, j) for i in range(n) for j in range(i) if groups[i] == groups[j]}
    named = {(max(i, j), min(i, j)) for i, matches in enumerate(sets) for j in matches if i != j}
    exact = sum(matches == {j for j in range(n) if groups[j] == groups[i]} for i, matches in enumerate(sets))
    assert named - true and true - named
    assert page.by_id['exact'] == f'{exact / n:.0%}'
    assert page.by_id['precision'] == f'{len(named & true) / len(named):.0%}'
    assert page.by_id['recall'] == f'{len(named & true) / len(true):.0%}'
    assert f'{len(named):,} pairs it names' in html and f'{len(true):,} true pairs' in html
    gain = paired(table['fused'], table['title'])
    assert page.by_id['f1'] == f'{table["fused"].row_f1.mean():.3f}'
    assert page.by_id['gain'] == f'{gain.diff:+.3f}'
    assert f'95% interval {gain.low:+.3f} to {gain.high:+.3f}' in html


@pytest.mark.parametrize('fused, untrained, words', [
    ('fused', 'alone', 'training helped.'), ('alone', 'fused', 'training did harm.'),
    ('fused', 'fused', 'no difference')])
def test_the_verdict_follows_the_interval(judged, fused, untrained, words):
    embeddings, _, table, _ = run()
    rows = {**table, 'alone': alone_heldout(embeddings.groups)}
    rows = {'alone': rows['alone'], 'fused': rows[fused], 'untrained_fused': rows[untrained]}
    assert words in headline(rows, judged)


def test_the_table(html):
    embeddings, _, table, _ = run()
    rows = table_of(html)
    assert [row[0] for row in rows] == ['alone', 'image', 'title', 'tfidf', 'fused', 'untrained_fused']
    groups = pd.Series(embeddings.groups)
    sizes = groups.map(groups.value_counts())
    assert rows[0][1] == f'{(2 / (1 + sizes)).mean():.3f}' and rows[0][3:] == ['–', '–']
    for name, *cells in rows[1:-1]:
        scores = table[name]
        want = (scores.row_f1.mean(), scores.se, np.nanmean(scores.recall_at_1), np.nanmean(scores.map_at_r))
        assert cells == [f'{value:.3f}' for value in want]
