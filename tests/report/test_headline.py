"The headline and the table: their figures against independent ones."
import numpy as np
import pandas as pd
import pytest

from fastmatch.match import alone_heldout, paired
from fastmatch.report.headline import headline
from tests.report.made import made_run
from tests.report.reader import Reader, table_of


def test_the_headline(page_html):
    run = made_run()
    reader = Reader(page_html)
    groups = run.embeddings.groups
    matches_of = [set(matches.tolist()) for matches in run.rule.apply(run.embeddings.spaces())]
    n_listings = len(groups)
    true_pairs = {(i, j) for i in range(n_listings) for j in range(i) if groups[i] == groups[j]}
    named_pairs = {(max(i, j), min(i, j)) for i, matches in enumerate(matches_of) for j in matches if i != j}
    true_matches = [{j for j in range(n_listings) if groups[j] == groups[i]} for i in range(n_listings)]
    exact = sum(matches == true for matches, true in zip(matches_of, true_matches, strict=True))
    assert named_pairs - true_pairs and true_pairs - named_pairs
    assert reader.by_id['exact'] == f'{exact / n_listings:.0%}'
    assert reader.by_id['precision'] == f'{len(named_pairs & true_pairs) / len(named_pairs):.0%}'
    assert reader.by_id['recall'] == f'{len(named_pairs & true_pairs) / len(true_pairs):.0%}'
    assert f'{len(named_pairs):,} pairs it names' in page_html
    assert f'{len(true_pairs):,} true pairs' in page_html
    gain = paired(run.table['fused'], run.table['title'])
    assert reader.by_id['f1'] == f'{run.table["fused"].row_f1.mean():.3f}'
    assert reader.by_id['gain'] == f'{gain.diff:+.3f}'
    assert f'95% interval {gain.low:+.3f} to {gain.high:+.3f}' in page_html


@pytest.mark.parametrize('fused, untrained, verdict', [
    ('fused', 'alone', 'training helped.'), ('alone', 'fused', 'training did harm.'),
    ('fused', 'fused', 'no difference')])
def test_the_verdict_follows_the_interval(judged, fused, untrained, verdict):
    run = made_run()
    rows = {**run.table, 'alone': alone_heldout(run.embeddings.groups)}
    rows = {'alone': rows['alone'], 'fused': rows[fused], 'untrained_fused': rows[untrained]}
    assert verdict in headline(rows, judged)


def test_the_table(page_html):
    run = made_run()
    table_rows = table_of(page_html)
    assert [row[0] for row in table_rows] == ['alone', 'image', 'title', 'tfidf', 'fused', 'untrained_fused']
    groups = pd.Series(run.embeddings.groups)
    sizes = groups.map(groups.value_counts())
    assert table_rows[0][1] == f'{(2 / (1 + sizes)).mean():.3f}' and table_rows[0][3:] == ['–', '–']
    for row_name, *cells in table_rows[1:-1]:
        scores = run.table[row_name]
        expected = (scores.row_f1.mean(), scores.se, np.nanmean(scores.recall_at_1),
                    np.nanmean(scores.map_at_r))
        assert cells == [f'{value:.3f}' for value in expected]
