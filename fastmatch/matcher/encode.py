"Listings to embeddings without fastai: pictures read and resized as the Learner did, titles tokenised, batches through the model."
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..core import InputError
from ..data.read import phash, try_image
from ..models import MatchNet
from ..models.registry import encoder_from_spec

AHEAD = 3  # batches whose pictures are read while the model works


@dataclass
class Picture:
    "How a picture becomes the encoder's input: as fastai's `Resize` does it in validation, then normalised."
    size: tuple  # (width, height) in pixels
    method: str = 'crop'  # 'squish', 'crop' (the middle), or 'pad'
    pad_mode: str = 'reflect'  # torchvision's name, for 'pad'
    resample: int = int(Image.BILINEAR)  # PIL's number
    mean: list = field(default_factory=lambda: [0., 0., 0.])  # Subtracted from values in 0..1, a channel each; none by default
    std: list = field(default_factory=lambda: [1., 1., 1.])  # Divided by

    def __post_init__(self):
        if self.method not in ('squish', 'crop', 'pad'): raise InputError(f"method={self.method!r}: choose 'squish', 'crop' or 'pad'")
        self.size = tuple(int(o) for o in self.size)

    def __call__(
        self,
        im: Image.Image,  # RGB
    ) -> np.ndarray:  # uint8 (h,w,3)
        "The picture at its size."
        return np.asarray(self.fit(im).resize(self.size, self.resample))

    def normalize(
        self,
        x: torch.Tensor,  # uint8 (n,h,w,3)
    ) -> torch.Tensor:  # float32 (n,3,h,w)
        "Pictures of the right size as the encoder's input."
        mean, std = (torch.tensor(o, device=x.device)[:, None, None] for o in (self.mean, self.std))
        return (x.permute(0, 3, 1, 2).float().div_(255) - mean) / std

    def fit(self, im):
        "The part of the picture that is resized: all of it, its middle, or all of it with a border."
        if self.method == 'squish': return im
        (w, h), (tw, th) = im.size, self.size
        ratio = (max if self.method == 'pad' else min)(w / tw, h / th)
        cw, ch = int(ratio * tw), int(ratio * th)
        # cut towards zero, as fastai does with a border's negative corner
        x, y = int(.5 * (w - cw)), int(.5 * (h - ch))
        im = im.crop((max(x, 0), max(y, 0), min(x + cw, w), min(y + ch, h)))
        if cw <= w and ch <= h: return im
        from torchvision.transforms.functional import pad
        left, top = max(-x, 0), max(-y, 0)
        return pad(im, [left, top, max(cw - w + x, 0), max(ch - h + y, 0)], padding_mode=self.pad_mode)


