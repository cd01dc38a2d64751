"A PostgreSQL server of one's own: on a free port of this machine, in a folder that is gone afterwards."
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def program(name):
    "Debian keeps the server's programs off the path."
    found = sorted(Path('/usr/lib/postgresql').glob(f'*/bin/{name}'))
    return shutil.which(name) or (str(found[-1]) if found else None)


def lacking():
    "Why there can be no server, or None."
    if program('initdb') is None or program('pg_ctl') is None: return 'PostgreSQL is not installed'
    if os.getuid() == 0:
        import pwd
        try: pwd.getpwnam('postgres')
        except KeyError: return 'PostgreSQL refuses to run as root, and there is no user postgres'
    if find_spec('psycopg') is None: return 'psycopg is not installed'


@contextmanager
def server():
    "The address of a running server."
    folder = tempfile.mkdtemp(prefix='pg')
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        port = listener.getsockname()[1]
    # it refuses to run as root
    user = {'user': 'postgres', 'group': 'postgres', 'extra_groups': []} if os.getuid() == 0 else {}
    if user: shutil.chown(folder, 'postgres', 'postgres')

    def call(name, *arguments):
        subprocess.run([program(name), *arguments], cwd=folder, check=True, timeout=60,
                       stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **user)
    data = f'{folder}/data'
    try:
        call('initdb', '-D', data, '-U', 'shop', '-A', 'trust', '--no-sync')
        options = f'-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off'
        call('pg_ctl', '-D', data, '-w', '-l', f'{folder}/log', '-o', options, 'start')
        try: yield f'postgresql://shop:secret@127.0.0.1:{port}/postgres'
        finally: call('pg_ctl', '-D', data, '-m', 'immediate', 'stop')
    finally: shutil.rmtree(folder, ignore_errors=True)
