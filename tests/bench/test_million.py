"The scale run on a small size: its figures are there and its vectors are what it says."
import numpy as np
import pandas as pd
import pytest

from tests.bench import million


def test_vectors_are_as_stated():
    base = np.random.default_rng(0).normal(size=(5, 384)).astype(np.float32) * 3
    vectors = million.made(4000, base, .5)
    assert vectors.shape == (4000, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ (base / np.linalg.norm(base, axis=1, keepdims=True)).T
    title = cosines.argmax(1)
    assert abs(cosines.max(1).mean() - 1 / 1.25**.5) < .005 and np.bincount(title).min() > 600
    copies = vectors[title == 0]
    assert abs((copies @ copies.T)[np.triu_indices(len(copies), 1)].mean() - .8) < .005
    assert abs(million.made(500, None, .5) @ million.made(500, None, .5, 1).T).max() < .4


@pytest.mark.slow
def test_a_small_run(tmp_path):
    out = tmp_path/'scale.csv'
    np.save(tmp_path/'t.npy', np.random.default_rng(0).normal(size=(300, 384)).astype(np.float32))
    arguments = ['--rows', '600', '--titles', str(tmp_path/'t.npy'), '--sample', '200', '--out', str(out)]
    million.main(arguments)
    for _ in range(2): million.main([*arguments, '--kind', 'ivfpq'])
    result = pd.read_csv(out)
    assert result.kind.tolist() == ['exact', 'ivfpq'] and (result.rows == 600).all()
    assert result.recall.between(.97, 1).all() and result.peak_mb.between(50, 2000).all()
    parts = result.build_s + result.try_s + result.search_s + result.decide_s
    assert np.allclose(result.total_s, parts, atol=.05) and result.recall_rows.tolist() == [0, 200]
