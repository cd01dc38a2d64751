"The bench of streams: folds put together again, blends, intervals."
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from tests.bench import streams

pytestmark = pytest.mark.skipif(not streams.CLIPS.exists(),
                                reason='no folder of real data beside the repository')


def saved(way, folder, rightness, seed=0):
    "Log-probabilities of a way that is right so often, as `run` saves them; what it said of each item."
    rng = np.random.default_rng(seed)
    df = streams.items().dropna(subset='category')
    classes = np.array(sorted(df.category.unique()))
    said = {}
    for fold in range(5):
        # in another order than the table, and without a class that nobody of the fold was trained on
        of_fold = df[df.fold == fold].sample(frac=1, random_state=fold)
        logits = rng.normal(size=(len(of_fold), len(classes)))
        right = np.searchsorted(classes, of_fold.category)
        is_right = rng.random(len(of_fold)) < rightness
        logits[np.arange(len(of_fold)), right] += 20 * is_right
        said |= dict(zip(of_fold.item_id, classes[logits.argmax(1)]))
        np.savez(folder/f'{way} 0 {fold}.npz', ids=of_fold.item_id.to_numpy().astype(str), logits=logits,
                 classes=classes.astype(str))
    return said


def test_figures_are_those_of_all_folds_together(tmp_path):
    truth = streams.items().dropna(subset='category').set_index('item_id').category
    said = {way: saved(way, tmp_path, rightness, seed) for seed, (way, rightness) in enumerate(
        {streams.TODAY: .4, streams.BASE: .5, 'single, pretrained': .6, 'double, pretrained': .6}.items())}
    kept = tmp_path/'kept.csv'
    streams.predictions([0], tmp_path).to_csv(kept)
    table = streams.summary([0], streams.predictions([0], tmp_path), 40).set_index('way')
    # from the file alone, without the folds
    (tmp_path/'empty').mkdir()
    again = streams.summary([0], streams.predictions([0], tmp_path/'empty', kept), 40).set_index('way')
    pd.testing.assert_frame_equal(again, table)
    for way, of_way in said.items():
        expected = f1_score(truth, pd.Series(of_way)[truth.index], average='macro', zero_division=0)
        assert table.macro_f1[way] == pytest.approx(expected, abs=1e-4)
    assert table.over_today[streams.TODAY] == 0 == table.over_late[streams.BASE]
    single = table.loc['single, pretrained']
    assert single.over_late == pytest.approx(single.macro_f1 - table.macro_f1[streams.BASE], abs=2e-4)
    assert 0 < single.over_late_low < single.over_late < single.over_late_high
    # ways that are wrong on different items are better together
    assert table.macro_f1['single + double, logits'] > single.macro_f1
    assert 'text' not in table.index
