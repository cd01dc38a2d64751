"Optuna studies that resume, prune, run side by side and report on listings they never saw."
from .space import Param, spaces, suggest
from .storage import open_study
from .work import WrongStudy, work

__all__ = ['Param', 'WrongStudy', 'open_study', 'spaces', 'suggest', 'work']
