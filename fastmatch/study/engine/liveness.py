"Whether the process that runs a trial is still there: by its id on this machine, by its heartbeat on others."
import os
import socket
import threading
import time
import zlib
from pathlib import Path

import psutil

UNKNOWN_START = 0  # in a worker's name, where the system does not give the start of its process
START_TOLERANCE = 2.  # seconds by which two readings of one start may differ: the clock may be set meanwhile


def worker_name(
    pid: int | None = None,  # Process on this machine; default this one
) -> str:  # 'machine:process id:start'
    "A process by machine, id and start: an id alone may be given to another process later."
    pid = os.getpid() if pid is None else pid
    started_at = _process_start(pid)
    return f'{_machine()}:{pid}:{UNKNOWN_START if started_at is None else started_at}'


def is_alive(
    worker: str,  # As `worker_name` gives it
) -> bool | None:  # None: unknown, for example on another machine
    "Whether a worker's process still runs."
    machine, process_id, recorded_start = worker.rsplit(':', 2)
    if machine != _machine() or int(recorded_start) == UNKNOWN_START: return None
    try: current_start = _process_start(int(process_id))
    except psutil.NoSuchProcess: return False
    if current_start is None: return None
    return abs(current_start - int(recorded_start)) <= START_TOLERANCE * _ticks_per_second()


def _machine():
    """This machine since it was booted, and within it this space of process ids, as containers number their
    processes anew.

    psutil knows neither the boot's id nor such spaces, so both are read where Linux keeps them; elsewhere the
    host's name has to do."""
    boot_id_file = Path('/proc/sys/kernel/random/boot_id')
    namespace_link = '/proc/self/ns/pid'
    identity = boot_id_file.read_text() if boot_id_file.exists() else ''
    if os.path.exists(namespace_link): identity += os.readlink(namespace_link)
    return f'{socket.gethostname()}-{zlib.crc32(identity.encode()):08x}'


def _ticks_per_second(): return os.sysconf('SC_CLK_TCK') if psutil.LINUX else 1


def _process_start(process_id):
    """When a process was started: on Linux in clock ticks since boot, which setting the clock does not
    change, elsewhere in seconds.

    Raises `psutil.NoSuchProcess` for a process that is gone, or was killed and its parent has not noticed
    yet. None: unknown."""
    try:
        # asked first: earlier versions of psutil remember it, and use it for the process's time
        boot_time = psutil.boot_time() if psutil.LINUX else 0
        process = psutil.Process(process_id)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            raise psutil.NoSuchProcess(process_id)
        return round((process.create_time() - boot_time) * _ticks_per_second())
    except (psutil.AccessDenied, OSError, RuntimeError): return None


class SilenceWatch:
    """Notices trials whose heartbeat has not changed for long.

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
        heartbeat = trial.user_attrs.get('beat', 0)
        last_heartbeat, first_seen = self.last_seen.get(trial.number, (None, now))
        if heartbeat != last_heartbeat: first_seen = now
        self.last_seen[trial.number] = heartbeat, first_seen
        return now - first_seen > self.patience


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
        beat_count = 0
        while not self.stopped.wait(self.interval):
            beat_count += 1
            try: self.trial.set_user_attr('beat', beat_count)
            except UpdateFinishedTrialError: return
            # a database that is out of reach for a moment: if it stays so, the trial itself will fail on it
            except Exception: continue
