"Pictures of noise."
import numpy as np
from PIL import Image


def noise(width=40, height=30, seed=0, mode='RGB'):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), pixels.tobytes())
