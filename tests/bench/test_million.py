"The scale run on a small size: its figures are there and its vectors are what it says."
import numpy as np
import pandas as pd

from tests.bench import million


def test_vectors_are_as_stated():
    base = np.random.default_rng(0).normal(size=(5, 384)).astype(np.float32) * 3
    v = million.made(4000, base, .5)
    assert v.shape == (4000, 384) and np.allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
    cos = v @ (base / np.linalg.norm(base, axis=1, keepdims=True)).T
    mine = cos.argmax(1)
    assert abs(cos.max(1).mean() - 1 / 1.25**.5) < .005 and np.bincount(mine).min() > 600
    a = v[mine == 0]
    assert abs((a @ a.T)[np.triu_indices(len(a), 1)].mean() - .8) < .005
    assert abs(million.made(500, None, .5) @ million.made(500, None, .5, 1).T).max() < .4


def test_a_small_run(tmp_path):
    out = tmp_path/'scale.csv'
    np.save(tmp_path/'t.npy', np.random.default_rng(0).normal(size=(300, 384)).astype(np.float32))
    args = ['--rows', '600', '--titles', str(tmp_path/'t.npy'), '--sample', '200', '--out', str(out)]
    million.main(args), million.main([*args, '--kind', 'ivfpq']), million.main([*args, '--kind', 'ivfpq'])
    result = pd.read_csv(out)
    assert (
        result.kind.tolist() == ['exact', 'ivfpq']
        and (result.rows == 600).all()
        and result.recall.between(0.97, 1).all()
        and result.peak_mb.between(50, 2000).all()
    )
    assert np.allclose(
        result.total_s, result.build_s + result.try_s + result.search_s + result.decide_s, atol=0.05
    ) and result.recall_rows.tolist() == [0, 200]
