"Pictures are looked at before they are decoded, and kept under names of our own."
import hashlib
import struct
import zlib

import pytest

from fastmatch.serve import Limits
from fastmatch.serve.uploads import FORMATS, Refused, drop, inside, keep, read_upload
from tests.serve.made import png

LIMITS = Limits(pixels=10_000)


def refused(content, name=None):
    with pytest.raises(Refused) as caught: read_upload(content, name, LIMITS)
    return caught.value.status, str(caught.value)


def bomb(width, height):
    "A PNG of very many pixels in a few bytes."
    def chunk(name, body): return (struct.pack('>I', len(body)) + name + body
                                   + struct.pack('>I', zlib.crc32(name + body)))
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + chunk(b'IDAT', zlib.compress(bytes(10_000))) + chunk(b'IEND', b''))


@pytest.mark.parametrize('kind', sorted(set(FORMATS) - {'MPO'}))
def test_formats(kind):
    content = png(kind=kind)
    upload = read_upload(content, 'any name.txt', LIMITS)
    assert upload.suffix == FORMATS[kind] and upload.opened().read() == content
    assert upload.name == f'uploads/{hashlib.sha256(content).hexdigest()}.{FORMATS[kind]}'


@pytest.mark.parametrize('size', [(60_000, 60_000), (101, 100), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_by_their_header(size):
    status, words = refused(bomb(*size))
    assert status == 413, words


def test_a_jpeg_of_very_many_scans():
    scan = b'\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00'
    assert refused(png(kind='JPEG') + scan * 101)[0] == 413


PATHS = ['../a.png', '/etc/passwd', 'a/b.png', '..\\a.png', 'C:a.png', 'a\0.png', '..']


@pytest.mark.parametrize('name', PATHS)
def test_paths_are_refused(name):
    status, words = refused(png(), name)
    assert status == 422 and 'is a path' in words


@pytest.mark.parametrize('content, status', [
    (b'', 422), (b'text', 415), (b'%PDF-1.4', 415), (b'II*\0' + bytes(100), 415), (b'\x89PNG\r\n\x1a\n', 422),
    (png(kind='JPEG')[:20], 422), (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415), (bytes(1000), 415)])
def test_what_is_no_picture(content, status): assert refused(content)[0] in (status, 415)


def test_keeping(tmp_path):
    first, second = (read_upload(png(seed=seed), None, LIMITS) for seed in (0, 1))
    assert keep([first, first], tmp_path) == [tmp_path/first.name]
    new_files = keep([first, second], tmp_path)
    assert new_files == [tmp_path/second.name] and (tmp_path/first.name).read_bytes() == first.content
    drop(new_files)
    assert [file.name for file in (tmp_path/'uploads').iterdir()] == [first.name.split('/')[1]]
    assert keep([], None) == []
    with pytest.raises(Refused, match='--images'): keep([first], None)
    (tmp_path/'file').write_bytes(b'')
    with pytest.raises(Refused, match='can not be kept'): keep([first], tmp_path/'file')


def test_names_that_lead_elsewhere(tmp_path):
    images = tmp_path/'images'
    (images/'sub').mkdir(parents=True)
    for file in (tmp_path/'out.png', tmp_path/'images-2.png', images/'in.png', images/'sub'/'b.png'):
        file.write_bytes(b'')
    (images/'link').symlink_to(tmp_path)
    for name in ('in.png', 'sub/b.png', 'sub/../in.png', './in.png'): assert inside(images, name) is not None
    for name in ('../out.png', '../images-2.png', str(tmp_path/'out.png'), 'link/out.png', 'sub', 'none',
                 'a\0', 'a' * 5000): assert inside(images, name) is None
