"Rounds of pseudo-labels: when they stop, and each figure of the reports counted again."
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from fastmatch.core import InputError
from fastmatch.semi import Confidence, Quota, class_report, label_report, pseudo_label, pseudo_rounds
from fastmatch.semi.rounds import valid_macro_f1
from fastmatch.semi.share import wilson
from tests.semi.small import make, make_dls


@pytest.fixture(scope='module')
def dls(): return make_dls()


def train(learner):
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 2e-3)


def rounds_of(dls, scores, **kwargs):
    "Rounds whose validation scores are given, and the loaders that were trained on."
    seen, scores = [], iter(scores)

    def make_learner(loaders):
        seen.append(loaders)
        return make(loaders, 1)
    found = pseudo_rounds(make_learner, dls, score=lambda learner: next(scores),
                          **{'keep': Quota(share=.6), 'rounds': 4, **kwargs})
    return found, seen


def test_they_stop_when_the_score_no_longer_rises(dls):
    found, seen = rounds_of(dls, [.1, .2, .15])
    assert found.report['score'].tolist() == [.1, .2, .15] and found.best == 1 and len(seen) == 3
    assert found.learner.dls.train_df.equals(seen[1].train_df) and found.labels is found.all_labels[1]
    found, seen = rounds_of(dls, [.3, .2])
    assert found.best == 0 and found.labels is None and len(seen) == 2
    found, _ = rounds_of(dls, [.1, .2, .3], rounds=2)
    assert found.best == 2 and 'best round 2' in repr(found)


def test_nothing_is_sure_enough(dls):
    found, seen = rounds_of(dls, [.1], keep=Confidence(1.))
    assert len(found.report) == 1 and len(seen) == 1 and found.classes.kept.sum() == 0


def test_the_figures_of_a_round(dls):
    learner = make(dls, 4)
    valid = learner.predictions()
    middle = float(valid.prob.median())
    labels = pseudo_label(learner, keep=Confidence(middle), on_leak='skip')
    report = label_report(labels, learner)
    truth = learner.dls.valid_df.vendor.to_numpy()
    sure = valid.prob >= middle
    n_right = int((valid.label == truth)[sure].sum())
    assert 0 < sure.sum() < len(sure) and report['kept'] > 3
    assert report['candidates'] == len(dls.unlabelled) and report['kept'] == len(labels)
    assert (report['valid_kept'], report['precision']) == (sure.sum(), n_right / sure.sum())
    interval = binomtest(n_right, int(sure.sum())).proportion_ci(method='wilson')
    assert (report['precision_low'], report['precision_high']) == pytest.approx(tuple(interval), abs=1e-5)
    assert valid_macro_f1(learner) == pytest.approx(f1_score(truth, valid.label, average='macro'))
    table = class_report(labels, dls).set_index('label')
    for name in dls.vocab:
        of_class = labels[labels.label == name]
        assert table.kept[name] == len(of_class)
        assert table.labelled[name] == (dls.train_df.vendor == name).sum()
        if len(of_class): assert table.prob[name] == pytest.approx(of_class.prob.mean())
    # a round before, of which two labels are gone, one is other and one new
    earlier = labels.iloc[1:].copy()
    earlier['label'] = earlier['label'].where(np.arange(len(earlier)) > 0, 'another')
    gone = labels.iloc[:2].assign(posting_id=['gone', 'away'])
    report = label_report(labels, earlier=pd.concat([earlier, gone]))
    assert (report['new'], report['gone']) == (1, 2)
    assert report['agree'] == pytest.approx(1 - 1 / (len(labels) - 1))
    assert 'precision' not in report


def test_wilson_of_nothing(): assert wilson(0, 0) == (0., 1.)


def test_pseudo_labels_first(dls):
    trained_on = []
    found, seen = rounds_of(dls, [.1, .2], rounds=1, use='first',
                            train=lambda learner: (trained_on.append(learner.dls.train_df), train(learner)))
    labels = found.labels
    assert seen[1].train_df.posting_id.tolist() == labels.posting_id.tolist()
    assert trained_on[0].posting_id.tolist() == dls.train_df.posting_id.tolist()
    assert found.learner.trained_on.ids >= set(labels.posting_id) | set(dls.train_df.posting_id)


def test_a_real_run_repeats(dls):
    runs = [pseudo_rounds(lambda loaders: make(loaders, 1), dls, keep=Quota(share=.6), rounds=1,
                          target='hard', weight=.5) for _ in range(2)]
    assert runs[0].report.equals(runs[1].report)
    assert runs[0].all_labels[1].equals(runs[1].all_labels[1])


@pytest.mark.parametrize('options, told', [
    ({'use': 'last'}, "use='last'"), ({'use': 'first'}, 'wants train='), ({'train': train}, 'takes none'),
    ({'rounds': 0}, 'rounds=0')])
def test_options(dls, options, told):
    with pytest.raises(InputError, match=told): rounds_of(dls, [.1], **options)
