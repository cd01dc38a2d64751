"A store of pictures by its promises: content decides, others write too, kills and full disks do no harm."
import io
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fastmatch.core import InputError
from fastmatch.data.picture_store import COARSE, PictureStore
from tests.data.store_job import made as made_by_job

ROOT = Path(__file__).parents[2]


def pixels_of(number, height=20, width=30):
    return np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)


class Making:
    "Reads a png and counts how often it does."
    def __init__(self): self.n = 0

    def __call__(self, file):
        self.n += 1
        return np.asarray(Image.open(file))


@pytest.fixture
def make(): return Making()


@pytest.fixture
def files(tmp_path):
    "Twelve pictures that were changed an hour ago."
    folder = tmp_path/'pictures'
    folder.mkdir()
    paths = [folder/f'{number}.png' for number in range(12)]
    for number, path in enumerate(paths):
        Image.fromarray(pixels_of(number)).save(path)
        age(path)
    return paths


def age(path, seconds=3600):
    then = time.time() - seconds
    os.utime(path, (then, then))


def read_all(store, files, make, settings='plain'):
    return [store.read(path, settings, make) for path in files]


def test_each_picture_is_made_once(files, tmp_path, make):
    store = PictureStore(tmp_path/'store')
    for _ in range(2):
        for number, pixels in enumerate(read_all(store, files, make)):
            assert (pixels == pixels_of(number)).all() and pixels.dtype == np.uint8
    assert make.n == len(store) == 12 and store.n_bytes == 12*20*30*3
    # by the next training, too
    read_all(PictureStore(tmp_path/'store'), files, make)
    assert make.n == 12
    # other settings are other pictures
    read_all(store, files, make, 'small')
    assert make.n == 24 and len(store) == 24
    # what is handed out is a copy
    store.read(files[0], 'plain', make)[:] = 0
    assert (store.read(files[0], 'plain', make) == pixels_of(0)).all()


def test_the_content_decides(files, tmp_path, make):
    store = PictureStore(tmp_path/'store')
    read_all(store, files, make)
    renamed = files[0].rename(files[0].with_name('renamed.png'))
    shutil.copytree(files[0].parent, tmp_path/'copy')
    assert (store.read(renamed, 'plain', make) == pixels_of(0)).all()
    assert (store.read(tmp_path/'copy'/'5.png', 'plain', make) == pixels_of(5)).all()
    assert make.n == 12
    shutil.copy(files[3], files[2])  # changed, of about the same size
    age(files[2], 1800)
    assert (store.read(files[2], 'plain', make) == pixels_of(3)).all() and make.n == 12
    with pytest.raises(FileNotFoundError): store.read(files[0], 'plain', make)


def test_a_change_within_the_tick_of_a_clock_is_seen(tmp_path, make):
    "Of the same size, and with the same time of change: the file is read again as long as that may be."
    store, path = PictureStore(tmp_path/'store'), tmp_path/'a.bmp'
    Image.fromarray(pixels_of(0)).save(path)
    now = time.time()
    os.utime(path, (now, now))
    assert (store.read(path, 'plain', make) == pixels_of(0)).all()
    Image.fromarray(pixels_of(1)).save(path)
    os.utime(path, (now, now))
    assert (store.read(path, 'plain', make) == pixels_of(1)).all() and COARSE >= 1


def test_a_file_that_can_not_be_read_is_not_kept(files, tmp_path, make):
    store = PictureStore(tmp_path/'store')
    files[4].write_bytes(b'no picture')
    with pytest.raises(OSError, match='cannot identify'): store.read(files[4], 'plain', make)
    assert len(store) == 0


def space(folder): return sum(file.stat().st_size for file in folder.glob('*.pixels'))


