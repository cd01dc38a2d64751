"""The command line: a thin door to the jobs. Heavy imports are inside the commands: --help answers at once.

Each file holds the commands of one kind; --help lists them in the order in which the files are imported here.
"""
# isort: off
from .program import app
from . import training, matching, catalogue, serving, describing
# isort: on

__all__ = ['app', 'catalogue', 'describing', 'matching', 'serving', 'training']
