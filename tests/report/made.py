"A run to report on without training: vectors with products in them, the sample's pictures, and titles that try to break out of a page."
from functools import cache

import numpy as np
import pandas as pd

from fastmatch.data.sample import demo_path
from fastmatch.jobs.train import judge
from fastmatch.match import Embeddings, candidates, choose_rule

HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "'); --", 'a & b &lt; c &amp;lt;',
           'قميص قطني أبيض للرجال', '👟🇮🇩 sepatu 100%',
           'x' * 300, '</style></title><b>bold</b>', '{{7*7}} ${7*7}', ' \u202eturned round']


def listings(n=60):
    "`n` of the sample's listings in whole products."
    df = pd.read_csv(demo_path()/'listings.csv')
    order = df.label_group.drop_duplicates().tolist()
    return df.set_index('label_group').loc[order].reset_index().iloc[:n].reset_index(drop=True)


def vectors(labels, noise, seed):
    "A direction for each product, and noise."
    rng, y = np.random.default_rng(seed), pd.factorize(np.asarray(labels))[0]
    v = rng.normal(size=(y.max() + 1, 16))[y] + noise * rng.normal(size=(len(y), 16))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


@cache
def run(parts=('image', 'title'), titles=True, k=8, n=60):
    "Pieces of a report: (emb, rule, table, files)."
    df = listings(n)
    emb = Embeddings({o: vectors(df.label_group, 1.1 + .3 * i, i) for i, o in enumerate(parts)}, df.posting_id,
                     [*HOSTILE, *df.title[len(HOSTILE):]] if titles else None, df.label_group.to_numpy())
    cand = candidates(emb.spaces(), k)
    return emb, choose_rule(cand, emb.groups), judge(emb, k=k)[0], [demo_path()/'images'/o for o in df.image]
