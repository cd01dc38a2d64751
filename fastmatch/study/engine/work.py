"A study's worker: runs trials until the study holds as many as asked for, beside any other workers."
import math
import time
from contextlib import nullcontext
from typing import Protocol, runtime_checkable

from ...core import InputError
from .liveness import Heartbeat, SilenceWatch, is_alive, worker_name
from .open_study import claim_lock
from .optuna_private import set_attribute_of_any_trial
from .storage import explain_storage_errors

HEARTBEAT = 30.  # seconds between signs of life of a running trial
MISSED_BEATS = 5  # so many missed, and a worker on another machine counts as lost
MIN_FAILED = 5  # fewer failures never stop a study
MAX_TRIES = 3  # how often parameters are tried whose worker was lost: they may be what killed it

REQUEUED = 'died', 'study'  # why a trial failed whose parameters may be better than that

_running_here = set()  # (study's name, trial's number) of the trials that this process runs


class WrongStudy(InputError):
    "Something is wrong with the study as a whole, so that no other trial could do better: it ends at once."


@runtime_checkable
class Scalar(Protocol):
    "A number of numpy or torch."
    def item(self): ...


def work(
    study,  # Optuna study, as `open_study` gives it
    objective,  # Optuna trial -> number
    n_trials: int,  # Finished trials (complete or pruned) that the study is to hold, whoever ran them
    max_failed: float = .5,  # Stop when more than this share of this call's trials failed, 5 at least
    timeout: float | None = None,  # Seconds after which no trial is begun
    echo=None,  # Called with the `FrozenTrial` of each trial that ended here, or a text while it waits
    beat: float = HEARTBEAT,  # Seconds between signs of life
):  # The study
    """Run trials until the study holds `n_trials`.

    Any number of processes may do so at once, on any machine, and each may be killed at any moment: what it
    was running is marked failed and tried again. A trial that raises is marked failed with its reason and
    replaced by another; raises `InputError` where too many fail."""
    if n_trials < 1: raise InputError(f'n_trials={n_trials}: 1 or more')
    # failed trials are replaced: where all fail there would be no end
    if not 0 <= max_failed < 1: raise InputError(f'max_failed={max_failed}: a share, from 0 to below 1')
    from optuna.trial import TrialState
    echo = echo or (lambda message: None)
    silence_watch = SilenceWatch(MISSED_BEATS * beat)
    started_at = time.monotonic()
    ended_trials = []
    waiting_was_reported = False
    with explain_storage_errors(study.study_name):
        while True:
            with claim_lock(study) or nullcontext():
                mark_lost_trials(study, silence_watch)
                trials = study.get_trials(deepcopy=False)
                n_finished = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
                running_numbers = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
                is_out_of_time = timeout is not None and time.monotonic() - started_at > timeout
                if n_finished >= n_trials or is_out_of_time: return study
                trial = claim_trial(study, n_trials) if n_finished + len(running_numbers) < n_trials else None
            if trial is None:
                if running_numbers and not waiting_was_reported:
                    echo(f'waiting for trials that run elsewhere: {running_numbers}')
                waiting_was_reported = bool(running_numbers)
                time.sleep(min(1., beat))
                continue
            ended_trials.append(run_trial(study, trial, objective, beat))
            echo(ended_trials[-1])
            _check_failures(study, ended_trials, max_failed)


def claim_trial(
    study,  # Optuna study
    n_trials: int,  # Trials that it is to hold
):  # optuna.Trial; None where other workers were quicker
    "Take the next trial and sign it with this worker's name."
    from optuna.trial import TrialState
    trial = study.ask()
    # before it is signed: another thread would take it for a trial that nobody runs
    trial_key = study.study_name, trial.number
    _running_here.add(trial_key)
    try:
        trial.set_user_attr('worker', worker_name())
        trials = study.get_trials(deepcopy=False)
        # without a lock two workers may take the last place: the one with the later number gives way
        n_earlier = sum(other.number < trial.number for other in trials if other.state != TrialState.FAIL)
        if n_earlier < n_trials: return trial
        fail_trial(study, trial, 'more than asked', 'surplus')
    except BaseException:
        _running_here.discard(trial_key)
        raise
    _running_here.discard(trial_key)
    return None


def run_trial(
    study,  # Optuna study
    trial,  # Of `claim_trial`
    objective,  # Optuna trial -> number
    beat: float,  # Seconds between signs of life
):  # FrozenTrial
    """Run a trial to its end and store what became of it.

    An error of the objective ends the trial alone; `WrongStudy` and interruptions are raised again."""
    from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
    from optuna.trial import TrialState
    try:
        with Heartbeat(trial, beat): returned = objective(trial)
        _store_value(study, trial, returned)
    except TrialPruned: study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    # another worker marked it lost while this machine slept, and queued its parameters again
    except UpdateFinishedTrialError: pass
    except WrongStudy as error:
        # not the parameters' fault: once the cause is removed they are tried first
        _fail_and_requeue(study, trial, _one_line(error), 'study', counts_as_try=False)
        raise
    except Exception as error: fail_trial(study, trial, _one_line(error), 'raised')
    except BaseException as error:
        reason = f'interrupted ({type(error).__name__})'
        is_users_doing = isinstance(error, KeyboardInterrupt)
        _fail_and_requeue(study, trial, reason, 'died', counts_as_try=not is_users_doing)
        raise
    finally: _running_here.discard((study.study_name, trial.number))
    return find_trial(study, trial.number)


