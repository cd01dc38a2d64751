"Pictures on the page: each its own listing's, small, from files, images or a function."
import base64
import io
import re

import numpy as np
from PIL import Image

from fastmatch.report import report_html
from tests.report.made import run


def decoded(data): return Image.open(io.BytesIO(base64.b64decode(data)))


def test_each_picture_is_its_listings(html):
    embeddings, _, _, files = run()
    row_of = {posting_id: i for i, posting_id in enumerate(embeddings.ids)}
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="Picture of ([^"]+)">', html)
    assert len(found) > 20
    for data, posting_id in set(found):
        with decoded(data) as picture:
            assert picture.format == 'WEBP' and max(picture.size) <= 160
            with Image.open(files[row_of[posting_id]]) as source:
                white = Image.new('RGBA', source.size, 'white')
                on_white = Image.alpha_composite(white, source.convert('RGBA')).convert('RGB')
            got, want = (np.asarray(image.convert('L').resize((8, 8)), float)
                         for image in (picture, on_white))
        assert np.abs(got - want).mean() < 4, posting_id


def test_pictures_come_from_files_images_or_a_function():
    embeddings, rule, table, files = run()
    large = [Image.open(file).convert('RGB').resize((400, 200)) for file in files]
    def first(images): return re.search(r'base64,([^"]+)"', report_html(embeddings, rule, table, images))[1]
    assert first(files) == first(lambda i: files[i]) == first([str(file) for file in files])
    with decoded(first(large)) as picture: assert picture.size == (160, 80)
