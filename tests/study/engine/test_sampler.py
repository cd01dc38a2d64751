"Samplers and pruners by name: a resumed study draws what one left alone would have drawn."
import pytest

from fastmatch.study import open_study, search_space, work
from fastmatch.study.engine.sampler import make_sampler

SPACE = search_space('margin', lr=(1e-4, 1e-2, 'log'))


def objective(trial):
    margin = trial.suggest_float('margin', 0, .8)
    return -(margin - .5)**2 - trial.suggest_float('lr', 1e-4, 1e-2, log=True)


@pytest.mark.parametrize('sampler', ['tpe', 'cmaes', 'gp', 'random'])
def test_samplers_by_name_draw_the_same_again(sampler):
    if sampler == 'cmaes': pytest.importorskip('cmaes')

    def drawn_params(seed, study_sizes=(14,)):
        study = open_study('s', space=SPACE, sampler=sampler, seed=seed)
        for n_trials in study_sizes:
            # a resumed study has a sampler that has forgotten everything
            study.sampler = make_sampler(sampler, seed)
            work(study, objective, n_trials)
        return [tuple(trial.params.values()) for trial in study.trials]
    drawn_alone = drawn_params(0)
    assert drawn_alone == drawn_params(0, (3, 9, 14)) and drawn_alone != drawn_params(1)
    assert len(set(drawn_alone)) == 14


def test_hyperband_knows_its_resource():
    study = open_study('s', pruner='hyperband', epochs=9)
    study.pruner._try_initialization(study)
    assert study.pruner._n_brackets == 3


def test_pruners_by_name():
    assert type(open_study('s', pruner='asha').pruner).__name__ == 'SuccessiveHalvingPruner'
    assert type(open_study('s').pruner).__name__ == 'NopPruner'
