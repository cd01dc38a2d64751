"""Reads pictures through a store until it is killed: `python -m tests.data.store_job FOLDER STORE GIGABYTES`.

Each picture of FOLDER is made of one number in its name, so that anything else is told by a glance.
"""
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fastmatch.data.picture_store import PictureStore


def made(file):
    "A picture resized to 96 x 96 pixels."
    return np.asarray(Image.open(file).convert('RGB').resize((96, 96), 0))


def main(folder, store, gigabytes):
    "Read pictures at random, and compare each with what it has to be."
    files = sorted(Path(folder).glob('*.png'))
    store = PictureStore(store, float(gigabytes))
    print('begun', flush=True)
    while True:
        file = random.choice(files)
        pixels = store.read(file, f'nearest {random.randrange(20)}', made)
        if pixels.shape != (96, 96, 3) or not (pixels == int(file.stem)).all():
            print('WRONG', file, flush=True)
            sys.exit(1)


if __name__ == '__main__': main(*sys.argv[1:])
