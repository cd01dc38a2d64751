"The page of a made run with everything on it, and what the rule did there."
import numpy as np
import pytest

from fastmatch.report import report_html
from fastmatch.report.pairs import judge_pairs
from tests.report.made import made_run


@pytest.fixture(scope='package')
def page_html():
    embeddings, rule, table, image_files = made_run()
    return report_html(
        embeddings, rule, {**table, 'untrained_fused': table['title']}, image_files,
        losses=np.linspace(9, 2, 1000), monitors={'recall@1': [.4, .5], 'row_f1_max': [.6, .7]},
        settings={'listings': {'train': 7, 'skipped': [{'id': '<i>', 'row': 3, 'reason': 'empty file'}]},
                  'seed': 0, 'seconds': {'train': 1.5}})


@pytest.fixture(scope='package')
def judged():
    run = made_run()
    return judge_pairs(run.embeddings.spaces(), run.rule, run.embeddings.groups)
