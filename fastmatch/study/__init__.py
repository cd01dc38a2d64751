"Optuna studies that resume, prune, run side by side and report on listings they never saw."
from .compare import Comparison, Repeated, compare, repeat
from .draw import show_study, study_figures
from .head import tune_head
from .maker import learner_maker
from .prune import PruneTrial
from .rule import heldout_rules, tune_rule
from .space import Param, spaces, suggest
from .storage import open_study
from .structure import REFINEMENTS
from .tune import tested, tune
from .work import WrongStudy, work

__all__ = ['Comparison', 'Param', 'PruneTrial', 'REFINEMENTS', 'Repeated', 'WrongStudy', 'compare', 'heldout_rules', 'learner_maker', 'open_study', 'repeat',
           'show_study', 'spaces', 'study_figures', 'suggest', 'tested', 'tune', 'tune_head', 'tune_rule', 'work']
