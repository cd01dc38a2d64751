"""What an image encoder that isn't trained makes of picture files, each picture encoded once.

A head on features that stand still is trained in seconds, and the pictures have to be read and encoded for
the first of many trainings only: the features are kept in a folder.
"""
import copy
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from ..core import IMAGE_ARCH, PICTURE_SIZE, InputError, check_device, preview
from ..picture import check_method, fitted, try_image
from ..store import canonical_json
from .feature_store import DTYPES, FeatureStore
from .registry import make_encoder

FORMAT = 1  # raised with every change that makes other features of the same picture
CHUNK = 128  # files that are read at once, and whose features are written in one go
MAX_READERS = 16  # threads that read pictures


@dataclass
class Reading:
    "A picture file that was read, and what became of it."
    path: str
    seen: tuple | None = None  # Path, time of its last change and size, as they were before it was read
    data: bytes | None = None  # What is in the file; None where it can't be read
    content: bytes | None = None  # sha256 of `data`
    pixels: np.ndarray | None = None  # uint8 (h,w,3), resized; None where its features were there already
    reason: str | None = None  # Why there are no features of it; None where there are


class FrameFeatures:
    """The features that a frozen image encoder makes of picture files.

        features = FrameFeatures('tf_efficientnet_lite0', size=64, folder='features')
        vectors = features(paths)  # float32 (m, features.n_out)

    They are kept by the content of the files: a file that was renamed or copied is known, one that was
    changed is encoded anew. What another encoder, size or method made lies in another file of the folder
    (see `fingerprint`). A run that was killed goes on where it was, and several processes may share a folder.
    In dataloaders with workers call `warm` first: then the workers only read from memory.
    """
    def __init__(
        self,
        image_arch=IMAGE_ARCH,  # Image encoder, as `make_encoder` takes it; of a module a copy is made
        size=PICTURE_SIZE,  # Of the pictures that it reads, in pixels: one number, or (width, height)
        folder=None,  # Where features are kept; None: in memory only
        *,
        method: str = 'crop',  # 'squish' (out of proportion), 'crop' (the middle), 'pad' (with a border)
        mirror: bool = False,  # Average the features of each picture with those of its mirror image
        pretrained: bool = True,  # Load weights; False: random ones, which are others each time
        pool: str | None = None,  # Pooling of the encoder, as `ImageEncoder` takes it
        dtype: str = 'float32',  # How the folder keeps numbers: 'float32', or 'float16' in half the space
        device: str | None = None,  # Where the encoder runs; None: on a GPU where there is one
        bs: int = 64,  # Pictures a batch
    ):
        check_method(method)
        if dtype not in DTYPES: raise InputError(f'dtype={dtype!r}: choose one of {DTYPES}')
        if bs < 1: raise InputError(f'bs={bs}: give 1 or more')
        self.size = _width_and_height(size)
        self.method = method
        self.mirror = bool(mirror)
        self.dtype = dtype
        self.bs = bs
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        check_device(self.device)
        given = copy.deepcopy(image_arch) if isinstance(image_arch, nn.Module) else image_arch
        encoder = make_encoder('image', given, pretrained, pool, img_size=self.size[::-1])
        self.encoder = encoder.eval().requires_grad_(False).to(self.device)
        self.n_out = encoder.n_out
        settings = self._settings()
        # A hash of all that changes features: weights and architecture, size, method, mirror, dtype
        self.fingerprint = hashlib.sha256(canonical_json(settings)).hexdigest()
        self.store = None
        if folder is not None:
            self.store = FeatureStore(Path(folder)/f'{self.fingerprint[:16]}.sqlite', settings,
                                      self._encode([_test_pixels(*self.size)])[0], dtype)
        self._vectors = {}  # content -> float32 (n_out,)
        self._contents = {}  # (path, time of its last change, size) -> content

    # what is kept in memory is a cache: an exported Learner holds no pictures of its listings
    def __getstate__(self): return {**self.__dict__, '_vectors': {}, '_contents': {}}

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.device.startswith('cuda') and not torch.cuda.is_available(): self.device = 'cpu'
        self.encoder.to(self.device)

    def __deepcopy__(self, memo): return self

    def __repr__(self):
        name = getattr(self.encoder, 'name', type(self.encoder).__name__)
        where = 'in memory' if self.store is None else str(self.store.file)
        return f'FrameFeatures({name!r}, size={self.size}, {where})'

    def __len__(self):
        "How many pictures' features are kept."
        return len(self._vectors if self.store is None else self.store)

    def __call__(
        self,
        paths,  # m picture files
    ) -> np.ndarray:  # float32 (m, n_out)
        "The features of picture files; raises as `warm` does."
        paths = _checked_paths(paths)
        self.warm(paths)
        vectors = np.empty((len(paths), self.n_out), np.float32)
        for row, path in enumerate(paths): vectors[row] = self.of(path)
        return vectors

    def of(
        self,
        path,  # A picture file
    ) -> np.ndarray:  # float32 (n_out,), a copy
        "The features of one picture file, from memory where it was encoded or read before."
        vector = self._known(path)
        if vector is None:
            self.warm([path])
            vector = self._known(path)
        if vector is None: raise InputError(f'{path}: was changed while it was read')
        return vector.copy()

    def warm(
        self,
        paths,  # Picture files
    ) -> int:  # How many pictures had to be encoded
        """Encode the pictures whose features aren't kept yet, and read those of the others into memory.

        Raises `InputError` naming the files that can't be read, once all others are encoded and kept.
        """
        waiting = [path for path in dict.fromkeys(_checked_paths(paths)) if self._known(path) is None]
        if not waiting: return 0
        n_encoded, failed = 0, []
        with tqdm(total=len(waiting), desc='encode', delay=2, leave=False) as progress_bar:
            for readings, missing in self._read_ahead(waiting):
                encoded = self._encode_readings(missing)
                if self.store is not None: self.store.put(encoded)
                self._vectors.update(encoded)
                self._contents.update((reading.seen, reading.content) for reading in readings
                                      if reading.content in self._vectors)
                failed += [reading for reading in readings if reading.reason is not None]
                n_encoded += len(encoded)
                progress_bar.update(len(readings))
        if failed: raise InputError(preview([f'{reading.path}: {reading.reason}' for reading in failed], 3))
        return n_encoded

    def _known(self, path):
        "The features of a file that hasn't changed since it was read; None where it has, or never was."
        return self._vectors.get(self._contents.get(_seen(path)))

    def _read_ahead(self, paths):
        "The `Reading`s of each chunk and those of them to be encoded, while the chunk before is encoded."
        chunk_size = max(CHUNK, self.bs)
        chunks = [paths[start:start + chunk_size] for start in range(0, len(paths), chunk_size)]
        n_readers = min(os.cpu_count() or 1, MAX_READERS)
        with ThreadPoolExecutor(n_readers) as readers, ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(self._read_chunk, chunks[0], readers)
            for next_chunk in [*chunks[1:], None]:
                read = waiting.result()
                if next_chunk is not None: waiting = ahead.submit(self._read_chunk, next_chunk, readers)
                yield read

    def _read_chunk(self, paths, readers):
        "The `Reading` of each file, and the list of those whose features aren't kept, each content once."
        readings = list(readers.map(_read, paths))
        by_content = {reading.content: reading for reading in readings if reading.reason is None}
        unknown = [content for content in by_content if content not in self._vectors]
        if self.store is not None: self._vectors.update(self.store.get(unknown))
        missing = [by_content[content] for content in unknown if content not in self._vectors]
        list(readers.map(self._decode, missing))
        for reading in readings:
            reading.data = None
            if reading.content in by_content: reading.reason = by_content[reading.content].reason
        return readings, missing

    def _decode(self, reading):
        "Set a reading's pixels, or the reason why it has none."
        image, reading.reason = try_image(io.BytesIO(reading.data))
        if image is None: return
        part = fitted(image, self.size, self.method)
        reading.pixels = np.asarray(part.resize(self.size, Image.BILINEAR))

    def _encode_readings(self, readings):
        "Features of readings by content; those of which none can be made are given a reason."
        # the chunk before may have held the same pictures
        readings = [reading for reading in readings
                    if reading.pixels is not None and reading.content not in self._vectors]
        if not readings: return {}
        vectors = self._encode([reading.pixels for reading in readings])
        # what is handed out is what the folder keeps
        with np.errstate(over='ignore'): vectors = vectors.astype(self.dtype).astype(np.float32)
        for reading, is_finite in zip(readings, np.isfinite(vectors).all(1)):
            if not is_finite: reading.reason = f'its features are not finite numbers of {self.dtype}'
        return {reading.content: vector for reading, vector in zip(readings, vectors)
                if reading.reason is None}

    @torch.inference_mode()
    def _encode(self, pictures):
        "The features float32 (n,d) of pictures uint8 (h,w,3)."
        mean, std = (torch.tensor(values, device=self.device)[:, None, None]
                     for values in (self.encoder.mean, self.encoder.std))
        vectors = []
        for start in range(0, len(pictures), self.bs):
            pixels = torch.from_numpy(np.stack(pictures[start:start + self.bs])).to(self.device)
            images = (pixels.permute(0, 3, 1, 2).float().div_(255) - mean) / std
            features = self.encoder(images).float()
            if self.mirror: features = (features + self.encoder(images.flip(-1)).float()) / 2
            vectors.append(features.cpu().numpy())
        return np.concatenate(vectors)

    def _settings(self):
        "All that changes features, as plain values for json."
        spec = self.encoder.spec() if hasattr(self.encoder, 'spec') else {}
        # the same weights in a folder of another name
        spec = {entry: value for entry, value in spec.items() if entry != 'name'}
        modules = [f'{path} {type(module).__name__}' for path, module in self.encoder.named_modules()]
        return {'format': FORMAT, 'weights': _hash_of_weights(self.encoder), 'size': list(self.size),
                'architecture': hashlib.sha256(canonical_json([spec, modules])).hexdigest(),
                'mean': list(self.encoder.mean), 'std': list(self.encoder.std), 'method': self.method,
                'mirror': self.mirror, 'dtype': self.dtype}


