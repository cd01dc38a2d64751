"Pictures on the page: each its own listing's, small, from files, images or a function."
import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from fastmatch.core import InputError
from fastmatch.report import report_html
from fastmatch.report.cards import Cards
from tests.report.made import made_run


def decode_picture(encoded): return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_each_picture_is_its_listings(page_html):
    run = made_run()
    row_of = {posting_id: row for row, posting_id in enumerate(run.embeddings.ids)}
    pictures = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="Picture of ([^"]+)">', page_html)
    assert len(pictures) > 20
    for encoded, posting_id in set(pictures):
        with decode_picture(encoded) as picture:
            assert picture.format == 'WEBP' and max(picture.size) <= 160
            with Image.open(run.image_files[row_of[posting_id]]) as original:
                white = Image.new('RGBA', original.size, 'white')
                on_white = Image.alpha_composite(white, original.convert('RGBA')).convert('RGB')
            actual, expected = (np.asarray(image.convert('L').resize((8, 8)), float)
                                for image in (picture, on_white))
        assert np.abs(actual - expected).mean() < 4, posting_id


def test_pictures_come_from_files_images_or_a_function():
    embeddings, rule, table, image_files = made_run()
    large = [Image.open(file).convert('RGB').resize((400, 200)) for file in image_files]
    def first_picture(images):
        return re.search(r'base64,([^"]+)"', report_html(embeddings, rule, table, images))[1]
    assert first_picture(image_files) == first_picture(lambda row: image_files[row])
    assert first_picture(image_files) == first_picture([str(file) for file in image_files])
    with decode_picture(first_picture(large)) as picture: assert picture.size == (160, 80)


def test_a_card_says_how_many_more_pictures_a_listing_has():
    embeddings, rule, table, image_files = made_run()
    several = [[file, *image_files[:row % 3]] for row, file in enumerate(image_files)]
    page = report_html(embeddings, rule, table, several)
    cards = re.findall(r'alt="Picture of ([^"]+)">(<small>and ([^<]+)</small>)?', page)
    row_of = {posting_id: row for row, posting_id in enumerate(embeddings.ids)}
    said = ['', '1 more picture', '2 more pictures']
    assert all(words == said[row_of[posting_id] % 3] for posting_id, _, words in cards)
    assert {words for _, _, words in cards} == set(said)
    # the first is the one that is shown, as where there is no other
    plain = report_html(embeddings, rule, table, image_files)
    assert re.sub(r'<small>and [^<]+</small>', '', page) == plain and 'more picture' not in plain
    assert Cards(embeddings, lambda row: tuple(several[row])).card(5).more_pictures == 2


def test_a_listing_without_any_picture_is_named():
    embeddings, *_, image_files = made_run()
    with pytest.raises(InputError, match=r'row 3 \(.+\) has none'):
        Cards(embeddings, [*image_files[:3], [], *image_files[4:]]).card(3)
