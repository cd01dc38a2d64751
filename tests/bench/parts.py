"""What parts, masks, crops and IBN are worth on products nobody trained on, small and on a CPU.

- `masks`: composites are drawings of the sample over photographs of shelves (`tests/composites.py`), 96 px,
  30% without a product. Dice of each picture of fold 0 by a model trained on folds 2 to 4; threshold and
  smallest area are chosen on fold 1. Each repetition draws the composites anew.
- `crop`: row F1 of fold 0 on cluttered composites by an encoder trained on those of folds 1 to 4, beside what
  a segmenter crops from them, and beside a second encoder of whole pictures, as two are better than one.
- `vendors`: an encoder with and without IBN, trained on five vendors' drawings, matches those of two others;
  each repetition keeps another fold's products back.
- `luma`, `grocery`: PCB-like stripes against one embedding; each repetition keeps another fold back.

Figures are means over repetitions, differences paired by listing with a 95% interval by resampling products.

`python tests/bench/parts.py --photos FOLDER --luma FOLDER --grocery FOLDER --out nbs/parts.csv` (hours). What
was done already is read from --work.
"""
import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.vision.augment import Resize, aug_transforms
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.data.masks import best_mask_rule, image_dice, read_mask
from fastmatch.data.segment import SegmentDataLoaders
from fastmatch.learner import match_learner
from fastmatch.learner.segment import segment_learner
from fastmatch.losses import Lovasz, SoftDice
from fastmatch.match import HeldOut, candidates, fusion_grid, heldout_fused, paired
from fastmatch.matcher.segment import Segmenter, crop_to_product, load_segmenter, with_crop
from fastmatch.models import Parts, with_ibn
from tests.composites import write_composites

MASK_PX, COMPOSITE_PX, ENCODER_PX, VENDORS_PX = 64, 96, 96, 64
MASKS = {'U-Net': {}, 'U-Net, scSE': {'attention': 'scse'}, 'U-Net, hypercolumn': {'hypercolumn': True},
         'U-Net, dual head': {'dual': True}, 'U-Net, scSE, dual head': {'attention': 'scse', 'dual': True},
         # the default loss is Dice where there is a product, and cross-entropy where there is none
         'U-Net, Dice alone': {'loss_func': SoftDice}, 'U-Net, Lovasz': {'loss_func': Lovasz},
         'FPN': {'decoder': 'fpn'}, 'FPN, scSE': {'decoder': 'fpn', 'attention': 'scse'},
         'FPN, hypercolumn': {'decoder': 'fpn', 'hypercolumn': True}}
KINDS = ('values', 'clusters')  # of what is kept of a repetition
CROPPED_BY = 'U-Net, scSE, dual head'
PARTS = {'one embedding': None, 'one embedding, 256 wide, stride 16': Parts((1,)),
         '3 stripes': Parts((3,)), 'whole + 2 + 3 stripes': Parts((1, 2, 3))}


def quietly(learn, epochs, rate=2e-3):
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(epochs, rate)
    return learn


# --- masks

def mask_composites(arguments, seed):
    "(table, folder) of pictures with their masks; the same drawings for each seed, over other backgrounds."
    table = pd.read_csv(demo_path()/'listings.csv')
    few = table.sample(min(arguments.mask_pictures, len(table)), random_state=0)
    folder = arguments.work/f'composites {seed}'
    composites = write_composites(few, demo_path()/'images', folder, COMPOSITE_PX, arguments.photos,
                                  seed=seed)
    return composites, folder


def found_on(learn, folder, table):
    "(probabilities uint8 (n,h,w), true masks bool) of a table's pictures, mirrored as well."
    segmenter = Segmenter(learn.model, (MASK_PX, MASK_PX), tta=True)
    masks = np.zeros((len(table), MASK_PX, MASK_PX), bool)
    for row, name in enumerate(table['mask']):
        if not isinstance(name, str): continue
        mask = Image.fromarray(read_mask(folder/name)).resize((MASK_PX, MASK_PX), Image.NEAREST)
        masks[row] = np.asarray(mask) == 1
    return segmenter.probabilities([folder/name for name in table.image]), masks


def masks(way, seed, arguments):
    "Dice of each picture of fold 0, of all and of those with and without a product."
    table, folder = mask_composites(arguments, seed)
    seed_everything(seed)
    dls = SegmentDataLoaders.from_df(table[table.fold != 0], folder, valid_fold=1, bs=16,
                                     item_tfms=Resize(MASK_PX, method='squish'),
                                     batch_tfms=aug_transforms(max_rotate=10, max_lighting=.2, max_warp=0))
    options = dict(MASKS[way])
    if 'loss_func' in options: options['loss_func'] = options['loss_func']()
    learn = quietly(segment_learner(dls, **options), arguments.mask_epochs)
    rule, _ = best_mask_rule(*found_on(learn, folder, table[table.fold == 1]))
    scored_on = table[table.fold == 0]
    probabilities, true = found_on(learn, folder, scored_on)
    if way == CROPPED_BY: learn.segmenter(rule, tta=True).save(arguments.work/f'segmenter {seed}')
    dice = image_dice(rule(probabilities), true)
    is_empty = ~true.any((1, 2))
    clusters = pd.factorize(scored_on.label_group)[0]
    return {'Dice of a picture': {way: (dice, clusters)},
            'Dice where there is a product': {way: (np.where(is_empty, np.nan, dice), clusters)},
            'Dice where there is none': {way: (np.where(is_empty, dice, np.nan), clusters)}}


