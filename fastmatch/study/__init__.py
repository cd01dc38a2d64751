"""Optuna studies that resume, prune, run side by side and report on listings they never saw.

What notebooks use of it has names of two words (`tune_learner`, `search_space`, `heldout_trial`), and
`fastmatch.all` has no module `study`: notebooks call their studies so.
"""
from .draw import show_study, study_figures
from .draw_pools import pools_figure
from .engine.open_study import open_study
from .engine.pruner import PruneTrial
from .engine.space import Param, search_space, suggest
from .engine.work import WrongStudy, work
from .head import tune_head
from .maker import learner_maker
from .reported import heldout_trial
from .rule import heldout_rules, tune_rule
from .rule_space import REFINEMENTS
from .tune import tune_learner

__all__ = [
    'Param',
    'PruneTrial',
    'REFINEMENTS',
    'WrongStudy',
    'heldout_rules',
    'heldout_trial',
    'learner_maker',
    'open_study',
    'pools_figure',
    'search_space',
    'show_study',
    'study_figures',
    'suggest',
    'tune_head',
    'tune_learner',
    'tune_rule',
    'work',
]
