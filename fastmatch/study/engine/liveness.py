"Whether the process that runs a trial is still there: by its id on this machine, by its heartbeat on others."
import os
import socket
import threading
import time
import zlib
from pathlib import Path

import psutil

UNKNOWN_START = 0  # in a worker's name, where the system would not tell when its process was started
START_TOLERANCE = 2.  # seconds by which two readings of one start may differ: the clock may be set meanwhile


def worker_name(
    pid: int | None = None,  # Process on this machine; default this one
) -> str:  # 'machine:process id:start'
    "A process by machine, id and start: an id alone may be given to another process later."
    pid = os.getpid() if pid is None else pid
    start = _process_start(pid)
    return f'{_machine()}:{pid}:{UNKNOWN_START if start is None else start}'


def is_alive(
    worker: str,  # As `worker_name` gives it
) -> bool | None:  # None: it can't be told from here, for example on another machine
    "Whether a worker's process still runs."
    machine, pid, start = worker.rsplit(':', 2)
    if machine != _machine() or int(start) == UNKNOWN_START: return None
    try: start_now = _process_start(int(pid))
    except psutil.NoSuchProcess: return False
    if start_now is None: return None
    return abs(start_now - int(start)) <= START_TOLERANCE * _ticks_per_second()


def _machine():
    """This machine since it was booted, and within it this space of process ids, as containers number their
    processes anew.

    psutil knows neither the boot's id nor such spaces, so both are read where Linux keeps them; elsewhere the
    host's name has to do."""
    boot = Path('/proc/sys/kernel/random/boot_id')
    namespace = '/proc/self/ns/pid'
    place = boot.read_text() if boot.exists() else ''
    if os.path.exists(namespace): place += os.readlink(namespace)
    return f'{socket.gethostname()}-{zlib.crc32(place.encode()):08x}'


def _ticks_per_second(): return os.sysconf('SC_CLK_TCK') if psutil.LINUX else 1


def _process_start(pid):
    """When a process was started: on Linux in clock ticks since boot, which setting the clock does not
    change, elsewhere in seconds.

    Raises `psutil.NoSuchProcess` for a process that is gone, or was killed and its parent has not noticed
    yet. None: it can't be told."""
    try:
        # asked first: earlier versions of psutil remember it, and use it for the process's time
        booted = psutil.boot_time() if psutil.LINUX else 0
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD): raise psutil.NoSuchProcess(pid)
        return round((process.create_time() - booted) * _ticks_per_second())
    except (psutil.AccessDenied, OSError, RuntimeError): return None


class SilenceWatch:
    """Notices trials whose heartbeat has stood still for long.

    It uses this machine's clock alone, as clocks of two machines differ."""
    def __init__(
        self,
        patience: float,  # Seconds without a new heartbeat after which a trial counts as silent
    ):
        self.patience = patience
        self.last_seen = {}  # trial's number -> (its last heartbeat, when this machine first saw that)

    def is_silent(
        self,
        trial,  # `FrozenTrial` that another machine runs
    ) -> bool:
        "Whether this object has seen the same heartbeat for longer than `patience`."
        now = time.monotonic()
        beat = trial.user_attrs.get('beat', 0)
        last_beat, since = self.last_seen.get(trial.number, (None, now))
        if beat != last_beat: since = now
        self.last_seen[trial.number] = beat, since
        return now - since > self.patience


class Heartbeat:
    "A context in which a thread counts up the trial's attribute 'beat', the sign of life for other machines."
    def __init__(
        self,
        trial,  # Optuna trial that this process runs
        interval: float,  # Seconds between beats
    ):
        self.trial, self.interval = trial, interval
        self.stopped = threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._beat_until_stopped, daemon=True)
        self.thread.start()

    def __exit__(self, *error):
        self.stopped.set()
        self.thread.join()

    def _beat_until_stopped(self):
        from optuna.exceptions import UpdateFinishedTrialError
        beats = 0
        while not self.stopped.wait(self.interval):
            beats += 1
            try: self.trial.set_user_attr('beat', beats)
            except UpdateFinishedTrialError: return
            # a database that is out of reach for a moment: if it stays so, the trial itself will fail on it
            except Exception: continue