def test_the_oldest_make_room(files, tmp_path, make):
    one = 20*30*3
    store = PictureStore(tmp_path/'store', gigabytes=8.5*one/1e9)
    for _ in range(3):
        for number in range(12):
            assert (store.read(files[number], 'plain', make) == pixels_of(number)).all()
            assert space(store.folder) <= store.limit and store.n_bytes <= store.limit
    assert 5 <= len(store) <= 8
    # those that came last are there
    before = make.n
    read_all(store, files[-5:], make)
    assert make.n == before
    # another process, which has the deleted files open, makes them anew
    other = PictureStore(tmp_path/'store', gigabytes=8.5*one/1e9)
    read_all(other, files, make)
    for number in range(12): assert (store.read(files[number], 'plain', make) == pixels_of(number)).all()


def test_what_does_not_fit_is_told(files, tmp_path, make):
    store = PictureStore(tmp_path/'store', gigabytes=3e-6)
    with pytest.raises(InputError, match='100 pictures take .* give store=PictureStore.folder, gigabytes='):
        store.check_room(100, 1800)
    PictureStore(tmp_path/'store', gigabytes=1).check_room(100, 1800)
    with pytest.raises(InputError, match='a picture of 1,800 bytes'): store.read(files[0], 'plain', make)
    with pytest.raises(InputError, match='gigabytes=0'): PictureStore(tmp_path/'store', gigabytes=0)


def test_pixels_that_a_power_cut_left_wrong_are_made_anew(files, tmp_path, make):
    store = PictureStore(tmp_path/'store')
    read_all(store, files, make)
    [segment] = store.folder.glob('*.pixels')
    data = bytearray(segment.read_bytes())
    data[3*1800 + 7] ^= 1
    segment.write_bytes(data[:-900])  # one bit, and the end of the last one
    fresh = PictureStore(tmp_path/'store')
    for number, pixels in enumerate(read_all(fresh, files, make)): assert (pixels == pixels_of(number)).all()
    assert make.n == 14
    segment.unlink()
    again = PictureStore(tmp_path/'store')
    for _ in range(2):
        for number, pixels in enumerate(read_all(again, files, make)):
            assert (pixels == pixels_of(number)).all()
    assert make.n == 26


def test_damage_and_wrong_folders_are_told(files, tmp_path, make):
    (tmp_path/'file').write_text('')
    with pytest.raises(InputError, match='is a file, not a folder'): PictureStore(tmp_path/'file')
    store = PictureStore(tmp_path/'store')
    read_all(store, files, make)
    with sqlite3.connect(store.file) as connection: connection.execute('PRAGMA user_version=99')
    with pytest.raises(InputError, match='format 99, this version'): PictureStore(tmp_path/'store')
    shutil.rmtree(tmp_path/'store')
    (tmp_path/'store').mkdir()
    (tmp_path/'store'/'pictures.sqlite').write_bytes(b'no database at all' * 99)
    with pytest.raises(InputError, match='pictures.sqlite: SQLite.*remove its folder'):
        PictureStore(tmp_path/'store')


def test_a_folder_for_reading(files, tmp_path, make, monkeypatch):
    "As a store that is attached to a notebook: known contents are read, nothing is written."
    store = PictureStore(tmp_path/'store')
    read_all(store, files[:6], make)
    store._connection().execute('PRAGMA wal_checkpoint(TRUNCATE)')
    store._connection().close()
    monkeypatch.setattr(os, 'access', lambda path, mode: mode != os.W_OK)
    before = sorted(path.name for path in store.folder.iterdir())
    attached = PictureStore(tmp_path/'store')
    for _ in range(2):
        for number, pixels in enumerate(read_all(attached, files, make)):
            assert (pixels == pixels_of(number)).all()
    assert make.n == 6 + 2*6 and len(attached) == 6
    assert sorted(path.name for path in store.folder.iterdir()) == before
    with pytest.raises(InputError, match='is no store and can not be written'): PictureStore(tmp_path)


