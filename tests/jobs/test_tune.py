"The tuning job on a small shop: a fold put aside, trials on the rest, and one question for a study."
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.jobs.options import Search, Training
from fastmatch.jobs.tune import split_off, tune_listings

COLUMNS = Columns(title=None, fold='fold')


def small_training(image_arch): return Training(image_arch=image_arch, size=32, epochs=1, bs=8, aug='none')


def test_the_fold_put_aside_shares_no_group(shop):
    listings, folder = shop
    remaining, put_aside = split_off(listings, folder, COLUMNS, test_fold=2)
    assert set(put_aside.fold) == {2} and 2 not in set(remaining.fold)
    assert len(remaining) + len(put_aside) == 40
    assert not set(remaining.label_group) & set(put_aside.label_group)
    # without folds of its own, the seed makes them
    columns = Columns(title=None)
    sides = [set(split_off(listings, folder, columns, seed=seed)[1].posting_id) for seed in (0, 0, 1)]
    assert sides[0] == sides[1] != sides[2]


def test_an_equal_picture_is_on_one_side(shop):
    listings, folder = shop
    (folder/'0.png').write_bytes((folder/'2.png').read_bytes())
    remaining, put_aside = split_off(listings, folder, COLUMNS)
    assert ('p0' in set(put_aside.posting_id)) == ('p2' in set(put_aside.posting_id))


def test_a_study_by_keyword_and_by_object(shop, tiny_encoder, tmp_path):
    listings, folder = shop
    lines = []
    options = dict(image_arch=tiny_encoder, size=32, epochs=1, bs=8, aug='none')
    study = tune_listings(listings, folder, title_col=None, fold_col='fold', name='s',
                          storage=tmp_path/'s.db', n_trials=2, space=('lr',), pruner=None,
                          echo=lines.append, **options)
    first_parameters = [trial.params for trial in study.trials]
    assert len(first_parameters) == 2 and list(first_parameters[0]) == ['lr']
    assert all(0 <= trial.user_attrs['test_row_f1'] <= 1 for trial in study.trials)
    question = study.user_attrs['kept']
    assert question['size'] == 32 and question['monitor'] == 'recall@1'
    assert question['modalities'] == ['image']
    assert lines[0] == 'reading 40 listings ...' and lines[1].endswith('8 put aside')
    # the same question goes on; another is refused
    search = Search('s', tmp_path/'s.db', 3, space=('lr',), pruner=None)
    training = small_training(tiny_encoder)
    continued = tune_listings(listings, folder, COLUMNS, search=search, training=training, echo=lines.append)
    assert len(continued.trials) == 3 and [trial.params for trial in continued.trials[:2]] == first_parameters
    with pytest.raises(InputError, match='size 32'):
        tune_listings(listings, folder, COLUMNS, search=search, training=training, size=48,
                      echo=lines.append)


@pytest.mark.parametrize('change, message', [
    (dict(jobs=0), 'jobs=0'), (dict(n_trials=0), 'n_trials=0'), (dict(n_folds=2), 'n_folds=2'),
    (dict(epochs=0), 'epochs=0'), (dict(space=('zest',)), 'zest'), (dict(bs=64), 'bs=64'),
    (dict(n_trails=3), 'n_trials')])
def test_refused(shop, tiny_encoder, change, message):
    listings, folder = shop
    with pytest.raises(InputError, match=message):
        tune_listings(listings, folder, COLUMNS, training=small_training(tiny_encoder), storage=None,
                      echo=lambda line: None, **change)
