"""A matcher: encoder, decision rule and catalogue of known listings as one object.

It saves to a folder, loads without pickle or fastai, and matches new listings.
"""
from .known import check_blanks
from .encode import Encoder, Picture
from .explain import Explanation
from .matcher import Matcher, load_matcher
from .result import MatchResult, submission

__all__ = ['Encoder', 'Explanation', 'MatchResult', 'Matcher', 'Picture', 'check_blanks', 'load_matcher',
           'submission']