def test_forked_workers_and_threads(files, tmp_path, make):
    store = PictureStore(tmp_path/'store')
    read_all(store, files[:3], make)
    children = []
    for child in range(3):
        process = os.fork()
        if process == 0:
            is_right = all((store.read(files[number % 12], 'plain', make) == pixels_of(number % 12)).all()
                           for number in range(child, 60))
            os._exit(0 if is_right else 1)
        children.append(process)
    assert [os.waitpid(process, 0)[1] for process in children] == [0, 0, 0]
    assert len(store) == 12
    wrong = []

    def read():
        for number in range(12):
            if (store.read(files[number], 'threads', make) != pixels_of(number)).any(): wrong.append(number)
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not wrong and len(store) == 24


@pytest.mark.parametrize('gigabytes', [1, 4e-4], ids=['room for all', 'too small'])
def test_kills_at_any_moment(gigabytes, tmp_path):
    "Three processes read and write; each is killed again and again; nobody ever reads what isn't whole."
    for number in range(40):
        Image.new('RGB', (150, 150), (number,)*3).save(tmp_path/f'{number}.png')
        age(tmp_path/f'{number}.png')

    def start():
        job = [sys.executable, '-m', 'tests.data.store_job', tmp_path, tmp_path/'store', str(gigabytes)]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        return subprocess.Popen(job, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    rng, running, outputs = random.Random(0), [start() for _ in range(3)], []
    for process in running: assert process.stdout.readline() == 'begun\n'
    for kill in range(6):
        time.sleep(rng.uniform(.05, .3))
        victim = running.pop(0)
        victim.send_signal(signal.SIGKILL)
        outputs.append((victim.wait(), victim.stdout.read()))
        if kill < 3: running.append(start())
    assert outputs == [(-signal.SIGKILL, '')]*3 + outputs[3:]
    assert all(code == -signal.SIGKILL and 'WRONG' not in text for code, text in outputs)
    store = PictureStore(tmp_path/'store', gigabytes)
    assert len(store) > 0 and space(store.folder) <= store.limit + 3*96*96*3
    for number in range(40):
        for settings in range(20):
            pixels = store.read(tmp_path/f'{number}.png', f'nearest {settings}', made_by_job)
            assert (pixels == number).all()


def test_half_a_picture_is_never_read(files, tmp_path, make):
    "A writer dies with nothing, a part or all of the pixels written, and before the commit."
    for step in range(4):
        folder = tmp_path/f'store {step}'
        PictureStore(folder)
        process = os.fork()
        if process == 0:
            try:
                die_at(step)
                PictureStore(folder).read(files[0], 'plain', make)
            finally: os._exit(1)
        assert os.waitpid(process, 0)[1] == signal.SIGKILL
        store = PictureStore(folder)
        assert len(store) == 0
        for _ in range(2): assert (store.read(files[1], 'plain', make) == pixels_of(1)).all()
        assert (store.read(files[0], 'plain', make) == pixels_of(0)).all()
        assert len(store) == 2 and space(folder) == 2*1800


def die_at(step):
    "Let this process be killed while it stores a picture."
    import fastmatch.data.picture_store as module

    def kill(): os.kill(os.getpid(), signal.SIGKILL)
    if step == 0: module.os.open = lambda *args: kill()
    elif step in (1, 2):
        real = os.fdopen

        class Half:
            def __init__(self, *args): self.stream = real(*args)
            def __enter__(self): return self
            def __exit__(self, *error): pass
            def seek(self, place): self.stream.seek(place)

            def write(self, data):
                self.stream.write(bytes(data)[:900 if step == 1 else None])
                self.stream.flush()
                kill()
        module.os.fdopen = Half
    else: module.zlib = SimpleNamespace(crc32=lambda data: kill())


def test_an_open_file_is_what_makes_a_picture(files, tmp_path):
    kinds = []

    def make(file):
        kinds.append(type(file))
        return np.asarray(Image.open(file))
    PictureStore(tmp_path/'store').read(files[0], 'plain', make)
    assert kinds == [io.BytesIO]