def mark_lost_trials(
    study,  # Optuna study
    watch: SilenceWatch | None = None,  # Of workers on other machines; None: they are left alone
) -> list[int]:  # Numbers of the trials
    "Mark running trials failed whose workers are gone, and queue their parameters again."
    from optuna.trial import TrialState
    lost_numbers = []
    trials = study.get_trials(deepcopy=False)
    # failed and queued again are two writes: who did the first may have been killed before the second
    if claim_lock(study) is not None:
        for trial in _forgotten(trials): requeue_trial(study, trial)
    for trial in trials:
        if trial.state != TrialState.RUNNING: continue
        worker = trial.user_attrs.get('worker')
        # None: it is not known from here. A worker writes its name to a trial under the lock, which this one
        # holds now: a running trial without a name has lost its worker
        if worker is None: may_still_run = None if claim_lock(study) is None else False
        elif worker == worker_name(): may_still_run = (study.study_name, trial.number) in _running_here
        else: may_still_run = is_alive(worker)
        if may_still_run is None: may_still_run = watch is None or not watch.is_silent(trial)
        if not may_still_run and fail_trial(study, trial, f'its worker died ({worker})', 'died'):
            requeue_trial(study, trial)
            lost_numbers.append(trial.number)
    return lost_numbers


def _forgotten(trials):
    "The failed trials of dead workers that were to be tried again, and that nobody queued."
    from optuna.trial import TrialState
    last_of = {}
    for trial in trials: last_of[trial.user_attrs.get('retry_of', trial.number)] = trial
    failed = [trial for trial in last_of.values()
              if trial.state == TrialState.FAIL and trial.user_attrs.get('failed') in REQUEUED]
    # a worker that lives may be about to queue it
    return [trial for trial in failed
            if 'worker' not in trial.user_attrs or is_alive(trial.user_attrs['worker']) is False]


def fail_trial(
    study,  # Optuna study
    trial,  # `Trial` or `FrozenTrial` that has not ended, of any process
    reason: str,  # In words
    kind: str,  # 'raised', 'value', 'died', 'surplus' or 'study'
) -> bool:
    "Mark a trial failed; True for the one process that does it, False where the trial has ended already."
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState
    try:
        set_attribute_of_any_trial(study, trial, 'reason', reason)
        set_attribute_of_any_trial(study, trial, 'failed', kind)
        study.tell(trial.number, state=TrialState.FAIL)
    except UpdateFinishedTrialError: return False
    except ValueError:
        # what `tell` raises for a trial that another process has ended a moment ago
        if not find_trial(study, trial.number).state.is_finished(): raise
        return False
    return True


def requeue_trial(
    study,  # Optuna study
    trial,  # `FrozenTrial` that failed
    counts_as_try: bool = True,  # Whether its parameters may be what ended it: the third such end is the last
):
    "Queue a trial's parameters once more, if it has any."
    parameters = {**trial.user_attrs.get('given', {}), **trial.params}
    n_tries = trial.user_attrs.get('tries', 1) + counts_as_try
    if not parameters or n_tries > MAX_TRIES: return
    first_number = trial.user_attrs.get('retry_of', trial.number)
    attributes = {'given': parameters, 'tries': n_tries, 'retry_of': first_number}
    if trial.user_attrs.get('default'): attributes['default'] = True
    study.enqueue_trial(parameters, user_attrs=attributes)


def find_trial(
    study,  # Optuna study
    number: int,  # Of the trial
):  # FrozenTrial
    "A trial by its number, as it is stored now."
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)


def _store_value(study, trial, returned):
    "End a trial with what its objective returned: complete with a finite number, failed with anything else."
    reason = None
    if not _is_finite_number(returned):
        reason = f'the objective returned {returned!r}'
        if isinstance(returned, Scalar):
            returned = returned.item()
            reason = None if math.isfinite(returned) else f'the objective returned {returned}'
    if reason is None: study.tell(trial, float(returned), skip_if_finished=True)
    else: fail_trial(study, trial, reason, 'value')


def _is_finite_number(returned): return isinstance(returned, (int, float)) and math.isfinite(returned)


def _fail_and_requeue(study, trial, reason, failure_kind, counts_as_try):
    frozen_trial = find_trial(study, trial.number)
    if fail_trial(study, trial, reason, failure_kind): requeue_trial(study, frozen_trial, counts_as_try)


def _one_line(error): return ' '.join(f'{type(error).__name__}: {error}'.split())


def _check_failures(study, ended_trials, max_failed):
    "Raise `InputError` where too large a share of the trials that ended here failed by themselves."
    failed_trials = [trial for trial in ended_trials if trial.user_attrs.get('failed') in ('raised', 'value')]
    if len(failed_trials) < MIN_FAILED or len(failed_trials) <= max_failed * len(ended_trials): return
    last_reasons = dict.fromkeys(trial.user_attrs['reason'] for trial in failed_trials[-3:])
    raise InputError(f'study {study.study_name!r}: {len(failed_trials)} of {len(ended_trials)} trials '
                     f'failed, the last with: {"; ".join(last_reasons)}')
