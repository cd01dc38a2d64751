"What tuning was worth, from studies made by hand: in words, on the page, and in files."
import numpy as np
import pandas as pd
import pytest

from fastmatch.jobs.study_page import study_page, tuning_gain, write_study
from fastmatch.study.engine.storage import pack_array
from tests.report.reader import Reader


def make_study(values, default=0, study_name='<b>shop</b>'):
    "A study whose trials have these values; row F1 on 8 listings put aside is their value, give or take."
    import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name=study_name, direction='maximize')
    study.set_user_attr('kept', {'monitor': 'recall@1'})
    study.set_user_attr('test_groups', [0, 0, 1, 1, 2, 2, 3, 3])
    for number, value in enumerate(values):
        row_f1 = value + .01 * np.arange(8)
        attributes = {'test_row_f1': round(float(row_f1.mean()), 5), 'test_rows': pack_array(row_f1)}
        if number == default: attributes['default'] = True
        study.add_trial(optuna.trial.create_trial(
            value=value, params={'lr': .001 * (number + 1), 'loss': '<i>arc</i>'}, user_attrs=attributes,
            distributions={'lr': optuna.distributions.FloatDistribution(1e-4, 1.),
                           'loss': optuna.distributions.CategoricalDistribution(['<i>arc</i>', 'cos'])}))
    return study


def test_the_gain_over_the_default():
    text, gain = tuning_gain(make_study([.5, .7, .6]))
    best, default, figures = text.splitlines()
    assert best.startswith('best, trial 1: recall@1 0.7000') and default.startswith('default, trial 0')
    assert gain.diff == pytest.approx(.2, abs=1e-6)
    assert figures.startswith('8 listings put aside: row F1 0.735')
    assert '95% interval +0.200 to +0.200' in figures


def test_no_default_and_a_default_that_is_the_best():
    text, gain = tuning_gain(make_study([.5, .4]))
    assert text.endswith('no trial was better') and gain is None
    text, gain = tuning_gain(make_study([.5, .7], default=None))
    assert text.endswith('nothing to compare with') and gain is None


def test_the_page():
    page_html = study_page(make_study([.5, .7, .6]))
    reader = Reader(page_html)
    assert reader.texts('h1') == ['Study <b>shop</b>'] and 'Best trials' in reader.texts('h2')
    images = reader.elements('img')
    assert images and all(image['src'].startswith('data:image/png;base64,') for image in images)
    headings = reader.texts('th')
    assert headings == ['trial', 'recall@1', 'row F1 put aside', 'lr', 'loss']
    cells = reader.texts('td')
    assert cells[:5] == ['1', '0.7000', '0.735', '0.002', '<i>arc</i>']
    assert cells[5] == '2' and len(cells) == 15
    assert '<script' not in page_html and page_html.endswith('</html>\n')


def test_the_files(tmp_path):
    study = make_study([.5, .7])
    write_study(study, tmp_path/'out')
    assert sorted(file.name for file in (tmp_path/'out').iterdir()) == ['report.html', 'trials.csv']
    assert (tmp_path/'out'/'report.html').read_text(encoding='utf-8').startswith('<!doctype html>')
    table = pd.read_csv(tmp_path/'out'/'trials.csv')
    assert table.value.tolist() == [.5, .7] and table.params_lr.tolist() == [.001, .002]
