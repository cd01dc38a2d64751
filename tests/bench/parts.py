"""What parts, masks and cropping are worth on products nobody trained on, small and on a CPU.

Composites are drawings of the sample over photographs of shelves (`tests/composites.py`), 96 px, 30% of those
for masks without a product. `masks`: Dice of each picture of fold 0 by a U-Net trained on folds 2 to 4, the
threshold and smallest area chosen on fold 1. `crop`: row F1 of fold 0 by an encoder that was trained on folds
1 to 4 of cluttered pictures, beside one trained on what a segmenter cropped from them, and beside a second
one of whole pictures, as two encoders are better than one. `vendors`: an encoder with and without IBN trained
on five vendors' drawings, matching those of the other two. `parts`: PCB-like stripes against one embedding.

`python tests/bench/parts.py masks crop vendors parts --photos FOLDER --luma FOLDER --out nbs/parts.csv`
"""
import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.vision.augment import Resize, aug_transforms
from PIL import Image

from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.data.masks import best_mask_rule, image_dice, read_mask
from fastmatch.data.segment import SegmentDataLoaders
from fastmatch.learner import match_learner
from fastmatch.learner.segment import segment_learner
from fastmatch.match import HeldOut, candidates, fusion_grid, heldout_fused, paired
from fastmatch.matcher.segment import Segmenter, crop_to_product, with_crop
from fastmatch.models import Parts, with_ibn
from tests.composites import write_composites

MASK_PX, ENCODER_PX, COMPOSITE_PX = 64, 64, 96
VARIANTS = {'U-Net': {}, 'scSE': {'attention': 'scse'}, 'dual': {'dual': True},
            'scSE + dual': {'attention': 'scse', 'dual': True}}


def line(figure, way, result, base=None, **more):
    "One row of the table: a way's mean with its standard error, and what it adds to another."
    row = {'figure': figure, 'way': way, 'n': len(result.row_f1), 'value': round(result.mean, 4),
           'se': round(result.se, 4), **more}
    if base is not None:
        gain = paired(result, base)
        row |= {'gain': round(gain.diff, 4), 'low': round(gain.low, 4), 'high': round(gain.high, 4)}
    print(row, flush=True)
    return row


def quietly(learn, epochs, rate=2e-3):
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(epochs, rate)
    return learn


# --- masks

def trained_on_masks(folder, table, options, epochs, seed):
    "A learner of masks whose validation fold is 1; the pictures of fold 0 are left out."
    seed_everything(seed)
    dls = SegmentDataLoaders.from_df(table[table.fold != 0], folder, valid_fold=1, bs=16,
                                     item_tfms=Resize(MASK_PX, method='squish'),
                                     batch_tfms=aug_transforms(max_rotate=10, max_lighting=.2, max_warp=0))
    return quietly(segment_learner(dls, **options), epochs)


def found_on(learn, folder, table):
    "(probabilities uint8 (n,h,w), true masks bool) of a table's pictures, mirrored as well."
    pictures = [folder/name for name in table.image]
    segmenter = Segmenter(learn.model, (MASK_PX, MASK_PX), tta=True)
    masks = np.zeros((len(table), MASK_PX, MASK_PX), bool)
    for row, name in enumerate(table['mask']):
        if not isinstance(name, str): continue
        mask = Image.fromarray(read_mask(folder/name)).resize((MASK_PX, MASK_PX), Image.NEAREST)
        masks[row] = np.asarray(mask) == 1
    return segmenter.probabilities(pictures), masks


def measure_masks(folder, table, arguments):
    "Rows of the variants, and the segmenter of the last one with its rule."
    lines, base, segmenter = [], None, None
    chosen_on, scored_on = table[table.fold == 1], table[table.fold == 0]
    for way, options in VARIANTS.items():
        if way not in arguments.variants: continue
        learn = trained_on_masks(folder, table, options, arguments.mask_epochs, arguments.seed)
        rule, _ = best_mask_rule(*found_on(learn, folder, chosen_on))
        probabilities, true = found_on(learn, folder, scored_on)
        dice = image_dice(rule(probabilities), true)
        result = HeldOut(dice, pd.factorize(scored_on.label_group)[0], independent=True)
        empty = ~true.any((1, 2))
        more = {'of_products': round(dice[~empty].mean(), 4), 'of_empties': round(dice[empty].mean(), 4)}
        lines.append(line('Dice of a picture', way, result, base, **more))
        if base is None: base = result
        segmenter = Segmenter(learn.model, (MASK_PX, MASK_PX), rule, tta=True)
    return lines, segmenter


# --- matching

def embedded(table, folder, arguments, seed, image_arch='tf_efficientnet_lite0', size=ENCODER_PX, **options):
    "Embeddings of the listings of fold 0, by an encoder that was trained on the others."
    seed_everything(seed)
    dls = MatchDataLoaders.from_df(table, folder, text_col=None, fold_col='fold', valid_fold=0, bs=64,
                                   num_workers=0, phash=False, item_tfms=Resize(size, method='squish'),
                                   batch_tfms=augs('colour'), seed=seed)
    learn = match_learner(dls, image_arch, metrics=[], **options)
    if arguments.epochs: quietly(learn, arguments.epochs)
    return learn.embeddings(tta=True), learn


