"A run to report on without training: vectors with groups in them, the sample's pictures, and hostile titles."
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from fastmatch.data.demo import demo_path
from fastmatch.jobs.judge import judge_modalities
from fastmatch.match import Embeddings, Rule, among_themselves, candidates, choose_rule, heldout_fused

HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "'); --", 'a & b &lt; c &amp;lt;',
           'قميص قطني أبيض للرجال', '👟🇮🇩 sepatu 100%',
           'x' * 300, '</style></title><b>bold</b>', '{{7*7}} ${7*7} {% raw %}', ' \u202eturned round']


def some_listings(n_listings=60):
    "`n_listings` of the sample's listings in whole groups."
    listings = pd.read_csv(demo_path()/'listings.csv')
    order = listings.label_group.drop_duplicates().tolist()
    return listings.set_index('label_group').loc[order].reset_index().iloc[:n_listings].reset_index(drop=True)


def noisy_vectors(groups, noise, seed):
    "A direction for each group, and noise."
    rng = np.random.default_rng(seed)
    codes = pd.factorize(np.asarray(groups))[0]
    drawn = rng.normal(size=(codes.max() + 1, 16))[codes] + noise * rng.normal(size=(len(codes), 16))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


class MadeRun(NamedTuple):
    "Pieces of a report."
    embeddings: Embeddings
    rule: Rule
    table: dict
    image_files: list


@cache
def made_run(modalities=('image', 'title'), titles=True, k=8, n_listings=60):
    "A `MadeRun` whose rule was chosen on its embeddings."
    listings = some_listings(n_listings)
    vectors = {modality: noisy_vectors(listings.label_group, 1.1 + .3 * seed, seed)
               for seed, modality in enumerate(modalities)}
    embeddings = Embeddings(
        vectors, listings.posting_id, [*HOSTILE, *listings.title[len(HOSTILE):]] if titles else None,
        listings.label_group.to_numpy())
    found = candidates(embeddings.spaces(), k)
    rule = choose_rule(found, embeddings.groups)
    table = {**judge_modalities(among_themselves(embeddings), k=k),
             'fused': heldout_fused(found, embeddings.groups)}
    image_files = [demo_path()/'images'/image for image in listings.image]
    return MadeRun(embeddings, rule, table, image_files)
