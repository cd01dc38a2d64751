"Optuna studies that resume, prune, run side by side and report on listings they never saw."
from ..match.judge.compare import Comparison, compare
from ..match.judge.repeat import Repeated, repeat
from .draw import show_study, study_figures
from .draw_pools import pools_figure
from .engine.open_study import open_study
from .engine.pruner import PruneTrial
from .engine.space import Param, spaces, suggest
from .engine.work import WrongStudy, work
from .head import tune_head
from .maker import learner_maker
from .reported import tested
from .rule import heldout_rules, tune_rule
from .rule_space import REFINEMENTS
from .tune import tune

__all__ = [
    'Comparison',
    'Param',
    'PruneTrial',
    'REFINEMENTS',
    'Repeated',
    'WrongStudy',
    'compare',
    'heldout_rules',
    'learner_maker',
    'open_study',
    'pools_figure',
    'repeat',
    'show_study',
    'spaces',
    'study_figures',
    'suggest',
    'tested',
    'tune',
    'tune_head',
    'tune_rule',
    'work',
]
