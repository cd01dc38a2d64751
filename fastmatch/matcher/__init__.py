"""A matcher: encoder, decision rule and catalogue of known listings as one object.

It saves to a folder, loads without pickle or fastai, and matches new listings.
"""
from .catalogue import check_blanks
from .encode import Encoder, Picture
from .explain import Explanation
from .matcher import Matcher, load_matcher
from .parts import draw_parts, part_similarities
from .result import MatchResult, submission

__all__ = ['Encoder', 'Explanation', 'MatchResult', 'Matcher', 'Picture', 'check_blanks', 'draw_parts',
           'load_matcher', 'part_similarities', 'submission']
