"The ladder's bench measures what it says: the package's rungs, pooled over folds and paired."
import numpy as np
import pytest

from fastmatch.match import Embeddings, HeldOut, among_themselves, in_the_catalogue, paired
from fastmatch.match import ladder as package_ladder
from tests.bench import ladder
from tests.match.search.made import FEW, listings


def held_out_of(embeddings): return embeddings.groups % 3 == 0


def test_what_is_saved_is_loaded(tmp_path):
    embeddings = listings()
    embeddings = Embeddings(embeddings, embeddings.ids.astype(str), embeddings.titles,
                            embeddings.groups.astype(str), np.arange(120) % 3 == 1, embeddings.phash)
    fold = np.arange(120) % 5
    ladder.save(embeddings, tmp_path/'a.npz', fold, 2)
    again, held_out = ladder.load(tmp_path/'a.npz')
    np.testing.assert_array_equal(held_out, fold == 2)
    for modality, vectors in embeddings.items(): np.testing.assert_array_equal(again[modality], vectors)
    assert again.titles == embeddings.titles and again.phash.tolist() == embeddings.phash.tolist()
    for attribute in ('ids', 'groups', 'trained_on'):
        np.testing.assert_array_equal(getattr(again, attribute), getattr(embeddings, attribute))


@pytest.mark.slow
def test_rungs_are_the_packages_pooled_over_folds():
    tables = [(embeddings, held_out_of(embeddings)) for embeddings in (listings(seed=1), listings(seed=2))]
    table = ladder.measure('made', tables, echo=lambda line: None, menu=FEW, halvings=1, k=12)
    for name, part in table.groupby('setting'):
        climbed = []
        for embeddings, held_out in tables:
            setting = among_themselves(embeddings.take(held_out))
            if name != setting.name: setting = in_the_catalogue(embeddings, held_out)
            climbed.append(package_ladder(setting, FEW, halvings=1, k=12).rungs)
        assert list(part.rung) == [rung.name for rung in climbed[0]]
        for position, row in enumerate(part.itertuples()):
            scores = np.concatenate([rungs[position].heldout.row_f1 for rungs in climbed])
            assert row.n == len(scores) and abs(row.row_f1 - scores.mean()) < 6e-5


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    rungs = {rung: HeldOut(rng.random(30), np.arange(30) // 3) for rung in ('alone', 'fused', '+ a', '+ b')}
    table = ladder.table_of(rungs).set_index('rung')
    assert np.isnan(table.over_before['alone']) and np.isnan(table.over_fused['fused'])
    for rung, before in (('fused', 'alone'), ('+ a', 'fused'), ('+ b', '+ a')):
        expected = paired(rungs[rung], rungs[before])
        found = table.loc[rung, ['over_before', 'low_before', 'high_before']].tolist()
        np.testing.assert_allclose(found, [expected.diff, expected.low, expected.high])
    assert table.over_fused['+ b'] == paired(rungs['+ b'], rungs['fused']).diff


def test_folds_of_one_number_are_different_groups():
    first, second = (HeldOut(np.full(4, value), np.array([0, 0, 1, 1])) for value in (0., 1.))
    both = ladder.pooled([first, second])
    assert both.clusters.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and both.mean == .5
