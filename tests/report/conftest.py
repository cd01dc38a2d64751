"The page of a made run with everything on it, and what the rule did there."
import numpy as np
import pytest

from fastmatch.report import report_html
from fastmatch.report.pairs import judge_pairs
from tests.report.made import run


@pytest.fixture(scope='package')
def html():
    embeddings, rule, table, files = run()
    return report_html(
        embeddings, rule, {**table, 'untrained_fused': table['title']}, files, losses=np.linspace(9, 2, 1000),
        monitors={'recall@1': [.4, .5], 'row_f1_max': [.6, .7]},
        settings={'listings': {'train': 7, 'skipped': [{'id': '<i>', 'row': 3, 'reason': 'empty file'}]},
                  'seed': 0, 'seconds': {'train': 1.5}})


@pytest.fixture(scope='package')
def judged():
    embeddings, rule, *_ = run()
    return judge_pairs(embeddings.spaces(), rule, embeddings.groups)
