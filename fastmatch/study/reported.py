"The reported score: what trials scored on listings that neither training nor study saw, stored and read."
import numpy as np

from ..core import InputError, preview
from ..match.judge.heldout import HeldOut
from .engine.storage import pack_array, unpack_array


def heldout_trial(
    study,  # Of `tune_learner` or `tune_head`, with `test`
    trial=None,  # Its number; None: the best; 'default': the kit as it comes
) -> HeldOut:
    """What a trial scored on the test listings, for each of them; raises `InputError` where there is no such
    score.

    `match.compare(heldout_trial(study), heldout_trial(study, 'default'))` says what tuning was worth."""
    if 'test_groups' not in study.user_attrs:
        raise InputError(f'study {study.study_name!r} has no test listings: tune_learner(test=) gives them')
    scored_trials = [scored for scored in study.get_trials(deepcopy=False)
                     if 'test_rows' in scored.user_attrs and scored.state.name == 'COMPLETE']
    if trial is None: chosen_number = study.best_trial.number if scored_trials else None
    elif trial == 'default':
        default_numbers = [scored.number for scored in scored_trials if scored.user_attrs.get('default')]
        chosen_number = next(iter(default_numbers), None)
    else: chosen_number = trial
    chosen_trial = next((scored for scored in scored_trials if scored.number == chosen_number), None)
    if chosen_trial is None:
        scored_numbers = [scored.number for scored in scored_trials]
        wanted = 'complete' if trial is None else repr(trial)
        raise InputError(f'study {study.study_name!r}: no {wanted} trial was scored on the test listings; '
                         f'those that were: {preview(scored_numbers, 20) or "none"}')
    row_f1 = unpack_array(chosen_trial.user_attrs['test_rows'])
    return HeldOut(row_f1, np.asarray(study.user_attrs['test_groups']))


def store_test_score(
    trial,  # Optuna trial that is running
    held_out: HeldOut,  # Of the test listings
):
    "Store what a trial scored on the test listings as its user attributes, for `heldout_trial`."
    trial.set_user_attr('test_row_f1', round(held_out.mean, 5))
    trial.set_user_attr('test_se', round(held_out.se, 5))
    trial.set_user_attr('test_rows', pack_array(held_out.row_f1))