# --- matching

def embedded(table, folder, arguments, seed, fold=0, image_arch='tf_efficientnet_lite0', size=ENCODER_PX,
             **options):
    "Embeddings of the listings of a fold, by an encoder that was trained on the others."
    seed_everything(seed)
    dls = MatchDataLoaders.from_df(table, folder, text_col=None, fold_col='fold', valid_fold=fold, bs=64,
                                   num_workers=0, phash=False, item_tfms=Resize(size, method='squish'),
                                   batch_tfms=augs('colour'), seed=seed)
    learn = quietly(match_learner(dls, image_arch, metrics=[], **options), arguments.epochs)
    return learn.embeddings(tta=True), learn


def judged(embeddings, only=('image',)) -> HeldOut:
    spaces = embeddings.spaces(only=only)
    return heldout_fused(candidates(spaces), embeddings.groups, grid=fusion_grid(list(spaces), ('mean',)),
                         halvings=10)


def rows_of(results: dict, figure: str) -> dict:
    "Row F1 and recall at 1 of each listing, by way."
    return {f'row F1, {figure}': {way: (each.row_f1, each.clusters) for way, each in results.items()},
            f'recall at 1, {figure}': {way: (each.recall_at_1, each.clusters)
                                       for way, each in results.items()}}


def crop(seed, arguments):
    segmenter = load_segmenter(arguments.work/f'segmenter {seed}')
    folder = arguments.work/f'listings {seed}'
    cluttered = write_composites(pd.read_csv(demo_path()/'listings.csv'), demo_path()/'images', folder,
                                 COMPOSITE_PX, arguments.photos, empty=0, seed=seed + 1000)
    white, kept = (crop_to_product(cluttered, folder, segmenter, arguments.work/f'cropped, {name} {seed}',
                                   blank=name == 'white') for name in ('white', 'kept'))
    whole, learn = embedded(cluttered, folder, arguments, seed)
    same = learn.embeddings(learn.dls.valid_df, tta=True, path=arguments.work/f'cropped, white {seed}')
    second, _ = embedded(cluttered, folder, arguments, seed + 1000)
    on_white, _ = embedded(white, folder, arguments, seed)
    on_kept, _ = embedded(kept, folder, arguments, seed)
    both = ('image', 'crop')
    results = {
        'whole': judged(whole), 'whole, two encoders': judged(with_crop(whole, second), both),
        'crop on white, the encoder of whole ones': judged(same),
        'crop, an encoder of its own': judged(on_kept),
        'crop on white, an encoder of its own': judged(on_white),
        'whole + crop on white': judged(with_crop(whole, on_white, blank=True), both)}
    return rows_of(results, 'cluttered pictures')


def vendors(seed, arguments):
    table = pd.read_csv(demo_path()/'listings.csv')
    is_unseen = table.vendor.isin(['noto', 'twemoji'])
    # a product that is matched is trained on from no vendor
    kept = table[(is_unseen & (table.fold == seed)) | (~is_unseen & (table.fold != seed))]
    archs = {'plain': 'tf_efficientnet_lite0', 'IBN-a': with_ibn('tf_efficientnet_lite0', 'a')}
    results = {way: judged(embedded(kept.reset_index(drop=True), demo_path()/'images', arguments, seed, seed,
                                    arch, VENDORS_PX)[0]) for way, arch in archs.items()}
    return rows_of(results, 'two unseen vendors')


def stripes(folder, figure, seed, arguments):
    table = pd.read_csv(folder/'listings.csv')
    results = {way: judged(embedded(table, folder/'images', arguments, seed, seed, size=ENCODER_PX,
                                    parts=parts)[0]) for way, parts in PARTS.items()}
    return rows_of(results, figure)


# --- all

# what a way is compared with; others with the first of their figure
COMPARED_WITH = {'FPN, scSE': 'FPN', 'FPN, hypercolumn': 'FPN', 'U-Net, scSE, dual head': 'U-Net',
                 'whole + crop on white': 'whole, two encoders'}


def jobs(arguments) -> dict:
    "Name -> what a repetition of it measures; crops need the segmenter that the masks trained."
    every = {f'masks, {way}': partial(masks, way) for way in MASKS} | {'crop': crop, 'vendors': vendors}
    if arguments.luma: every['luma'] = partial(stripes, arguments.luma, 'luma')
    if arguments.grocery: every['grocery'] = partial(stripes, arguments.grocery, 'grocery')
    return every


