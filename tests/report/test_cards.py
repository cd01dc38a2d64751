"Pictures on the page: each its own listing's, small, from files, images or a function."
import base64
import io
import re

import numpy as np
from PIL import Image

from fastmatch.report import report_html
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