class Encoder:
    "A trained `MatchNet` with what it needs around it: embeds pictures and titles."
    def __init__(
        self,
        model: MatchNet,  # Trained; its heads aren't used
        picture: Picture | None = None,  # Needed where the model reads images
        tokenizer=None,  # A transformers tokenizer; needed where the model reads titles
        max_len: int = 64,  # Tokens a title is cut at
        tta: bool = False,  # Average each picture's embedding with its mirror image's
        device: str = 'cpu',  # Where the model runs
    ):
        for name, o, what in (('image', picture, 'picture'), ('title', tokenizer, 'tokenizer')):
            if (name in model.encoders) != (o is not None): raise InputError(f'{what}: the model reads {list(model.encoders)}')
        self.model = model.eval().requires_grad_(False).to(device)
        self.picture, self.tokenizer, self.max_len, self.tta, self.device = picture, tokenizer, max_len, tta, device

    @property
    def inputs(self) -> list[str]:
        "What a listing must have: 'image', 'title'."
        return list(self.model.encoders)

    @property
    def widths(self) -> dict:
        "Modality -> width of its embedding."
        return self.model.widths

    def embed(
        self,
        pictures=None,  # Files or images in memory, one a listing, None where the listing has none; or None without an image encoder
        titles=None,  # Strings, one a listing, or None without a title encoder
        bs: int = 64,  # Listings a batch
        hashes: bool = False,  # Also the perceptual hash of each picture
        stop: bool = False,  # After a picture that can't be read only look for more such, and embed no further
    ) -> tuple[dict, dict, np.ndarray | None]:
        "Vectors {modality: float32 (n,d)}, the rows that can't be read {row: reason} (their vectors are NaN), hashes (n,)."
        if bs < 1: raise InputError(f'bs={bs}: give 1 or more')
        n = len(pictures if titles is None else titles)
        out = {k: np.full((n, d), np.nan, np.float32) for k, d in self.widths.items()}
        bad, keys = {}, np.full(n, None, object) if hashes else None
        ids = self._tokens(titles) if 'title' in self.inputs else None
        # titles of a length together need little padding
        order = np.arange(n) if ids is None else np.argsort([len(o) for o in ids], kind='stable')
        batches = [order[i:i + bs] for i in range(0, n, bs)]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool, tqdm(total=n, desc='embedding', delay=2, leave=False) as bar:
            waiting = deque()
            for i, rows in enumerate(batches):
                while len(waiting) <= AHEAD and i + len(waiting) < len(batches):
                    ahead = batches[i + len(waiting)]
                    waiting.append([pool.submit(self._read, pictures[r], hashes) for r in ahead] if 'image' in self.inputs else None)
                futures, xs = waiting.popleft(), []
                if futures is not None:
                    seen = [o.result() for o in futures]
                    bad.update({int(r): why for r, (_, _, why) in zip(rows, seen) if why})
                    if hashes: keys[rows] = [key for _, key, _ in seen]
                    rows = np.array([r for r, (_, _, why) in zip(rows, seen) if not why], int)
                    xs.append([im for im, _, why in seen if not why])
                bar.update(len(batches[i]))
                if not len(rows) or (stop and bad): continue
                if xs: xs = [self.picture.normalize(torch.from_numpy(np.stack(xs[0])).to(self.device))]
                if ids is not None: xs.append(self._padded([ids[r] for r in rows]))
                for k, v in self.model.embed(*xs, tta=self.tta).items(): out[k][rows] = v.cpu().numpy()
        return out, bad, keys

    def _read(self, file, hashes):
        if file is None: return None, None, 'no file name'
        im, why = try_image(file)
        return (None, None, why) if why else (self.picture(im), phash(im) if hashes else None, None)

    def _tokens(self, titles):
        # a tokenizer asked for all at once keeps all its by-products
        return [o for i in range(0, len(titles), 4096)
                for o in self.tokenizer(titles[i:i + 4096], truncation=True, max_length=self.max_len)['input_ids']]

    def _padded(self, rows):
        pad = self.tokenizer.pad_token_id
        ids = torch.full((len(rows), max(1, *map(len, rows))), pad)
        for o, row in zip(ids, rows): o[:len(row)] = torch.tensor(row)
        return ids.to(self.device)

    def spec(self) -> dict:
        "What `from_spec` builds it from but weights and tokenizer, as plain values."
        return {**{k: o.spec() for k, o in self.model.encoders.items()}, 'widths': self.widths, 'neck': len(list(self.model.necks.parameters())) > 0,
                'picture': None if self.picture is None else asdict(self.picture), 'max_len': self.max_len, 'tta': self.tta}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # As `spec` gives it
        weights: dict,  # State dict of the model without its heads
        tokenizer=None,  # Where the model reads titles
        device: str = 'cpu',  # Where the model runs
    ) -> 'Encoder':
        "The encoder that `spec` and `weights` describe."
        model = headless(spec)
        model.load_state_dict(weights)
        return cls(model, None if spec['picture'] is None else Picture(**spec['picture']), tokenizer, spec['max_len'], spec['tta'], device)


def headless(
    spec: dict,  # From `Encoder.spec`
) -> MatchNet:
    "The model that a spec describes, with random weights and without heads."
    image = encoder_from_spec('image', spec['image']) if 'image' in spec else None
    title = encoder_from_spec('text', spec['title']) if 'title' in spec else None
    return MatchNet(None, image, title, tuple(spec['widths']), spec['neck'])