def repetition(name, measure, seed, arguments):
    "The rows of one repetition, measured unless that was done: {figure: {way: (values, clusters)}}."
    file = arguments.work/f'{name} {seed}.npz'
    if not file.exists():
        figures = measure(seed, arguments)
        np.savez(file, **{f'{figure}|{way}|{kind}': array for figure, ways in figures.items()
                          for way, arrays in ways.items() for kind, array in zip(KINDS, arrays)})
        print(name, seed, {way: round(float(np.nanmean(values)), 4)
                           for way, (values, _) in next(iter(figures.values())).items()}, flush=True)


def read(names, seeds, work) -> dict:
    "{figure: {way: [(values, clusters) of each repetition]}} of all that was measured."
    found = {}
    for name in names:
        for seed in seeds:
            file = work/f'{name} {seed}.npz'
            if not file.exists(): continue
            saved = np.load(file)
            for key in saved.files:
                figure, way, kind = key.split('|')
                if kind == 'clusters': continue
                found.setdefault(figure, {}).setdefault(way, []).append(
                    (saved[key], saved[f'{figure}|{way}|clusters']))
    return found


def together(repetitions) -> HeldOut:
    "Of the same listings the mean over repetitions; of others, all of them. NaN where a row says nothing."
    clusters = [each for _, each in repetitions]
    if all(np.array_equal(each, clusters[0]) for each in clusters):
        values = np.array([each for each, _ in repetitions])
        n_values = (~np.isnan(values)).sum(0)
        means = np.where(n_values, np.nansum(values, 0) / np.maximum(n_values, 1), np.nan)
        return HeldOut(means, clusters[0])
    starts = np.cumsum([0, *(each.max() + 1 for each in clusters)])
    return HeldOut(np.concatenate([values for values, _ in repetitions]),
                   np.concatenate([each + start for each, start in zip(clusters, starts)]))


def of_rows(result, is_kept, independent) -> HeldOut:
    return HeldOut(result.row_f1[is_kept], np.unique(result.clusters[is_kept], return_inverse=True)[1],
                   independent=independent)


def summary(found) -> pd.DataFrame:
    "A row for each figure and way: the mean, its standard error, and the difference to another way."
    rows = []
    for figure, ways in found.items():
        # neither the Dice of a picture nor its nearest listing hangs on a rule
        independent = not figure.startswith('row F1')
        for way, repetitions in ways.items():
            result = together(repetitions)
            is_known = ~np.isnan(result.row_f1)
            kept = of_rows(result, is_known, independent)
            row = {'figure': figure, 'way': way, 'repetitions': len(repetitions), 'n': int(is_known.sum()),
                   'value': kept.mean, 'se': kept.se}
            base = COMPARED_WITH.get(way, next(iter(ways)))
            if base != way and len(ways.get(base, [])) == len(repetitions):
                other = together(ways[base])
                gain = paired(kept, of_rows(other, is_known, independent))
                row |= {'compared_with': base, 'gain': gain.diff, 'low': gain.low, 'high': gain.high}
            rows.append(row)
    return pd.DataFrame(rows).round(4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', help='what to measure, by the beginning of its name')
    parser.add_argument('--photos', type=Path, help='folder of photographs for backgrounds; default: made up')
    parser.add_argument('--luma', type=Path, help='folder of the clothing catalogue')
    parser.add_argument('--grocery', type=Path, help='folder of the photographs of groceries')
    parser.add_argument('--epochs', type=int, default=7, help='of encoders')
    parser.add_argument('--mask-epochs', type=int, default=6)
    parser.add_argument('--mask-pictures', type=int, default=2100)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work', type=Path, default=Path('parts-work'), help='what was done already')
    parser.add_argument('--table', action='store_true', help='measure nothing, only write what was measured')
    parser.add_argument('--out', type=Path, help='CSV to write')
    arguments = parser.parse_args()
    if arguments.photos: arguments.photos = sorted(arguments.photos.rglob('*.jpg'))
    arguments.work.mkdir(exist_ok=True, parents=True)
    every = jobs(arguments)
    unknown = [name for name in arguments.names if not any(each.startswith(name) for each in every)]
    if unknown: parser.error(f'{unknown[0]!r}: nothing begins so; there are {list(every)}')
    for seed in arguments.seeds:
        for name, measure in every.items():
            if arguments.table or arguments.names and not name.startswith(tuple(arguments.names)): continue
            repetition(name, measure, seed, arguments)
    table = summary(read(every, arguments.seeds, arguments.work))
    print(table.to_string())
    if arguments.out:
        table.assign(command='python tests/bench/parts.py --photos FOLDER --luma FOLDER --grocery FOLDER '
                             '--out nbs/parts.csv').to_csv(arguments.out, index=False)


if __name__ == '__main__': main()
