"""Two tables matched against each other: which listing of the one shop is which of the other.

`match_tables` does all of it; the parts are in files of their own.
"""
from .link import match_tables
from .rescore import Rereading
from .result import TableMatches

__all__ = ['Rereading', 'TableMatches', 'match_tables']
