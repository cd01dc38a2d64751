"Optuna studies that resume, prune, run side by side and report on listings they never saw."
from .maker import learner_maker
from .prune import PruneTrial
from .space import Param, spaces, suggest
from .storage import open_study
from .tune import tested, tune
from .work import WrongStudy, work

__all__ = ['Param', 'PruneTrial', 'WrongStudy', 'learner_maker', 'open_study', 'spaces', 'suggest', 'tested', 'tune', 'work']
