"Overlaps of masks against naive counts, the exact rule against every rule, and masks that can't be read."
import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastmatch.core import InputError
from fastmatch.data.masks import (
    MaskRule,
    best_mask_rule,
    check_masks,
    image_dice,
    product_box,
    read_mask,
    scores_by_class,
)


def masks(seed, n=6, side=5, share=.3):
    rng = np.random.default_rng(seed)
    made = rng.random((n, side, side)) < share
    made[0] = False
    return made


def naive_dice(found, true):
    both = total = 0
    for one, other in zip(found.ravel().tolist(), true.ravel().tolist()):
        both += one and other
        total += one + other
    return 2 * both / total if total else 1.


def test_dice_of_pictures_is_a_naive_count():
    found, true = masks(0), masks(1)
    expected = [naive_dice(*pair) for pair in zip(found, true)]
    np.testing.assert_allclose(image_dice(found, true), expected, rtol=1e-15)
    assert image_dice(found, true)[0] == 1 and (image_dice(true, true) == 1).all()
    assert image_dice(masks(0)[1:2], np.zeros((1, 5, 5), bool)) == 0


def test_scores_of_classes_are_naive_counts():
    rng = np.random.default_rng(0)
    found, true = rng.integers(0, 3, (2, 4, 5, 6))
    table = scores_by_class(found, true, ['background', 'bag', 'shoe', 'hat'])
    for number in range(3):
        both = either = 0
        for one, other in zip(found.ravel(), true.ravel()):
            both += one == number and other == number
            either += one == number or other == number
        assert table.iou[number] == both / either
        assert table.dice[number] == pytest.approx(naive_dice(found == number, true == number), abs=1e-15)
    assert table.pixels.sum() == true.size and np.isnan(table.dice[3]) and np.isnan(table.iou[3])


@pytest.mark.parametrize('seed', range(6))
def test_the_rule_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    true = masks(seed, 7, 4)
    true[1] = False
    # few values, so that there are ties
    probabilities = (rng.integers(0, 5, true.shape) * 40 + 60 * true).astype(np.uint8)
    rule, best = best_mask_rule(probabilities, true)
    assert image_dice(rule(probabilities), true).mean() == pytest.approx(best, abs=1e-12)
    scores = []
    for threshold, smallest in itertools.product(range(1, 256), range(17)):
        marked = probabilities >= threshold
        marked &= (marked.sum((1, 2)) >= smallest)[:, None, None]
        scores.append(image_dice(marked, true).mean())
    assert best == pytest.approx(max(scores), abs=1e-12)


def test_one_product_among_empty_pictures():
    "What is as probable everywhere is best marked nowhere."
    true = np.zeros((3, 4, 4), bool)
    probabilities = np.full((3, 4, 4), 200, np.uint8)
    with pytest.raises(InputError, match='all 3 masks are empty'): best_mask_rule(probabilities, true)
    true[0, 0, 0] = True
    rule, best = best_mask_rule(probabilities, true)
    assert best == pytest.approx(2 / 3) and not rule(probabilities).any()
    rule, best = best_mask_rule(probabilities, np.ones_like(true))
    assert best == 1 and rule(probabilities).all() and rule.threshold == 128


def test_a_small_area_is_taken_for_none():
    probabilities = np.zeros((2, 10, 10), np.uint8)
    probabilities[0, :2, :2], probabilities[1, :5, :5] = 255, 255
    marked = MaskRule(128, .05)(probabilities)
    assert not marked[0].any() and marked[1].sum() == 25


def test_the_box_around_a_product():
    mask = np.zeros((20, 30), bool)
    mask[5:10, 8:18] = True
    assert product_box(mask, 0) == (8, 5, 18, 10)
    assert product_box(mask, .2) == (6, 3, 20, 12) and product_box(mask, 5) == (0, 0, 30, 20)
    assert product_box(np.zeros((4, 4), bool)) is None


def test_a_palette_is_read_as_its_numbers(tmp_path):
    numbers = np.array([[0, 1], [2, 0]], np.uint8)
    image = Image.fromarray(numbers, 'P')
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    image.save(tmp_path/'palette.png')
    np.testing.assert_array_equal(read_mask(tmp_path/'palette.png'), numbers)
    Image.fromarray(numbers.astype(bool)).save(tmp_path/'bits.png')
    np.testing.assert_array_equal(read_mask(tmp_path/'bits.png'), numbers > 0)


def test_what_is_wrong_with_masks_is_told(tmp_path):
    Image.new('RGB', (6, 4)).save(tmp_path/'picture.png')
    for name, mask in (('good', np.eye(4, 6)), ('small', np.eye(3)), ('white', 255 * np.eye(4, 6)),
                       ('many', np.full((4, 6), 2))):
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path/f'{name}.png')
    Image.new('RGB', (6, 4)).save(tmp_path/'colors.png')
    (tmp_path/'text.png').write_text('no picture')

    def check(mask, picture='picture.png'):
        table = pd.DataFrame({'image': ['picture.png', picture], 'mask': ['good.png', mask]})
        check_masks(table, tmp_path, ('image', 'mask'), 2)
    for blank in (None, '', float('nan'), 'good.png'): check(blank)
    for mask, words in (('small.png', 'row 1: small.png: the mask is 3 x 3 pixels, its picture 6 x 4'),
                        ('white.png', 'holds 255, and 2 classes are 0 to 1 .save what is marked as 1'),
                        ('many.png', 'many.png: it holds 2, and 2 classes are 0 to 1$'),
                        ('colors.png', 'one channel'), ('text.png', 'can not be read as a mask'),
                        ('none.png', 'none.png: no such file')):
        with pytest.raises(InputError, match=words): check(mask)
    with pytest.raises(InputError, match='row 1: gone.png: no such file'): check(None, 'gone.png')
    with pytest.raises(InputError, match='row 1: no file name of a picture'): check(None, None)
    with pytest.raises(InputError, match="no column 'mask'"):
        check_masks(pd.DataFrame({'image': ['a']}), tmp_path, ('image', 'mask'), 2)


def test_refusals():
    true = masks(0)
    with pytest.raises(InputError, match='for both'): image_dice(true, true[:2])
    with pytest.raises(InputError, match='for both'): scores_by_class(true[0], true[0], ['a', 'b'])
    with pytest.raises(InputError, match='uint8'): best_mask_rule(true.astype(float), true)
    with pytest.raises(InputError, match='no pictures'): best_mask_rule(true[:0].astype(np.uint8), true[:0])
    with pytest.raises(InputError, match='threshold=0'): MaskRule(0)
    with pytest.raises(InputError, match='smallest_share=-1'): MaskRule(128, -1)
    with pytest.raises(InputError, match='uint8'): MaskRule()(true.astype(float))
