"A study's worker: trials until the study holds so many, whoever runs them and however often somebody is killed."
import math
import os
import socket
import threading
import time
import zlib
from contextlib import nullcontext
from pathlib import Path

from ...core import InputError
from .storage import reached

BEAT = 30.  # seconds between signs of life of a running trial
MISSED = 5  # so many missed, and a worker of another machine is taken for dead
MIN_FAILED = 5  # fewer failures never stop a study
TRIES = 3  # how often parameters are tried whose worker died: they may be what killed it


class WrongStudy(InputError):
    "What is wrong with a study as a whole: no other trial would do better, so that none is tried."


def _read(path): return Path(path).read_text() if Path(path).exists() else ''


def _host():
    "This machine since it was started, and within it this space of process ids: containers have their own."
    ns = os.readlink('/proc/self/ns/pid') if os.path.exists('/proc/self/ns/pid') else ''
    return f'{socket.gethostname()}-{zlib.crc32((_read("/proc/sys/kernel/random/boot_id") + ns).encode()):08x}'


def _started(pid):
    "When a process was started, in the kernel's ticks; '' for one that is gone, None where that can't be told."
    if not os.path.exists('/proc/self/stat'): return None
    try: state, *rest = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError): return ''
    # killed, and not yet buried by its parent
    return '' if state in 'ZX' else rest[18]


def me() -> str:
    "This process by machine, process id and start: an id is used again, the three together aren't."
    return f'{_host()}:{os.getpid()}:{_started(os.getpid()) or 0}'


def is_alive(
    worker: str,  # As `me` says it
) -> bool | None:  # None: it can't be told from here
    "Whether a worker's process is still there."
    host, pid, start = worker.rsplit(':', 2)
    if host != _host() or (now := _started(int(pid))) is None: return None
    return now == start


_mine = set()  # (study, trial's number) that this process runs


class _Watch:
    "Who of other machines has given no sign for long: told by this machine's clock alone."
    def __init__(self, patience): self.patience, self.seen = patience, {}

    def silent(self, t):
        now, beat = time.monotonic(), t.user_attrs.get('beat', 0)
        last, since = self.seen.get(t.number, (None, now))
        if beat != last: since = now
        self.seen[t.number] = beat, since
        return now - since > self.patience


def _states(study):
    "The study's trials, the names of states."
    from optuna.trial import TrialState
    return study.get_trials(deepcopy=False), TrialState


def _fail(study, t, reason, kind):
    "Mark a running trial failed; True for the one process that does it."
    from optuna.exceptions import UpdateFinishedTrialError
    _, S = _states(study)
    try:
        for k, v in (('reason', reason), ('failed', kind)): study._storage.set_trial_user_attr(t._trial_id, k, v)
        study._storage.set_trial_state_values(t._trial_id, S.FAIL)
    except UpdateFinishedTrialError: return False
    return True


def _again(study, t, counts=True):
    "Queue a trial's parameters once more; `counts`: they may be what ended it, and three times is enough."
    params, tries = {**t.user_attrs.get('given', {}), **t.params}, t.user_attrs.get('tries', 1) + counts
    if not params or tries > TRIES: return
    default = {'default': True} if t.user_attrs.get('default') else {}
    study.enqueue_trial(params, user_attrs={'given': params, 'tries': tries, 'retry_of': t.user_attrs.get('retry_of', t.number), **default})


def reap(
    study,  # Optuna study
    watch: _Watch | None = None,  # Of workers on other machines; None: those of this one only
) -> list[int]:  # Numbers of the trials
    "Mark the trials failed whose workers are gone, and queue their parameters again."
    trials, S = _states(study)
    dead = []
    for t in trials:
        if t.state != S.RUNNING: continue
        worker = t.user_attrs.get('worker')
        # whoever takes a trial signs it under the lock, which is ours now
        if worker is None: alive = None if isinstance(_lock(study), nullcontext) else False
        else: alive = (study.study_name, t.number) in _mine if worker == me() else is_alive(worker)
        if alive is None: alive = watch is None or not watch.silent(t)
        if not alive and _fail(study, t, f'its worker died ({worker})', 'died'):
            _again(study, t)
            dead.append(t.number)
    return dead


def _lock(study): return getattr(study, 'claiming', None) or nullcontext()


def _claim(study, n_trials):
    "A trial to run, signed; None where others were quicker."
    trial = study.ask()
    # before it is signed: another thread would take it for one that nobody runs
    _mine.add(key := (study.study_name, trial.number))
    try:
        trial.set_user_attr('worker', me())
        trials, S = _states(study)
        # without a lock two may take the last place: the later number gives way
        if sum(t.number < trial.number for t in trials if t.state != S.FAIL) < n_trials: return trial
        _fail(study, trial, 'more than asked', 'surplus')
    except BaseException:
        _mine.discard(key)
        raise
    _mine.discard(key)
    return None


