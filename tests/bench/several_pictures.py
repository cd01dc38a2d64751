"""What several pictures a listing are worth, in row F1: the first alone, their mean vector, sets of pictures.

Listings with several pictures are made of rows of one product: luma's of one color (its views, the main one
first), any two rows of luma, two vendors' drawings of emoji. Pictures are embedded by an EfficientNet-Lite0
that was trained on none of them, titles (the first row's) by MiniLM; every fold is searched by itself, a
threshold chosen on half of its groups and scored on the other half.

'fused: ...' are whole listings: picture and title as people have them, against all pictures, and against
title and description, which is the text of the listing's other rows; weights and threshold are chosen on half
of the groups.

`python tests/bench/several_pictures.py --out nbs/several_pictures.csv`
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from fastmatch.match import (
    SIMILARITIES,
    Embeddings,
    HeldOut,
    Pictures,
    PictureSets,
    augment,
    candidates,
    fuse,
    fusion_grid,
    heldout,
    heldout_fused,
    paired,
)
from fastmatch.match.fields.texts import Texts
from fastmatch.matcher import Encoder, Picture
from fastmatch.models import MatchNet
from fastmatch.models.image import ImageEncoder
from fastmatch.models.text import TitleEncoder, load_tokenizer

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'
SIZES = {'luma': (160, 160), 'emoji': (96, 96)}
NEIGHBORS = 50
COMMAND = 'python tests/bench/several_pictures.py --out nbs/several_pictures.csv'


def embedded(name: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:  # (rows, of pictures, of titles)
    "A data set with the vectors of its pictures and of its titles, untrained."
    df = pd.read_csv(DATA/name/'listings.csv')
    # a shop shows the main view first: the order of the files would put another one there
    if 'view' in df: df = df.sort_values('view', key=lambda views: views != 'main', kind='stable',
                                         ignore_index=True)
    image = ImageEncoder('tf_efficientnet_lite0')
    picture = Picture(SIZES[name], 'squish', mean=image.mean, std=image.std)
    encoder = Encoder(MatchNet(None, image, neck=False), picture)
    pictures = encoder.embed([DATA/name/'images'/file for file in df.image])[0]['image']
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    title = TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id)
    reader = Encoder(MatchNet(None, None, title, neck=False), tokenizer=tokenizer)
    return df, pictures, reader.embed(titles=df.title.tolist())[0]['title']


def merged(
    df: pd.DataFrame,  # Rows
    way: str,  # 'color': rows of one product and color are a listing; 'pairs': two rows of one product are
    seed: int = 0,  # Of the pairs
) -> np.ndarray:  # int (rows,), the listing of each row, from 0 in order of appearance
    "Which rows make one listing."
    if way == 'color': return pd.factorize(df.label_group + ' ' + df.color)[0]
    shuffled = df.sample(frac=1, random_state=seed)
    places = shuffled.groupby('label_group').cumcount() // 2
    return pd.factorize(df.label_group + ' ' + places.reindex(df.index).astype(str))[0]


def ways(pictures: Pictures, titles: np.ndarray):
    "Name -> space, or several to fuse: by one vector, by sets; of pictures alone, and with the title."
    counts = pictures.counts
    firsts = pictures.vectors[counts.cumsum() - counts]

    def with_titles(vectors, of_titles): return np.concatenate([vectors, of_titles], 1) / 2**.5
    each = Pictures(with_titles(pictures.vectors, titles[pictures.listings]), pictures.listings)
    ids = np.arange(len(titles))
    for prefix, first, mean, sets in (
            ('', firsts, pictures.means(), pictures),
            ('joint: ', with_titles(firsts, titles), with_titles(pictures.means(), titles), each)):
        yield f'{prefix}first', Embeddings({'x': first}, ids).spaces()['x']
        yield f'{prefix}mean vector', Embeddings({'x': mean}, ids).spaces()['x']
        for similarity in SIMILARITIES:
            yield f'{prefix}sets, {similarity}', PictureSets(*sets, similarity=similarity)
        both = {similarity: PictureSets(*sets, similarity=similarity) for similarity in SIMILARITIES}
        yield f'{prefix}sets, half of each', both
        yield f'{prefix}first, augmented', augment(Embeddings({'x': first}, ids).spaces()['x'], k=2)
        yield f'{prefix}sets, best, augmented', augment(both['best'], k=2)


def judged(df, listings, pictures, titles):
    "Way -> `HeldOut` over the listings of all folds, each fold searched by itself."
    first_rows = pd.Series(np.arange(len(df))).groupby(listings).first().to_numpy()
    sets = Pictures.of(pictures, listings)
    found = {}
    for fold in sorted(df.fold.unique()):
        rows = np.flatnonzero((df.fold.to_numpy() == fold)[first_rows])
        groups = df.label_group.to_numpy()[first_rows[rows]]
        for way, space in ways(sets.take(rows), titles[first_rows[rows]]):
            found.setdefault(way, []).append(heldout(_neighbors(space, min(NEIGHBORS, len(rows))), groups))
    return {way: _together(of_folds) for way, of_folds in found.items()}, sets.counts


FUSED = {'picture + title': (False, False), 'pictures + title': (True, False),
         'picture + title + description': (False, True), 'pictures + title + description': (True, True)}


def fused_ways(sets: Pictures, titles: list, vectors: np.ndarray, descriptions: list):
    "Name -> spaces of whole listings, with one picture or all, with the title or a description besides."
    counts = sets.counts
    ids = np.arange(len(titles))
    for way, (all_pictures, with_description) in FUSED.items():
        image = sets if all_pictures else sets.vectors[counts.cumsum() - counts]
        spaces = Embeddings({'image': image, 'title': vectors}, ids, titles).spaces()
        if with_description:
            every = [' '.join(filter(None, texts)) for texts in zip(titles, descriptions)]
            spaces['all text'] = Texts('all text', every)
        yield f'fused: {way}', spaces


def judged_fused(df, listings, pictures, titles):
    "Way -> `HeldOut` of whole listings over all folds, each fold searched by itself."
    rows_by_listing = pd.Series(np.arange(len(df))).groupby(listings)
    first_rows = rows_by_listing.first().to_numpy()
    descriptions = [' '.join(df.title[rows[1:]]) or None for rows in rows_by_listing.apply(list)]
    sets = Pictures.of(pictures, listings)
    found = {}
    for fold in sorted(df.fold.unique()):
        rows = np.flatnonzero((df.fold.to_numpy() == fold)[first_rows])
        of_rows = first_rows[rows]
        groups = df.label_group.to_numpy()[of_rows]
        for way, spaces in fused_ways(sets.take(rows), df.title[of_rows].tolist(), titles[of_rows],
                                      [descriptions[row] for row in rows]):
            scored = candidates(spaces, min(NEIGHBORS, len(rows)))
            grid = fusion_grid([name for name in spaces if name not in scored.join], ('mean',))
            found.setdefault(way, []).append(heldout_fused(scored, groups, grid=grid, halvings=5))
    return {way: _together(of_folds) for way, of_folds in found.items()}


def _neighbors(space, k):
    if not isinstance(space, dict): return space.search(k)
    return fuse(candidates(space, k), 'mean', dict.fromkeys(space, 1 / len(space)))


def _together(of_folds):
    offsets = np.cumsum([0, *(each.clusters.max() + 1 for each in of_folds)])
    return HeldOut(np.concatenate([each.row_f1 for each in of_folds]),
                   np.concatenate([each.clusters + offset for each, offset in zip(of_folds, offsets)]))


def rows_of(name: str, way: str, df, pictures, titles) -> list[dict]:
    "The lines of one data set: each way's row F1, and what it adds to the first picture and to the mean."
    results, counts = judged(df, merged(df, way), pictures, titles)
    lines = []
    for which, result in results.items():
        line = {'set': name, 'merged': way, 'listings': len(counts), 'several': int((counts > 1).sum()),
                'way': which, 'row_f1': round(result.mean, 4), 'se': round(result.se, 4)}
        prefix = 'joint: ' if which.startswith('joint: ') else ''
        for over in ('first', 'mean vector'):
            gain = paired(result, results[f'{prefix}{over}'])
            line |= {f'over_{over.split()[0]}': round(gain.diff, 4), f'low_{over.split()[0]}':
                     round(gain.low, 4), f'high_{over.split()[0]}': round(gain.high, 4)}
        lines.append({**line, 'command': COMMAND})
    fused = judged_fused(df, merged(df, way), pictures, titles)
    plain = fused['fused: picture + title']
    for which, result in fused.items():
        gain = paired(result, plain)
        lines.append({'set': name, 'merged': way, 'listings': len(counts), 'several': int((counts > 1).sum()),
                      'way': which, 'row_f1': round(result.mean, 4), 'se': round(result.se, 4),
                      'over_first': round(gain.diff, 4), 'low_first': round(gain.low, 4),
                      'high_first': round(gain.high, 4), 'command': COMMAND})
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, help='CSV to write')
    arguments = parser.parse_args()
    lines = []
    for name, merges in (('luma', ('color', 'pairs')), ('emoji', ('pairs',))):
        data = embedded(name)
        for way in merges: lines += rows_of(name, way, *data)
    table = pd.DataFrame(lines)
    print(table.drop(columns='command').to_string(index=False))
    if arguments.out: table.to_csv(arguments.out, index=False)


if __name__ == '__main__': main()
