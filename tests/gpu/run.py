"""What only a GPU can show, in five minutes on one card: `python tests/gpu/run.py [--json FILE]`.

The tests that are skipped without one (each callback in half precision, losses that read no value), then
the benches `steps`, `heads` and `callbacks` on the card. Prints a table and writes it, with the card's name,
as JSON. Exits with 1 where a test failed or a bench crashed, with 2 where there is no GPU.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = 'tests/callback/test_matrix.py', 'tests/losses/test_base.py'
# without those of peak memory, which look at the machine's and not at the card's
BENCHES = 'steps', 'heads/seconds', 'callbacks/step'


def card() -> dict | None:
    "The card and what drives it; None without one."
    import torch
    if not torch.cuda.is_available(): return None
    properties = torch.cuda.get_device_properties(0)
    return {'card': properties.name, 'memory_gb': round(properties.total_memory / 2**30, 1),
            'torch': torch.__version__, 'cuda': torch.version.cuda, 'python': platform.python_version()}


def test() -> dict:
    "Run the tests that want a GPU; how many passed, failed and were skipped, and which failed."
    command = [sys.executable, '-m', 'pytest', '-m', '', '-k', 'cuda or gpu', '-rfE', *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    failed = [line.split()[1] for line in lines if line.startswith(('FAILED', 'ERROR'))]
    print(*lines[-1 - len(failed):], sep='\n', flush=True)
    return {'exit_code': done.returncode, 'failed': failed,
            'summary': lines[-1] if lines else done.stderr[-500:]}


def measure(file: Path) -> tuple[list, int]:
    "Run the benches on the card: (rows, exit code)."
    environment = {**os.environ, 'FASTMATCH_BENCH_DEVICE': 'cuda'}
    command = [sys.executable, str(ROOT/'tests'/'bench'/'run.py'), *BENCHES, '--json', str(file)]
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    return (json.loads(file.read_text()) if file.exists() else []), code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path, default=Path('gpu.json'), help='where the figures are written')
    options = parser.parse_args()
    found = card()
    if found is None:
        print('torch sees no GPU here: there is nothing to run', file=sys.stderr)
        return 2
    print(', '.join(f'{name} {value}' for name, value in found.items()), flush=True)
    start = time.perf_counter()
    tested = test()
    rows, code = measure(options.json.with_suffix('.rows.json'))
    found |= {'tests': tested, 'rows': rows, 'seconds': round(time.perf_counter() - start)}
    options.json.write_text(json.dumps(found, indent=1) + '\n')
    options.json.with_suffix('.rows.json').unlink(missing_ok=True)
    print(f'{options.json}: {tested["summary"]}; {len(rows)} rows of benches')
    return int(tested['exit_code'] != 0 or code != 0)


if __name__ == '__main__': sys.exit(main())