class _Beating:
    "Signs of life from a thread while a trial runs."
    def __init__(self, trial, beat): self.trial, self.beat, self.stop = trial, beat, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._go, daemon=True)
        self.thread.start()

    def __exit__(self, *args):
        self.stop.set()
        self.thread.join()

    def _go(self):
        from optuna.exceptions import UpdateFinishedTrialError
        n = 0
        while not self.stop.wait(self.beat):
            n += 1
            try: self.trial.set_user_attr('beat', n)
            except UpdateFinishedTrialError: return
            # a database that is away for a moment: the trial itself will hear of it if it stays away
            except Exception: continue


def _said(e): return ' '.join(f'{type(e).__name__}: {e}'.split())


def _run(study, trial, objective, beat):
    "Run a trial to its end and say what became of it: (state's name, reason or None)."
    from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
    from optuna.trial import TrialState as S
    key = study.study_name, trial.number
    try:
        with _Beating(trial, beat): value = objective(trial)
        reason = None if isinstance(value, (int, float)) and math.isfinite(value) else f'the objective returned {value!r}'
        if hasattr(value, 'item') and reason: value, reason = value.item(), None if math.isfinite(value.item()) else f'the objective returned {value}'
        if reason: _fail(study, trial, reason, 'value')
        else: study.tell(trial, float(value), skip_if_finished=True)
    except TrialPruned: study.tell(trial, state=S.PRUNED, skip_if_finished=True)
    # taken for dead while it was asleep: somebody has it again
    except UpdateFinishedTrialError: pass
    except WrongStudy as e:
        # not the parameters' fault: when it is mended they are the first again
        t = study._storage.get_trial(trial._trial_id)
        if _fail(study, trial, _said(e), 'study'): _again(study, t, counts=False)
        raise
    except Exception as e: _fail(study, trial, _said(e), 'raised')
    except BaseException as e:
        t = study._storage.get_trial(trial._trial_id)
        if _fail(study, trial, f'interrupted ({type(e).__name__})', 'died'): _again(study, t, counts=not isinstance(e, KeyboardInterrupt))
        raise
    finally: _mine.discard(key)
    return study._storage.get_trial(trial._trial_id)


def work(
    study,  # Optuna study, as from `open_study`
    objective,  # Optuna trial -> number
    n_trials: int,  # Finished trials (complete or pruned) that the study is to hold, whoever ran them
    max_failed: float = .5,  # Stop when more than this share of this call's trials failed, 5 at least
    timeout: float | None = None,  # Seconds after which no trial is begun
    echo=None,  # Called with the `FrozenTrial` of each trial that ended here, and with a line of text where it waits
    beat: float = BEAT,  # Seconds between signs of life
):  # The study
    "Run trials until the study holds `n_trials`: any number of processes may, on any machine, and be killed at any moment."
    if n_trials < 1: raise InputError(f'n_trials={n_trials}: 1 or more')
    # failed trials are made up for: where all fail there would be no end
    if not 0 <= max_failed < 1: raise InputError(f'max_failed={max_failed}: a share, from 0 to below 1')
    echo, watch, begun, ended, said = echo or (lambda o: None), _Watch(MISSED * beat), time.monotonic(), [], False
    with reached(study.study_name):
        while True:
            with _lock(study):
                reap(study, watch)
                trials, S = _states(study)
                done = sum(t.state in (S.COMPLETE, S.PRUNED) for t in trials)
                running = [t.number for t in trials if t.state == S.RUNNING]
                if done >= n_trials or (timeout is not None and time.monotonic() - begun > timeout): return study
                trial = _claim(study, n_trials) if done + len(running) < n_trials else None
            if trial is None:
                if running and not said: echo(f'waiting for trials that run elsewhere: {running}')
                said = bool(running)
                time.sleep(min(1., beat))
                continue
            ended.append(_run(study, trial, objective, beat))
            echo(ended[-1])
            failed = [t for t in ended if t.user_attrs.get('failed') in ('raised', 'value')]
            if len(failed) >= MIN_FAILED and len(failed) > max_failed * len(ended):
                last = dict.fromkeys(t.user_attrs['reason'] for t in failed[-3:])
                raise InputError(f'study {study.study_name!r}: {len(failed)} of {len(ended)} trials failed, the last with: ' + '; '.join(last))
