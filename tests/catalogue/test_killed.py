"A writer that is killed at any moment loses nothing that it reported; a disk that is full says so."
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fastmatch.catalogue import Catalogue
from fastmatch.catalogue.schema import MIGRATIONS, VERSION
from fastmatch.core import InputError
from tests.catalogue.made import RULES, listings, matcher_of, partition_of

ROOT = Path(__file__).resolve().parents[2]


def kill(file, kills, seed):
    arguments = [sys.executable, '-m', 'tests.catalogue.kill_job', str(file), str(kills), str(seed)]
    finished = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600,
                              env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert f'{kills} kills' in finished.stdout


def test_a_few_kills(tmp_path): kill(tmp_path/'shop.db', 5, 0)


@pytest.mark.slow
@pytest.mark.parametrize('seed', [1, 2])
def test_thirty_kills(tmp_path, seed): kill(tmp_path/'shop.db', 30, seed)


def test_a_full_disk_is_told_and_changes_nothing(tmp_path):
    file, embeddings = tmp_path/'shop.db', listings(40)
    with Catalogue.create(file, matcher_of(RULES['mean'])) as catalogue:
        catalogue.add(embeddings.take(np.arange(20)))
        before = partition_of(catalogue)
        # the log in front of the file grows until the limit stops it
        size = Path(f'{file}-wal').stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(InputError, match=r'shop.db: the disk .*full.*nothing of this was kept'):
                for start in range(20, 40): catalogue.add(embeddings.take([start]))
        finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert partition_of(catalogue) == before and len(catalogue) == 20 and catalogue.check() == []
        catalogue.add(embeddings.take(np.arange(20, 40)))
    with Catalogue(file) as again: assert len(again) == 40


def test_a_second_writer_waits_and_is_then_refused_by_name(tmp_path):
    file, embeddings = tmp_path/'shop.db', listings(30)
    with Catalogue.create(file, matcher_of(RULES['mean'])) as first:
        first.add(embeddings.take(np.arange(10)))
        with Catalogue(file, matcher_of(RULES['mean']), wait=.1) as second:
            from fastmatch.catalogue.schema import writing
            with writing(first.record.connection, file):
                told = f'being written by process {os.getpid()} on .*try again'
                with pytest.raises(InputError, match=told):
                    second.remove('p000')
                assert len(second.groups()) == 10
        with Catalogue(file, matcher_of(RULES['mean']), wait=20.) as second:
            thread = threading.Thread(target=second.remove, args=('p000',))
            with writing(first.record.connection, file):
                thread.start()
                time.sleep(.2)
                assert thread.is_alive()
            thread.join()
            assert 'p000' not in first and 'p000' not in second
            # what the other one wrote is in the index before anything is added
            first.add(embeddings.take([0, *range(10, 30)]))
            second.add(listings(31).take([30]))
            assert first.check() == second.check() == [] and len(second) == 31


def test_what_is_no_catalogue_is_told(tmp_path):
    with pytest.raises(InputError, match='no such catalogue'): Catalogue(tmp_path/'none.db')
    (tmp_path/'text.db').write_text('a table of listings, surely ' * 50)
    with pytest.raises(InputError, match='text.db: is no catalogue'): Catalogue(tmp_path/'text.db')
    other = sqlite3.connect(tmp_path/'other.db')
    other.execute('create table listing (id text)')
    other.close()
    with pytest.raises(InputError, match='other.db: is no catalogue'): Catalogue(tmp_path/'other.db')
    with pytest.raises(InputError, match='no folder'): Catalogue.create(tmp_path/'a'/'b.db', None)
    matcher = matcher_of(RULES['mean'])
    Catalogue.create(tmp_path/'shop.db', matcher).close()
    with pytest.raises(InputError, match='is there already'): Catalogue.create(tmp_path/'shop.db', matcher)
    later = sqlite3.connect(tmp_path/'shop.db')
    later.execute(f'pragma user_version = {VERSION + 1}')
    later.close()
    with pytest.raises(InputError, match=f'version {VERSION + 1}, this fastmatch reads up to {VERSION}'):
        Catalogue(tmp_path/'shop.db')


def test_a_file_of_an_earlier_version_is_brought_up_to_date(tmp_path, monkeypatch):
    from fastmatch.catalogue import schema
    file = tmp_path/'shop.db'
    with Catalogue.create(file, matcher_of(RULES['mean'])) as catalogue:
        catalogue.add(listings(10))
        before = partition_of(catalogue)
    later = [*MIGRATIONS, ['alter table listing add column price real', 'create table note (text text)']]
    monkeypatch.setattr(schema, 'MIGRATIONS', later)
    monkeypatch.setattr(schema, 'VERSION', len(later))
    with Catalogue(file) as catalogue:
        assert partition_of(catalogue) == before
        assert catalogue.record.execute('select price from listing').fetchall() == [(None,)] * 10
        assert catalogue.record.execute('pragma user_version').fetchone()[0] == len(later)


def test_a_damaged_file_is_told(tmp_path):
    file = tmp_path/'shop.db'
    with Catalogue.create(file, matcher_of(RULES['mean'])) as catalogue: catalogue.add(listings(40))
    content = bytearray(file.read_bytes())
    content[8192:40 * 8192] = b'\x55' * (39 * 8192)
    file.write_bytes(content)
    with pytest.raises(InputError, match='shop.db: is damaged'):
        with Catalogue(file) as catalogue: catalogue.groups()
