"""The three sets that tricks are measured on, as features that stand still.

Pictures go once through ImageNet's EfficientNet-Lite0, titles once through MiniLM; what is trained is a small
network on these vectors, and the heads, by the real `match_learner`. A step takes milliseconds, so that a
training can be long enough for its score to have stopped rising.
"""
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from fastai.torch_core import TensorCategory
from fastcore.basics import chunked
from torch import nn

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.data.loader import MatchDL
from fastmatch.data.split import group_folds
from fastmatch.data.title import TensorTitle
from fastmatch.models import FrameFeatures

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'
# the sample is in the package; the others lie beside the repository, in `shared/data`
SETS = {'emoji': demo_path()/'listings.csv', 'luma': DATA/'luma'/'listings.csv',
        'amazon_google': DATA/'text'/'amazon_google.csv'}
PICTURE_SIZES = {'emoji': 64, 'luma': 160}  # those of the files
FOLDS = 5
BATCH = 64  # listings
WIDTH = 256  # of the embedding
ROW = 'row'  # the column that stands for a listing's features: its place in the table


def listings(name: str) -> pd.DataFrame:
    """A set with `fold` and `row`; of the two shops' titles those that have a match.

    Raises `InputError` for a set that isn't one of `SETS`."""
    if name not in SETS: raise InputError(f'set={name!r}: choose one of {", ".join(SETS)}')
    if not SETS[name].exists():
        raise InputError(f'set={name!r}: its table {SETS[name]} is not there; '
                         '--sets emoji needs none')
    df = pd.read_csv(SETS[name], keep_default_na=False)
    if 'fold' not in df:
        df = df[df.groupby('label_group').title.transform('size') > 1].reset_index(drop=True)
        df['fold'] = group_folds(df, 'label_group', FOLDS, seed=0)
    df[ROW] = np.arange(len(df)).astype(str)
    return df


def features(
    name: str,  # Of a set
    folder: Path,  # Where they are kept
) -> np.ndarray:  # float32 (n,d), rows of length 1
    "Pictures' and titles' vectors side by side, each half as long as the whole."
    file = Path(folder)/f'{name}.npy'
    if file.exists(): return np.load(file)
    from tests.bench.textsets import embedded
    df = listings(name)
    parts = [embedded(df.title.tolist(), name, None)]
    if name in PICTURE_SIZES:
        encode = FrameFeatures('tf_efficientnet_lite0', size=PICTURE_SIZES[name], method='pad')
        parts.append(encode([SETS[name].parent/'images'/image for image in df.image]))
    parts = [F.normalize(torch.from_numpy(part - part.mean(0))) for part in parts]
    vectors = F.normalize(torch.cat(parts, 1)).numpy()
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, vectors)
    return vectors


class RowTokenizer:
    "Reads a listing's place in the table, which is its one token."
    pad_token_id = 0

    def __call__(self, titles, **kwargs):
        return {'input_ids': [[int(title) if title.isdigit() else 0] for title in titles]}

    def decode(self, ids, **kwargs):
        "The place as text."
        return ' '.join(map(str, ids))


class VectorLoader(MatchDL):
    "A loader that makes a batch of places and groups at once: row by row that takes longer than a step."
    def create_batches(self, rows):
        "Batches of (places (n,1), groups (n,)); of a table without groups places alone."
        places = torch.tensor(self.dataset.items[ROW].astype(int).to_numpy())[:, None]
        parts = [TensorTitle(places)]
        if len(self.dataset.tls) > self.n_inp:
            numbers = {group: number for number, group in enumerate(self.vocab)}
            groups = self.dataset.items.label_group.map(numbers).to_numpy()
            parts.append(TensorCategory(torch.tensor(groups)))
        for batch in chunked(rows, self.bs, self.drop_last):
            yield tuple(part[list(batch)] for part in parts)


def loaders(
    df: pd.DataFrame,  # With `row` and `fold`
    fold: int,  # Held out
    sampler: str | None = None,  # As `MatchDataLoaders` takes it
    seed: int = 0,  # Of the batches
) -> MatchDataLoaders:
    "Loaders of a listing's place in the table, which `StoredVectors` reads as its title."
    dls = MatchDataLoaders.from_df(df, image_col=None, text_col=ROW, fold_col='fold', valid_fold=fold,
                                   bs=BATCH, num_workers=0, phash=False, sampler=sampler, seed=seed)
    fast = [loader.new(cls=VectorLoader) for loader in dls.loaders]
    fast[0].sampler = dls.train.sampler
    fast[0].rng.seed(seed)
    dls.loaders = fast
    return dls


def main_directions(
    vectors: np.ndarray,  # float32 (n,d)
) -> np.ndarray:  # float32 (WIDTH, d)
    "The directions in which the vectors differ most."
    return torch.linalg.svd(torch.from_numpy(vectors), full_matrices=False)[2][:WIDTH].numpy()


class StoredVectors(nn.Module):
    """A text encoder whose token is a listing's place: a linear layer, which is trained, over its stored
    vector. The layer starts from the directions in which the vectors differ most, so that a training starts
    from about what the vectors themselves are worth."""
    def __init__(
        self,
        vectors: np.ndarray,  # float32 (n,d)
        directions: np.ndarray,  # float32 (width, d), from `main_directions`
    ):
        super().__init__()
        self.tokenizer = RowTokenizer()
        self.name = 'stored'
        self.register_buffer('vectors', torch.from_numpy(vectors), persistent=False)
        self.n_out = len(directions)
        self.project = nn.Linear(vectors.shape[1], self.n_out)
        with torch.no_grad():
            # features of about unit variance, as an encoder gives them
            self.project.weight.copy_(torch.from_numpy(directions) * self.n_out**.5)
            self.project.bias.zero_()

    def forward(
        self,
        ids,  # int64 (n,1)
    ):  # float32 (n, width)
        return self.project(self.vectors[ids[:, 0]])