def _width_and_height(size):
    "A size as (width, height); raises `InputError` for anything else."
    pair = (size, size) if isinstance(size, Integral) else size
    is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
    if is_pair and all(isinstance(pixels, Integral) and pixels > 0 for pixels in pair):
        return tuple(int(pixels) for pixels in pair)
    raise InputError(f'size={size!r}: give a number of pixels, or (width, height)')


def _checked_paths(paths):
    "The paths as a list of strings; raises `InputError` for one path, and for what is none."
    if isinstance(paths, (str, os.PathLike)): raise InputError(f'paths={str(paths)!r}: give a list of files')
    paths = list(paths)
    wrong = next((row for row, path in enumerate(paths) if not isinstance(path, (str, os.PathLike))), None)
    if wrong is not None: raise InputError(f'paths[{wrong}]={paths[wrong]!r}: no file name')
    return [os.fspath(path) for path in paths]


def _seen(path):
    "By what a file is known without reading it; None where there is no such file."
    try: status = os.stat(path)
    except OSError: return None
    return os.fspath(path), status.st_mtime_ns, status.st_size


def _read(path):
    "The `Reading` of a file, not decoded yet."
    seen = _seen(path)
    try:
        with open(path, 'rb') as stream: data = stream.read()
    except OSError as error: return Reading(path, reason=try_image(path)[1] or str(error))
    if not data: return Reading(path, reason=try_image(path)[1] or 'empty file (0 bytes)')
    return Reading(path, seen, data, hashlib.sha256(data).digest())


def _hash_of_weights(encoder):
    "A hash of the names, types, shapes and bytes of all weights and buffers."
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f'{name} {values.dtype} {tuple(values.shape)}'.encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _test_pixels(width, height):
    "A picture that is always the same, uint8 (h,w,3)."
    rows, columns, channels = np.ogrid[:height, :width, :3]
    return ((7*rows + 13*columns + rows*columns + 101*channels) % 256).astype(np.uint8)
