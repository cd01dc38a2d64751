"Pseudo-labels: the table against the predictions, what a batch then holds, and what is refused by name."
import numpy as np
import pandas as pd
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.losses import CrossEntropy, SoftTarget
from fastmatch.semi import Confidence, Everything, Quota, pseudo_label, soft_labelled, with_pseudo_labels
from tests.semi.small import make, make_dls, table

CLASSES = ['fluent-emoji-flat', 'noto', 'twemoji']


@pytest.fixture(scope='module')
def learner(): return make(make_dls(), 1)


@pytest.fixture(scope='module')
def labels(learner): return pseudo_label(learner, keep=Quota(4), on_leak='skip')


def test_the_table_is_of_the_predictions(learner, labels):
    predictions = learner.predictions(learner.dls.unlabelled).set_index('posting_id')
    of_kept = predictions.loc[labels.posting_id]
    np.testing.assert_allclose(labels[CLASSES], of_kept[CLASSES], rtol=1e-6)
    assert labels.label.tolist() == of_kept.label.tolist()
    best_two = np.sort(of_kept[CLASSES].to_numpy(), 1)[:, -2:]
    np.testing.assert_allclose(labels.margin, best_two[:, 1] - best_two[:, 0], rtol=1e-4)
    assert labels.prob.is_monotonic_decreasing
    for class_name, of_class in predictions.groupby('label'):
        best = of_class.prob.nlargest(4).index
        assert set(labels.posting_id[labels.label == class_name]) == set(best)
    assert labels.attrs['origin'].candidates == len(predictions) == 30


def test_the_mean_of_two_learners(learner):
    other = make(learner.dls, seed=1)
    both = pseudo_label([learner, other], keep=Everything(), on_leak='skip').sort_values('posting_id')
    tables = [each.predictions(learner.dls.unlabelled).sort_values('posting_id') for each in (learner, other)]
    expected = (tables[0][CLASSES].to_numpy() + tables[1][CLASSES].to_numpy()) / 2
    np.testing.assert_allclose(both[CLASSES], expected, rtol=1e-5)


def targets_of(dls):
    "The target of each training item by its id."
    ids = dls.train_df.posting_id
    return {item_id: dls.train.dataset[row][-1] for row, item_id in enumerate(ids)}


def test_targets(learner, labels):
    dls = learner.dls
    n_own = len(dls.train_df)
    hard = targets_of(with_pseudo_labels(dls, labels, target='hard'))
    soft = targets_of(with_pseudo_labels(dls, labels, target='soft'))
    both = targets_of(with_pseudo_labels(dls, labels, target='both'))
    assert len(hard) == n_own + len(labels)
    of_class = {name: number for number, name in enumerate(CLASSES)}
    for item in labels.to_dict('records'):
        item_id, number = item['posting_id'], of_class[item['label']]
        assert int(hard[item_id]) == number
        probabilities = np.array([item[name] for name in CLASSES])
        np.testing.assert_allclose(soft[item_id], probabilities, rtol=1e-5)
        np.testing.assert_allclose(both[item_id], (probabilities + np.eye(3)[number]) / 2, rtol=1e-5)
    for item in dls.train_df.to_dict('records'):
        expected = np.eye(3)[of_class[item['vendor']]]
        np.testing.assert_array_equal(soft[item['posting_id']], expected)
        assert int(hard[item['posting_id']]) == expected.argmax()


