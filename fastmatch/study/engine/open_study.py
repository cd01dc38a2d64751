"Opening a study by name: a new one gets its first trial, an old one is continued if it is the same question."
import time
import warnings
from contextlib import nullcontext
from weakref import WeakKeyDictionary

import numpy as np

from ...core import InputError
from .space import as_space, default_values, describe_space
from .storage import explain_storage_errors, hide_optuna_notices, open_storage

SETUP_SECONDS = 5.  # for which one waits for another process to finish making the study
SETUP_POLL = .2  # seconds between two checks

_claim_locks = WeakKeyDictionary()  # the studies opened here, each with its `FileLock` or None


def open_study(
    name: str,  # Of the study
    storage=None,  # As for `open_storage`; the same name and storage again continue the study
    direction: str | None = 'maximize',  # Or 'minimize'; None: the study's own
    space: dict | None = None,  # As `search_space` gives it; its defaults become the first trial; None: any
    sampler='tpe',  # 'tpe', 'cmaes', 'gp', 'random', or an Optuna sampler
    pruner=None,  # None, 'hyperband', 'asha', 'median', or an Optuna pruner
    seed: int = 0,  # Of the sampler
    epochs: int | None = None,  # Of a whole trial, for Hyperband
    about: dict | None = None,  # What else must be the same to continue: plain values that json gives back
):  # optuna.Study
    """Open an Optuna study: a new one, or the one of that name in that storage, if it asks the same question.

    Direction, space and `about` are stored with a new study; where they differ from the stored ones, the call
    raises `InputError`. The first trial is marked as the default (user attribute 'default') if every
    parameter of the space has a default."""
    import optuna

    from .sampler import make_pruner, make_sampler
    if direction not in (None, 'maximize', 'minimize'):
        raise InputError(f"direction={direction!r}: choose 'maximize' or 'minimize'")
    space = None if space is None else as_space(space)
    tools = {'sampler': make_sampler(sampler, seed), 'pruner': make_pruner(pruner, epochs)}
    opened_storage = open_storage(storage)
    location = {'study_name': name, 'storage': opened_storage.storage}
    with hide_optuna_notices(), explain_storage_errors(name), opened_storage.lock or nullcontext():
        # in a database two processes may come at once: one is given the name, and queues the first trial
        try:
            study = optuna.create_study(direction=direction or 'maximize', **location, **tools)
            is_new = True
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(**location, **tools)
            is_new = False
        _claim_locks[study] = opened_storage.lock
        if not is_new:
            _check_same_direction(study, opened_storage.address, direction)
            if opened_storage.lock is None: _wait_until_set_up(study)
        question = {**({} if space is None else {'space': describe_space(space)}), **(about or {})}
        if not _is_set_up(study):
            if space is not None: _queue_default_trial(study, space)
            study.set_user_attr('kept', {**study.user_attrs.get('kept', {}), **question})
        else: _check_same_question(study, opened_storage.address, question)
    return study


def claim_lock(
    study,  # Optuna study
):  # `FileLock`, or None
    "The lock under which workers take trials; None where the storage needs none, or another way opened it."
    return _claim_locks.get(study)


def fingerprint_vectors(
    vectors: dict,  # Modality -> float (n,d) unit rows, n at least 2
) -> dict:  # Modality -> [mean, standard deviation], plain numbers
    """What a study recognizes its embeddings by: mean and spread of the cosines between each listing and the
    next.

    Goes into `about` under the name 'vectors', where differences that come from rounding are forgiven."""
    fingerprint = {}
    for modality, unit_vectors in vectors.items():
        cosines = np.einsum('nd,nd->n', unit_vectors[1:], unit_vectors[:-1], dtype=np.float64)
        fingerprint[modality] = [round(float(cosines.mean()), 5), round(float(cosines.std()), 5)]
    return fingerprint


def _wait_until_set_up(study):
    "Give the process that made the study a moment to queue its first trial."
    for _ in range(round(SETUP_SECONDS / SETUP_POLL)):
        if 'kept' in study.user_attrs: return
        time.sleep(SETUP_POLL)


def _is_set_up(study):
    """Whether a study has a question of its own.

    Without 'kept' it is new, or the process that made it was killed before it was set; without trials it was
    opened only to be read; with trials of which none has begun, and nothing kept, both."""
    from optuna.trial import TrialState
    kept, trials = study.user_attrs.get('kept'), study.get_trials(deepcopy=False)
    if kept is None or not trials: return False
    return bool(kept) or any(trial.state != TrialState.WAITING for trial in trials)


def _queue_default_trial(study, space):
    import optuna
    defaults = default_values(space)
    if not defaults: return
    # a trial that has to draw what its space leaves open is not the kit as it comes
    default_mark = {'default': True} if defaults.keys() == space.keys() else {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        study.enqueue_trial(defaults, user_attrs={'given': defaults, **default_mark}, skip_if_exists=True)


def _check_same_direction(study, address, direction):
    if len(study.directions) > 1:
        raise InputError(f'study {study.study_name!r} in {address} has {len(study.directions)} objectives, '
                         'here a trial has one value: give another name')
    stored_direction = study.direction.name.lower()
    if direction not in (None, stored_direction):
        raise InputError(f'study {study.study_name!r} in {address} is to {stored_direction}, '
                         f'this call is to {direction}: give another name')


def _check_same_question(study, address, question):
    for aspect, asked in question.items():
        stored = study.user_attrs['kept'].get(aspect)
        if stored == asked: continue
        if aspect == 'vectors' and stored and _same_but_for_rounding(stored, asked): continue
        raise InputError(f'study {study.study_name!r} in {address} was begun with {aspect} {stored}; '
                         f'this call says {asked}: give another name')


def _same_but_for_rounding(stored_fingerprint, new_fingerprint):
    "Whether two fingerprints are of the same vectors: on another machine an encoder may round differently."
    if stored_fingerprint.keys() != new_fingerprint.keys(): return False
    return all(np.allclose(numbers, new_fingerprint[modality], rtol=0, atol=1e-4)
               for modality, numbers in stored_fingerprint.items())
