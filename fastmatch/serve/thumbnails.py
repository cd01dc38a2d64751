"Small pictures for the page, made of the files in the folder of images, and kept while there is room."
import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from ..picture import upright_rgb
from .uploads import DECODERS

SIDE = 320  # pixels of the longer side: sharp at 160 on a phone's screen


class Thumbnails:
    "Makes small pictures, those that were asked for lately only once."
    def __init__(
        self,
        most_bytes: int,  # Kept in memory
        most_pixels: int,  # Of a file that is decoded
    ):
        self.most_bytes = most_bytes
        self.most_pixels = most_pixels
        self.kept, self.size = OrderedDict(), 0
        self.lock = threading.Lock()

    def of(
        self,
        file: Path,
    ) -> bytes | None:  # WebP
        "A file's small picture; None where it can't be read, or has too many pixels."
        # a file that was written over is another picture
        state = file.stat()
        name = str(file), state.st_mtime_ns, state.st_size
        with self.lock:
            if name in self.kept:
                self.kept.move_to_end(name)
                return self.kept[name]
        content = self._made(file)
        if content is None: return None
        with self.lock:
            if name not in self.kept: self.size += len(content)
            self.kept[name] = content
            while self.size > self.most_bytes and self.kept:
                self.size -= len(self.kept.popitem(last=False)[1])
        return content

    def _made(self, file):
        # decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError and more
        try:
            with Image.open(file, formats=[*DECODERS, 'TIFF']) as image:
                if image.size[0] * image.size[1] > self.most_pixels: return None
                image.draft(None, (SIDE, SIDE))
                picture = upright_rgb(image)
            picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            content = io.BytesIO()
            picture.save(content, 'WEBP', quality=80)
        except Exception: return None
        return content.getvalue()
