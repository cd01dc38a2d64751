"The tuning job on a small shop: a fold put aside, trials on the rest, and one question for a study."
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.jobs.options import Search, Training
from fastmatch.jobs.tune import split_off, tune_listings

COLUMNS = Columns(title=None, fold='fold')


def small(tiny): return Training(image_arch=tiny, size=32, epochs=1, bs=8, aug='none')


def test_the_fold_put_aside_shares_no_group(shop):
    df, path = shop
    rest, test = split_off(df, path, COLUMNS, test_fold=2)
    assert set(test.fold) == {2} and 2 not in set(rest.fold) and len(rest) + len(test) == 40
    assert not set(rest.label_group) & set(test.label_group)
    # without folds of its own, the seed makes them
    columns = Columns(title=None)
    sides = [set(split_off(df, path, columns, seed=seed)[1].posting_id) for seed in (0, 0, 1)]
    assert sides[0] == sides[1] != sides[2]


def test_an_equal_picture_is_on_one_side(shop):
    df, path = shop
    (path/'0.png').write_bytes((path/'2.png').read_bytes())
    rest, test = split_off(df, path, COLUMNS)
    assert ('p0' in set(test.posting_id)) == ('p2' in set(test.posting_id))


def test_a_study_by_keyword_and_by_object(shop, tiny, tmp_path):
    df, path = shop
    lines = []
    options = dict(image_arch=tiny, size=32, epochs=1, bs=8, aug='none')
    study = tune_listings(df, path, title_col=None, fold_col='fold', name='s', storage=tmp_path/'s.db',
                          n_trials=2, space=('lr',), pruner=None, echo=lines.append, **options)
    first = [trial.params for trial in study.trials]
    assert len(first) == 2 and list(first[0]) == ['lr']
    assert all(0 <= trial.user_attrs['test_row_f1'] <= 1 for trial in study.trials)
    about = study.user_attrs['kept']
    assert about['size'] == 32 and about['monitor'] == 'recall@1' and about['modalities'] == ['image']
    assert lines[0] == 'reading 40 listings ...' and lines[1].endswith('8 put aside')
    # the same question goes on; another is refused
    search = Search('s', tmp_path/'s.db', 3, space=('lr',), pruner=None)
    more = tune_listings(df, path, COLUMNS, search=search, training=small(tiny), echo=lines.append)
    assert len(more.trials) == 3 and [trial.params for trial in more.trials[:2]] == first
    with pytest.raises(InputError, match='size 32'):
        tune_listings(df, path, COLUMNS, search=search, training=small(tiny), size=48, echo=lines.append)


@pytest.mark.parametrize('change, words', [
    (dict(jobs=0), 'jobs=0'), (dict(n_trials=0), 'n_trials=0'), (dict(n_folds=2), 'n_folds=2'),
    (dict(epochs=0), 'epochs=0'), (dict(space=('zest',)), 'zest'), (dict(bs=64), 'bs=64'),
    (dict(n_trails=3), 'n_trials')])
def test_refused(shop, tiny, change, words):
    df, path = shop
    with pytest.raises(InputError, match=words):
        tune_listings(df, path, COLUMNS, training=small(tiny), storage=None, echo=lambda line: None, **change)
