"Pictures of noise."
import numpy as np
from PIL import Image


def noise(w=40, h=30, seed=0, mode='RGB'):
    a = np.random.default_rng(seed).integers(0, 256, (h, w, len(mode)), dtype=np.uint8)
    return Image.frombytes(mode, (w, h), a.tobytes())
