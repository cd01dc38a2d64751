"Groups for new listings from sure matches, by hand; leaks by group, by match and by twin; trained on."
import warnings

import numpy as np
import pandas as pd
import pytest
from fastai.vision.augment import Resize

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.learner import match_learner
from fastmatch.semi import pseudo_groups, with_pseudo_groups
from tests.data.made import noise


@pytest.fixture(scope='module')
def dls(tmp_path_factory):
    "Groups A (a1 a2) and B (b1 b2) to train on, V (v1 v2) held out, and new listings n0 to n11."
    folder = tmp_path_factory.mktemp('groups')
    names = ['a1', 'a2', 'b1', 'b2', 'v1', 'v2', *(f'n{number}' for number in range(12))]
    for number, name in enumerate(names): noise(32, 32, number).save(folder/f'{name}.png')
    table = pd.DataFrame({'posting_id': names, 'image': [f'{name}.png' for name in names],
                          'title': [f'title {name}' for name in names],
                          'label_group': [name[0].upper() if name[0] != 'n' else None for name in names],
                          'fold': [0 if name[0] == 'v' else 1 for name in names]})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return MatchDataLoaders.from_df(table, folder, fold_col='fold', text_col=None, phash=False, bs=2,
                                        item_tfms=Resize(32), num_workers=0)


def pairs_of(*pairs):
    return pd.DataFrame([dict(posting_id=first, match=second, score=score) for first, second, score in pairs])


PAIRS = pairs_of(
    ('n0', 'a1', .9), ('n0', 'b1', .85), ('n1', 'b2', .95), ('n1', 'b1', .9),  # joined
    ('n2', 'a1', .9), ('n2', 'b1', .88),  # in doubt with a margin of .03
    ('n3', 'n4', .9), ('n4', 'n5', .92),  # a new group
    ('n6', 'n7', .9), ('n7', 'n0', .9),  # one of them may belong to what n0 has joined
    ('n8', 'v1', .9), ('n8', 'n9', .9),  # of a product that is held out
    ('n10', 'n11', .5), ('n10', 'a1', .7))  # not sure


def test_groups_by_hand(dls):
    table = pseudo_groups(PAIRS, dls, least=.8, margin=.03)
    found = table.set_index('posting_id')
    assert found.label_group.to_dict() == {'n0': 'A', 'n1': 'B', 'n3': 'new 0', 'n4': 'new 0', 'n5': 'new 0'}
    assert found.how['n0'] == 'a1' and found.how['n1'] == 'b2' and found.how['n3'] == 'new group'
    assert found.score.to_dict() == {'n0': .9, 'n1': .95, 'n3': .9, 'n4': .92, 'n5': .92}
    assert table.score.is_monotonic_decreasing
    # without a margin n2 joins its best; the direction and a repeated pair change nothing
    turned = PAIRS.rename(columns={'posting_id': 'match', 'match': 'posting_id'})
    table = pseudo_groups(pd.concat([turned, PAIRS]), dls, least=.8)
    assert table.set_index('posting_id').label_group['n2'] == 'A' and len(table) == 6
    assert 'n3' not in set(pseudo_groups(PAIRS, dls, least=.8, max_size=2).posting_id)
    assert len(pseudo_groups(PAIRS, dls, least=.99)) == 0


def test_a_table_to_train_on(dls):
    labels = pseudo_groups(PAIRS, dls, least=.8, margin=.03)
    table = with_pseudo_groups(dls, labels)
    assert set(table.posting_id[table.is_valid]) == {'v1', 'v2'} and len(table) == 11
    again = MatchDataLoaders.from_df(table, dls.image_folder, fold_col='is_valid', valid_fold=True, bs=4,
                                     text_col=None, item_tfms=Resize(32), num_workers=0, phash=False)
    assert again.n_groups == 3 and set(again.train_df.posting_id) >= {'n0', 'n1', 'n3', 'n4', 'n5'}
    learner = match_learner(again, 'test_efficientnet', pretrained=False)
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    assert np.isfinite(learner.recorder.losses[-1])


def test_leaks(dls):
    labels = pseudo_groups(PAIRS, dls, least=.8)

    def refused(match, call, *args, **kwargs):
        with pytest.raises(InputError, match=match): call(*args, **kwargs)
    refused('1 are validation listings of dls: v1', with_pseudo_groups, dls,
            labels.assign(posting_id=['v1', *labels.posting_id[1:]]))
    refused('6 listings are put into groups that are held out', with_pseudo_groups, dls,
            labels.assign(label_group='V'))
    # a twin of a held-out listing by its picture
    twin = dls.valid_df.iloc[[0]].assign(posting_id='twin', label_group=None)
    pairs = pairs_of(('twin', 'a1', .95), ('n0', 'a1', .9), ('twin', 'n3', .9), ('n3', 'n4', .9))
    new = pd.concat([dls.unlabelled, twin])
    refused(r'twin \(same picture of v1\)', pseudo_groups, pairs, dls, new, least=.8)
    skipped = pseudo_groups(pairs, dls, new, least=.8, on_leak='skip')
    assert skipped.posting_id.tolist() == ['n0']
    planted = pd.DataFrame({'posting_id': ['twin'], 'label_group': ['A']})
    refused(r'twin \(same picture of v1\)', with_pseudo_groups, dls, planted, new)


@pytest.mark.parametrize('options, told', [
    ({'least': np.nan}, 'least=nan'), ({'least': .5, 'margin': -1}, 'margin=-1'),
    ({'least': .5, 'max_size': 1}, 'max_size=1'), ({'least': .5, 'on_leak': 'drop'}, "on_leak='drop'")])
def test_options(dls, options, told):
    with pytest.raises(InputError, match=told): pseudo_groups(PAIRS, dls, **options)
    with pytest.raises(InputError, match=r"lacks the columns \['score'\]"):
        pseudo_groups(PAIRS.drop(columns='score'), dls, least=.5)