def judged(embeddings, only=None):
    spaces = embeddings.spaces(only=only) if only else embeddings.spaces()
    scored = candidates(spaces)
    return heldout_fused(scored, embeddings.groups, grid=fusion_grid(list(spaces), ('mean',)), halvings=10)


def measure_crop(folder, table, segmenter, arguments, scratch):
    # an untrained encoder needs no pictures to train on
    if not arguments.epochs: table = pd.concat([table[table.fold == 0], table[table.fold == 1].head(64)])
    cluttered = write_composites(table, demo_path()/'images', folder/'listings', COMPOSITE_PX,
                                 arguments.photos, empty=0, seed=arguments.seed + 1)
    whole_folder = folder/'listings'
    crop_to_product(cluttered, whole_folder, segmenter, scratch/'cropped')
    whole, learn = embedded(cluttered, whole_folder, arguments, arguments.seed)
    same = learn.embeddings(learn.dls.valid_df, tta=True, path=scratch/'cropped')
    base = judged(whole, ('image',))
    name = 'row F1, cluttered' + ('' if arguments.epochs else ', untrained encoder')
    lines = [line(name, 'whole', base), line(name, 'crop', judged(same, ('image',)), base),
             line(name, 'whole + crop', judged(with_crop(whole, same), ('image', 'crop')), base)]
    if not arguments.epochs: return lines
    second, _ = embedded(cluttered, whole_folder, arguments, arguments.seed + 1)
    cropped, _ = embedded(cluttered, scratch/'cropped', arguments, arguments.seed)
    two = judged(with_crop(whole, second), ('image', 'crop'))
    lines.append(line(name, 'whole, two encoders', two, base))
    lines.append(line(name, 'crop by one trained on crops', judged(cropped, ('image',)), base))
    both = judged(with_crop(whole, cropped), ('image', 'crop'))
    lines.append(line(name, 'whole + crop by one trained on crops', both, base))
    lines.append(line(name, 'the same, over two encoders of whole', both, two))
    return lines


def measure_vendors(table, arguments):
    "Trained on five vendors' drawings; the products of fold 0 of the other two are matched with each other."
    unseen = table.vendor.isin(['noto', 'twemoji'])
    # products of fold 0 alone are neither trained on
    kept = table[(unseen & (table.fold == 0)) | (~unseen & (table.fold != 0))].reset_index(drop=True)
    lines = []
    for seed in range(arguments.seeds):
        results = {}
        for way, image_arch in (('plain', 'tf_efficientnet_lite0'),
                                ('IBN-a', with_ibn('tf_efficientnet_lite0', 'a'))):
            embeddings, _ = embedded(kept, demo_path()/'images', arguments, seed, image_arch)
            results[way] = judged(embeddings, ('image',))
        for way, result in results.items():
            lines.append(line('row F1, two unseen vendors', way, result,
                              None if way == 'plain' else results['plain'], seed=seed))
    return lines


PARTS = {'one embedding': None, 'one embedding, 256 wide, stride 16': Parts((1,)),
         'PCB, 3 stripes': Parts((3,)), 'whole + 2 + 3 stripes': Parts((1, 2, 3))}


def measure_parts(arguments):
    table = pd.read_csv(arguments.luma/'listings.csv')
    lines = []
    base = None
    for way, parts in PARTS.items():
        embeddings, _ = embedded(table, arguments.luma/'images', arguments, arguments.seed, size=96,
                                 parts=parts)
        result = judged(embeddings, ('image',))
        lines.append(line('row F1, luma fold 0', way, result, base))
        if base is None: base = result
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('figures', nargs='+', choices=['masks', 'crop', 'vendors', 'parts'])
    parser.add_argument('--photos', type=Path, help='folder of photographs for backgrounds; default: made up')
    parser.add_argument('--luma', type=Path, help='folder of the clothing catalogue')
    parser.add_argument('--epochs', type=int, default=5, help='of encoders')
    parser.add_argument('--mask-epochs', type=int, default=6)
    parser.add_argument('--mask-pictures', type=int, default=1000)
    parser.add_argument('--variants', nargs='+', default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--seeds', type=int, default=1, help='repetitions of `vendors`')
    parser.add_argument('--out', type=Path, help='CSV to write')
    arguments = parser.parse_args()
    if arguments.photos: arguments.photos = sorted(arguments.photos.rglob('*.jpg'))
    table = pd.read_csv(demo_path()/'listings.csv')
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        if {'masks', 'crop'} & set(arguments.figures):
            few = table.sample(min(arguments.mask_pictures, len(table)), random_state=arguments.seed)
            composites = write_composites(few, demo_path()/'images', scratch/'masks', COMPOSITE_PX,
                                          arguments.photos, seed=arguments.seed)
            found, segmenter = measure_masks(scratch/'masks', composites, arguments)
            lines += found
        if 'crop' in arguments.figures:
            lines += measure_crop(scratch, table, segmenter, arguments, scratch)
        if 'vendors' in arguments.figures: lines += measure_vendors(table, arguments)
        if 'parts' in arguments.figures: lines += measure_parts(arguments)
    if arguments.out:
        pd.DataFrame(lines).assign(command=f'python tests/bench/parts.py {" ".join(sys.argv[1:])}').to_csv(
            arguments.out, index=False)


if __name__ == '__main__': main()
