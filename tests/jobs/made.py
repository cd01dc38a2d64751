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
    for i in rows: Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder/f'{i}.png')
    return pd.DataFrame(dict(
        posting_id=[f'p{i}' for i in rows], image=[f'{i}.png' for i in rows],
        title=[f'green tea {i // 2} no {i}' for i in rows], label_group=[f'g{i // 2:02}' for i in rows],
        fold=rows // 2 % 5)), folder


def tiny_weights(folder):
    "A weights file of timm's smallest model: jobs always load weights, and the hub may be out of reach."
    file = folder/'weights'/'test_efficientnet.pth'
    file.parent.mkdir()
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet', pretrained=False).state_dict(), file)
    return str(file)


def quick_run(shop, out, image_arch, **kwargs):
    "The main job, quickly: pictures only at 32 px unless told otherwise."
    df, path = shop
    basic = dict(fold_col='fold', text_col=None, image_arch=image_arch, size=32, epochs=1, bs=8, aug='none',
                 echo=lambda line: None)
    return run(df, path, out, **{**basic, **kwargs})


def break_three(folder):
    "An empty picture, half a picture, and a page in place of one."
    (folder/'3.png').write_bytes(b'')
    data = (folder/'11.png').read_bytes()
    (folder/'11.png').write_bytes(data[:len(data) // 2])
    (folder/'24.png').write_text('<html>404 Not Found</html>')


BROKEN = {'p3': '3.png: empty file (0 bytes)', 'p11': '11.png: ',
          'p24': '24.png: not an image that PIL can read'}


def put(shop, row, column, value):
    "The shop with one cell changed."
    df, path = shop
    df = df.copy().astype({column: object})
    df.loc[row, column] = value
    return df, path
