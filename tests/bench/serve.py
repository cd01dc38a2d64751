"""How much of an encoder's speed is left behind HTTP: `fastmatch serve` against bare batches of it.

    python tests/bench/serve.py --matcher shop-matcher --images images --listings listings.csv

Both are measured in one run, by turns: the listings are embedded in bare batches by `Encoder.embed` (of the
bytes of files), and matched by 16 clients that each ask again as soon as they are answered. Clients are a
process of their own. The ratio is of listings a second; p50 and p99 are of answers to single requests. CPU
time a listing says more than either where other programs run: both are slowed down, and not alike.
"""
import argparse
import http.client
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

CLIENTS = 16
BATCH = 32  # of the bare encoder


def request_of(title, content):
    "A form as a client sends it."
    body = (b'--x\r\ncontent-disposition: form-data; name="title"\r\n\r\n' + title.encode()
            + b'\r\n--x\r\ncontent-disposition: form-data; name="picture"; filename="a"\r\n\r\n' + content
            + b'\r\n--x--\r\n')
    return body, {'content-type': 'multipart/form-data; boundary=x'}


def ask_all(port, listings, images, seconds, clients):
    "Ask with so many clients for some seconds: (listings a second, seconds of each answer)."
    table = pd.read_csv(listings)
    requests = [request_of(title, (Path(images)/name).read_bytes())
                for title, name in zip(table.title, table.image)]
    taken = [[] for _ in range(clients)]
    until = time.monotonic() + seconds

    def ask(client):
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
        place = client
        while time.monotonic() < until:
            began = time.monotonic()
            connection.request('POST', '/api/match', *requests[place % len(requests)])
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200: raise SystemExit(f'status {answer.status}')
            taken[client].append(time.monotonic() - began)
            place += clients
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool: list(pool.map(ask, range(clients)))
    passed = time.monotonic() - began
    times = [each for of_client in taken for each in of_client]
    return len(times) / passed, times


def bare(encoder, titles, contents, seconds):
    "(listings a second, CPU seconds a listing) of the encoder in batches, with perceptual hashes."
    began, spent = time.monotonic(), time.process_time()
    done = place = 0
    while time.monotonic() - began < seconds:
        rows = [row % len(titles) for row in range(place, place + BATCH)]
        encoder.embed([io.BytesIO(contents[row]) for row in rows], [titles[row] for row in rows], BATCH,
                      hashes=True)
        place, done = place + BATCH, done + BATCH
    return done / (time.monotonic() - began), (time.process_time() - spent) / done


def cpu_of(number):
    "CPU seconds that a process has used."
    times = psutil.Process(number).cpu_times()
    return times.user + times.system


def measure(arguments):
    "Rounds of both by turns; prints each, and the ratio of the medians."
    from fastmatch.catalogue import Catalogue
    from fastmatch.matcher import load_matcher
    matcher = load_matcher(arguments.matcher, 'cpu')
    table = pd.read_csv(arguments.listings)
    contents = [(Path(arguments.images)/name).read_bytes() for name in table.image]
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.catalogue
        if file is None:
            file = Path(folder)/'shop.db'
            with Catalogue.create(file, matcher) as catalogue: catalogue.add(table, arguments.images)
        command = [sys.executable, '-c', 'from fastmatch.cli import app; app()', 'serve', arguments.matcher,
                   '--catalogue', str(file), '--port', '0']
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            port = int(server.stdout.readline().rsplit(':', 1)[1])
            rounds = []
            for _ in range(arguments.rounds):
                speed, cost = bare(matcher.encoder, list(table.title), contents, arguments.seconds)
                spent = cpu_of(server.pid)
                served, times = json.loads(subprocess.run(
                    [sys.executable, __file__, '--ask', str(port), '--listings',
                     arguments.listings, '--images', arguments.images, '--seconds', str(arguments.seconds),
                     '--clients', str(arguments.clients)], stdout=subprocess.PIPE, text=True,
                    check=True).stdout)
                spent = (cpu_of(server.pid) - spent) / len(times)
                rounds.append((speed, served, times))
                print(f'bare {speed:.1f}/s ({1000 * cost:.1f} ms CPU), served {served:.1f}/s '
                      f'({1000 * spent:.1f} ms CPU) to {arguments.clients} clients', flush=True)
            server.terminate()
            server.communicate()
    speed, served = (statistics.median(column) for column in list(zip(*rounds))[:2])
    times = [each for _, _, of_round in rounds for each in of_round]
    p50, p99 = np.percentile(times, [50, 99])
    print(f'ratio {served / speed:.2f} (bare {speed:.1f}/s, served {served:.1f}/s), p50 {1000 * p50:.0f} ms, '
          f'p99 {1000 * p99:.0f} ms, {len(times)} requests')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--matcher', help='folder of a matcher of pictures and titles')
    parser.add_argument('--catalogue', help='a catalogue of it; default: one of the listings')
    parser.add_argument('--listings', required=True, help='table: posting_id, image, title')
    parser.add_argument('--images', required=True, help='folder of the images')
    parser.add_argument('--seconds', type=float, default=20, help='of each round')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--clients', type=int, default=CLIENTS)
    parser.add_argument('--ask', type=int, help='(a port: be the clients)')
    arguments = parser.parse_args()
    if arguments.ask is None and arguments.matcher is None: parser.error('give --matcher')
    if arguments.ask is None: measure(arguments)
    else: print(json.dumps(ask_all(arguments.ask, arguments.listings, arguments.images, arguments.seconds,
                                   arguments.clients)))


if __name__ == '__main__': main()