def test_both_is_the_mean_of_both_losses(labels):
    logits = torch.randn(len(labels), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    soft = torch.tensor(labels[CLASSES].to_numpy(float))
    soft /= soft.sum(1, keepdim=True)
    hard = torch.tensor([CLASSES.index(label) for label in labels.label])
    mixed = (soft + torch.eye(3, dtype=torch.float64)[hard]) / 2
    expected = (SoftTarget()(logits, soft) + CrossEntropy()(logits, hard)) / 2
    torch.testing.assert_close(SoftTarget()(logits, mixed), expected)


def test_the_split_stays_and_weights_are_how_often(learner):
    dls = learner.dls
    labels = pseudo_label(learner, keep=Everything(), on_leak='skip').iloc[:24]
    weighted = with_pseudo_labels(dls, labels.assign(weight=np.arange(len(labels)) % 3), weight=.5)
    assert weighted.valid_df.posting_id.tolist() == dls.valid_df.posting_id.tolist()
    assert not set(weighted.unlabelled.posting_id) & set(labels.posting_id)
    assert len(weighted.unlabelled) == len(dls.unlabelled) - len(labels)
    n_epochs = 300
    drawn = np.bincount(np.concatenate([weighted.train.get_idxs() for _ in range(n_epochs)]),
                        minlength=len(weighted.train_df)) / n_epochs
    n_own = len(dls.train_df)
    assert (drawn[:n_own] == 1).all()
    np.testing.assert_allclose(drawn[n_own:], np.arange(len(labels)) % 3 / 2, atol=.1)
    first = with_pseudo_labels(dls, labels, labelled=False, weight=.5)
    assert first.train_df.posting_id.tolist() == labels.posting_id.tolist()
    assert make(weighted, 1).loss_func.__class__ is SoftTarget
    # to go on with the labels alone
    student = make(first)
    student.dls = soft_labelled(dls)
    assert student.dls.train_df.posting_id.tolist() == dls.train_df.posting_id.tolist()
    soft, hard = soft_labelled(dls).valid.dataset, dls.valid.dataset
    assert [each[-1].argmax() for each in soft] == [each[-1] for each in hard]


def test_edited_in_a_file(tmp_path, learner, labels):
    labels.assign(weight=1.).iloc[1:].to_csv(tmp_path/'labels.csv', index=False)
    edited = pd.read_csv(tmp_path/'labels.csv')
    edited.loc[0, 'label'] = 'noto'
    dls = with_pseudo_labels(learner.dls, edited, target='hard')
    assert dls.train_df.set_index('posting_id').vendor[edited.posting_id[0]] == 'noto'
    assert labels.posting_id[0] in set(dls.unlabelled.posting_id)


def test_items_of_another_table(learner):
    others = table(40).groupby('vendor').tail(5).drop(columns='vendor')
    known = set(learner.dls.df.posting_id) | set(learner.dls.unlabelled.posting_id)
    others = others[~others.posting_id.isin(known)]
    labels = pseudo_label(learner, others, keep=Everything(), on_leak='skip')
    dls = with_pseudo_labels(learner.dls, labels, others)
    assert set(dls.train_df.posting_id) - set(learner.dls.train_df.posting_id) == set(labels.posting_id)
    with pytest.raises(InputError, match='ids are not in dls.unlabelled: give them as df'):
        with_pseudo_labels(learner.dls, labels)


def test_leaks_are_refused(learner, labels):
    dls = learner.dls
    held = dls.valid_df.posting_id.iloc[0]
    planted = labels.assign(posting_id=[held, *labels.posting_id[1:]])
    with pytest.raises(InputError, match=f'1 are of validation items of dls: {held}'):
        with_pseudo_labels(dls, planted)
    # the same picture under another id, among the unlabelled or in a table of its own
    twin = dls.valid_df.iloc[[0]].assign(posting_id='twin').drop(columns='vendor')
    with pytest.raises(InputError, match=rf'twin \(same picture of {held}\)'): pseudo_label(learner, twin)
    of_twin = labels.iloc[:1].assign(posting_id='twin')
    with pytest.raises(InputError, match=rf'twin \(same picture of {held}\)'):
        with_pseudo_labels(dls, of_twin, twin)
    with pytest.raises(InputError, match='every item to label is held out'):
        pseudo_label(learner, twin, on_leak='skip')
    # held out by another table, the test set
    test = dls.unlabelled[dls.unlabelled.posting_id == labels.posting_id[0]]
    with pytest.raises(InputError, match=labels.posting_id[0]): with_pseudo_labels(dls, labels, held_out=test)
    # a teacher that was trained on what is validated on here
    other_fold = make_dls(valid_fold=1)
    with pytest.raises(InputError, match='their teacher was trained on .* of the .* validation items'):
        with_pseudo_labels(other_fold, labels)


@pytest.mark.parametrize('change, told', [
    (lambda labels: labels.assign(label='dog'), "labels are no class of dls: row 0: 'dog'"),
    (lambda labels: labels.drop(columns='noto'), 'labels lacks the columns noto'),
    (lambda labels: labels.assign(noto=1.), 'do not add up to 1: row 0'),
    (lambda labels: labels.assign(noto=-.1), "column 'noto': row 0: -0.1"),
    (lambda labels: labels.assign(weight=np.nan), "column 'weight': row 0: nan"),
    (lambda labels: pd.concat([labels, labels]), 'stand there more than once')])
def test_what_is_no_label(learner, labels, change, told):
    with pytest.raises(InputError, match=told): with_pseudo_labels(learner.dls, change(labels))


def test_options(learner, labels):
    def refused(match, call, *args, **kwargs):
        with pytest.raises(InputError, match=match): call(*args, **kwargs)
    dls = learner.dls
    refused("target='fuzzy'", with_pseudo_labels, dls, labels, target='fuzzy')
    refused('weight=-1', with_pseudo_labels, dls, labels, weight=-1)
    refused('from_df', with_pseudo_labels, [1], labels)
    refused("on_leak='drop'", pseudo_label, learner, on_leak='drop')
    refused('an empty list', pseudo_label, [])
    refused("sampler='weighted' draws rows by their groups", with_pseudo_labels,
            make_dls(sampler='weighted'), labels, weight=.5)
    of_train = labels.assign(posting_id=dls.train_df.posting_id[:len(labels)])
    refused('are of labelled items', with_pseudo_labels, dls, of_train)
    assert len(pseudo_label(learner, keep=Confidence(1.), on_leak='skip')) == 0
