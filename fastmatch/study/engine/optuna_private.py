"""The one place that uses private attributes of Optuna, because its public interface has nothing for what is
needed.

A trial that another process runs is seen as a `FrozenTrial`, and Optuna has no public way to write an
attribute of it to the storage. `tests/study/engine/test_optuna_private.py` fails when the attributes used
here change."""


def set_attribute_of_any_trial(
    study,  # Optuna study
    trial,  # `Trial` or `FrozenTrial` of this study that has not ended, whoever runs it
    key: str,  # Of the user attribute
    value,  # What json can hold
):
    "Store a user attribute of a trial; raises Optuna's `UpdateFinishedTrialError` for one that has ended."
    study._storage.set_trial_user_attr(trial._trial_id, key, value)
