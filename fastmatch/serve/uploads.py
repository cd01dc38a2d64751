"""Pictures that come in a request: looked at before they are decoded, and kept under names of our own.

Nothing that a client names is ever a path here. A picture is kept in the folder `uploads` of the images, by
the hash of its content, so that the same picture twice is one file.
"""
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..core import InputError
from ..store import write_atomically
from .settings import Limits

# what PIL calls a format -> the suffix of its files; further ones have decoders that few people look after
FORMATS = {'JPEG': 'jpg', 'MPO': 'jpg', 'PNG': 'png', 'WEBP': 'webp', 'GIF': 'gif', 'BMP': 'bmp'}
# what a file is tried as: a JPEG turns out to be an MPO, of several pictures, once it is open
DECODERS = [kind for kind in FORMATS if kind != 'MPO']
START_OF_SCAN = b'\xff\xda'
MOST_SCANS = 100  # of a JPEG: each one takes as long as decoding it all, and cameras write 1 to 12
FOLDER = 'uploads'  # in the folder of images


class Refused(InputError):
    "A request that is not taken, with the HTTP status that says why."
    def __init__(
        self,
        status: int,  # Of HTTP
        words: str,  # Why
    ):
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Upload:
    "A picture that came in a request and may be decoded."
    content: bytes
    suffix: str  # Of its format, whatever its name was

    @property
    def name(self) -> str:
        "Its file's name in the folder of images, '/' between the parts."
        return f'{FOLDER}/{hashlib.sha256(self.content).hexdigest()}.{self.suffix}'

    def opened(self) -> io.BytesIO:
        "The content as what decodes it takes it."
        return io.BytesIO(self.content)


def read_upload(
    content: bytes,
    name: str | None,  # That the client gave; '' or None: none
    limits: Limits,
) -> Upload:
    """A picture that may be decoded, by its header; raises `Refused`: 422 for a name that is a path and for
    an empty or damaged file, 415 for other formats, 413 for too many pixels."""
    if name and (any(letter in name for letter in '/\\\0:') or name in ('.', '..')):
        raise Refused(422, f'picture {name[:80]!r}: its name is a path; give a plain file name, or none')
    if not content: raise Refused(422, 'picture: empty file (0 bytes)')
    width, height, kind = _header(content)
    if width * height > limits.pixels:
        raise Refused(413, f'picture: {width} x {height} pixels, {limits.pixels:,} are taken')
    if not width or not height: raise Refused(422, 'picture: has no pixels')
    if kind in ('JPEG', 'MPO') and content.count(START_OF_SCAN) > MOST_SCANS:
        raise Refused(413, f'picture: a JPEG of more than {MOST_SCANS} scans')
    return Upload(content, FORMATS[kind])


def _header(content):
    "(width, height, format) without decoding."
    try:
        with Image.open(io.BytesIO(content), formats=DECODERS) as image:
            return *image.size, image.format
    except UnidentifiedImageError:
        raise Refused(415, f'picture: not a file of {", ".join(sorted(set(FORMATS.values())))}') from None
    except Image.DecompressionBombError as error: raise Refused(413, f'picture: {error}') from error
    # parsers of headers raise OSError, SyntaxError, ValueError, struct.error and more
    except Exception as error:
        raise Refused(422, f'picture: damaged ({type(error).__name__})') from error


def keep(
    uploads: list[Upload],
    images: Path | None,  # Folder of images; None: there is none
) -> list[Path]:  # Files that were not there before
    "Write pictures, each whole or not at all."
    if not uploads: return []
    if images is None:
        raise Refused(409, 'pictures of added listings are kept in the folder of images: the service was '
                           'started without --images')
    new_files = []
    try:
        (Path(images)/FOLDER).mkdir(exist_ok=True)
        for upload in uploads:
            file = Path(images)/upload.name
            if file.exists(): continue
            write_atomically(file, upload.content)
            new_files.append(file)
    except OSError as error:
        drop(new_files)
        raise Refused(507, f'pictures can not be kept: {error.strerror or error}') from error
    return new_files


def drop(
    files: list[Path],
):
    "Take files back that nothing refers to."
    for file in files: file.unlink(missing_ok=True)


def inside(
    images: Path,  # Folder
    name: str,  # Of a file, as the catalogue keeps it
) -> Path | None:
    "The file of a name, None where it is not there or lies outside of the folder, by links too."
    folder = os.path.realpath(images)
    try: file = os.path.realpath(os.path.join(folder, name))
    # a name with a zero byte, or one that the file system can't hold
    except (ValueError, OSError): return None
    if os.path.commonpath([folder, file]) != folder or not os.path.isfile(file): return None
    return Path(file)
