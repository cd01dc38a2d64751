"A run to report on without training: vectors with groups in them, the sample's pictures, and hostile titles."
from functools import cache

import numpy as np
import pandas as pd

from fastmatch.data.demo import demo_path
from fastmatch.jobs.train import judge
from fastmatch.match import Embeddings, candidates, choose_rule

HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "'); --", 'a & b &lt; c &amp;lt;',
           'قميص قطني أبيض للرجال', '👟🇮🇩 sepatu 100%',
           'x' * 300, '</style></title><b>bold</b>', '{{7*7}} ${7*7} {% raw %}', ' \u202eturned round']


def listings(n=60):
    "`n` of the sample's listings in whole groups."
    df = pd.read_csv(demo_path()/'listings.csv')
    order = df.label_group.drop_duplicates().tolist()
    return df.set_index('label_group').loc[order].reset_index().iloc[:n].reset_index(drop=True)


def vectors(groups, noise, seed):
    "A direction for each group, and noise."
    rng = np.random.default_rng(seed)
    codes = pd.factorize(np.asarray(groups))[0]
    drawn = rng.normal(size=(codes.max() + 1, 16))[codes] + noise * rng.normal(size=(len(codes), 16))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@cache
def run(modalities=('image', 'title'), titles=True, k=8, n=60):
    "Pieces of a report: (embeddings, rule, table, files)."
    df = listings(n)
    made = {modality: vectors(df.label_group, 1.1 + .3 * i, i) for i, modality in enumerate(modalities)}
    embeddings = Embeddings(
        made, df.posting_id, [*HOSTILE, *df.title[len(HOSTILE):]] if titles else None,
        df.label_group.to_numpy())
    rule = choose_rule(candidates(embeddings.spaces(), k), embeddings.groups)
    files = [demo_path()/'images'/image for image in df.image]
    return embeddings, rule, judge(embeddings, k=k)[0], files
