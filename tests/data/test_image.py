"Pictures of any mode as upright RGB on white, against their pixels."
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastmatch.data.image import file_name, read_image, try_image
from tests.data.made import noise


def pixel(path, position=(0, 0)): return read_image(path).getpixel(position)


def test_transparency_is_white(tmp_path):
    rgba = Image.new('RGBA', (4, 4), (0, 0, 0, 0))
    rgba.putpixel((1, 1), (200, 10, 10, 255))
    rgba.putpixel((2, 2), (0, 0, 0, 128))
    rgba.save(tmp_path/'rgba.png')
    assert (
        pixel(tmp_path / 'rgba.png'),
        pixel(tmp_path / 'rgba.png', (1, 1)),
        pixel(tmp_path / 'rgba.png', (2, 2)),
    ) == ((255, 255, 255), (200, 10, 10), (127, 127, 127))
    palette = Image.new('P', (4, 4), 0)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.putpixel((1, 1), 1)
    palette.save(tmp_path/'p.png', transparency=0)
    assert (pixel(tmp_path/'p.png'), pixel(tmp_path/'p.png', (1, 1))) == ((255, 255, 255), (9, 8, 7))
    palette.save(tmp_path/'opaque.png')
    assert pixel(tmp_path/'opaque.png') == (0, 0, 0)
    Image.new('LA', (4, 4), (0, 0)).save(tmp_path/'la.png')
    assert pixel(tmp_path/'la.png') == (255, 255, 255)
    rgb = Image.new('RGB', (4, 4), (1, 2, 3))
    rgb.save(tmp_path/'key.png', transparency=(1, 2, 3))
    assert pixel(tmp_path/'key.png') == (255, 255, 255)


def test_deep_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    Image.fromarray(ramp).save(tmp_path/'16.png')
    expected = (ramp/257).round().astype(np.uint8)
    assert np.array_equal(np.asarray(read_image(tmp_path/'16.png')), np.stack([expected]*3, -1))
    # a dark 16-bit picture stays dark
    Image.fromarray((ramp//300).astype(np.uint16)).save(tmp_path/'dark.png')
    assert np.asarray(read_image(tmp_path/'dark.png')).max() == 1
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path/'32.tif')
    Image.fromarray((ramp/65535).astype(np.float32)).save(tmp_path/'f.tif')
    for name in ('32.tif', 'f.tif'):
        assert np.abs(np.asarray(read_image(tmp_path/name)).astype(int) - expected[..., None]).max() <= 1
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path/'zero.tif')
    assert np.asarray(read_image(tmp_path/'zero.tif')).max() == 0


def test_other_modes_come_out_as_rgb(tmp_path):
    noise(mode='CMYK').save(tmp_path/'cmyk.jpg')
    noise().convert('L').save(tmp_path/'l.jpg')
    noise().convert('1').save(tmp_path/'1.png')
    noise().convert('P').save(tmp_path/'p.gif')
    noise().save(tmp_path/'webp.webp')
    for file in tmp_path.iterdir():
        for size in (None, (8, 8)):
            assert (image := read_image(file, size)).mode == 'RGB' and len(image.getextrema()) == 3, file
    Image.new('CMYK', (8, 8), (255, 0, 0, 0)).save(tmp_path/'cyan.jpg', quality=100)
    red, green, blue = pixel(tmp_path/'cyan.jpg')
    assert red < 10 and green > 245 and blue > 245


def test_exif_turns_the_image(tmp_path):
    image = Image.new('RGB', (40, 20), 'white')
    image.paste('red', (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    image.save(tmp_path/'turned.jpg', exif=exif, quality=95)
    turned = read_image(tmp_path/'turned.jpg')
    assert turned.size == (20, 40) and turned.getpixel((10, 5))[1] < 30 and turned.getpixel((10, 35))[1] > 225
    noise().save(tmp_path/'junk.png', exif=b'garbage')
    assert read_image(tmp_path/'junk.png').size == (40, 30)


def test_size_decodes_a_jpeg_smaller_but_large_enough(tmp_path):
    noise(800, 600).save(tmp_path/'big.jpg')
    assert read_image(tmp_path/'big.jpg').size == (800, 600)
    width, height = read_image(tmp_path/'big.jpg', (100, 100)).size
    assert 100 <= width < 800 and 100 <= height < 600


@pytest.mark.parametrize('cell, expected', [
    ('a b.png', 'a b.png'), (Path('x')/'y.png', 'x/y.png'), (7, '7'), (np.int64(7), '7'), (7., '7'),
    (np.float64(7), '7'), (7.5, '7.5'), ('007', '007'), (None, None), (np.nan, None), (pd.NA, None),
    (' ', None)])
def test_a_file_name_is_read_back_from_what_pandas_made_of_it(cell, expected):
    assert file_name(cell) == expected


def test_a_number_is_no_open_file():
    "Python would take 0, 1 and 2 for the process's own input and outputs."
    for number in (0, 1, 2, np.int64(0)): assert try_image(number)[1].endswith('not a file name')
