"A service in a process of its own, as the command line starts it."
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def command(shop, *options):
    return [sys.executable, '-c', 'from fastmatch.cli import app; app()', 'serve', str(shop.matcher_folder),
            '--catalogue', str(shop.file), '--images', str(shop.images), '--port', '0', *options]


@contextmanager
def running(shop, *options, **environment):
    "(process, its port), killed at the end where it still runs."
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1', **environment}
    process = subprocess.Popen(command(shop, *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env=environment)
    try:
        said = ''
        while (found := re.search(r'serving on http://\S+:(\d+)', said)) is None:
            line = process.stdout.readline()
            assert line, f'it did not start: {said}'
            said += line
        yield process, int(found[1])
    finally:
        if process.poll() is None: process.kill()
        process.wait()
        process.stdout.close()


def stop(process):
    "Ask it to stop, and wait; its exit code."
    process.send_signal(signal.SIGTERM)
    return process.wait(30)
