"A small shop to run jobs on, weights of a tiny encoder, and the main job in its quickest form."
import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image

from fastmatch.jobs.train import run


def make_shop(folder):
    "Forty good listings of twenty groups in five folds, and their folder: (DataFrame, folder)."
    rng = np.random.default_rng(0)
    rows = np.arange(40)
    for row in rows:
        pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder/f'{row}.png')
    return pd.DataFrame(dict(
        posting_id=[f'p{row}' for row in rows], image=[f'{row}.png' for row in rows],
        title=[f'green tea {row // 2} no {row}' for row in rows],
        label_group=[f'g{row // 2:02}' for row in rows], fold=rows // 2 % 5)), folder


def tiny_weights(folder):
    "A weights file of timm's smallest model: jobs always load weights, and the hub may be out of reach."
    weights_file = folder/'weights'/'test_efficientnet.pth'
    weights_file.parent.mkdir()
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet', pretrained=False).state_dict(), weights_file)
    return str(weights_file)


def quick_run(shop, output_folder, image_arch, **options):
    "The main job, quickly: pictures only at 32 px unless told otherwise."
    listings, folder = shop
    quick_options = dict(fold_col='fold', text_col=None, image_arch=image_arch, size=32, epochs=1, bs=8,
                         aug='none', echo=lambda line: None)
    return run(listings, folder, output_folder, **{**quick_options, **options})


def break_three(folder):
    "An empty picture, half a picture, and a page in place of one."
    (folder/'3.png').write_bytes(b'')
    picture = (folder/'11.png').read_bytes()
    (folder/'11.png').write_bytes(picture[:len(picture) // 2])
    (folder/'24.png').write_text('<html>404 Not Found</html>')


BROKEN = {'p3': '3.png: empty file (0 bytes)', 'p11': '11.png: ',
          'p24': '24.png: not an image that PIL can read'}


def put(shop, row, column, value):
    "The shop with one cell changed."
    listings, folder = shop
    listings = listings.copy().astype({column: object})
    listings.loc[row, column] = value
    return listings, folder
