"A PostgreSQL server of one's own: on a free port of this machine, in a folder that is gone afterwards."
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def program_path(name):
    "Debian keeps the server's programs off the path."
    found_programs = sorted(Path('/usr/lib/postgresql').glob(f'*/bin/{name}'))
    return shutil.which(name) or (str(found_programs[-1]) if found_programs else None)


def why_no_server():
    "Why there can be no server, or None."
    if program_path('initdb') is None or program_path('pg_ctl') is None: return 'PostgreSQL is not installed'
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
    user_options = {'user': 'postgres', 'group': 'postgres', 'extra_groups': []} if os.getuid() == 0 else {}
    if user_options: shutil.chown(folder, 'postgres', 'postgres')

    def run_program(name, *arguments):
        subprocess.run([program_path(name), *arguments], cwd=folder, check=True, timeout=60,
                       stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **user_options)
    data_folder = f'{folder}/data'
    try:
        run_program('initdb', '-D', data_folder, '-U', 'shop', '-A', 'trust', '--no-sync')
        server_options = f'-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off'
        run_program('pg_ctl', '-D', data_folder, '-w', '-l', f'{folder}/log', '-o', server_options, 'start')
        try: yield f'postgresql://shop:secret@127.0.0.1:{port}/postgres'
        finally: run_program('pg_ctl', '-D', data_folder, '-m', 'immediate', 'stop')
    finally: shutil.rmtree(folder, ignore_errors=True)
