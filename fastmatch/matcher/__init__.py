"""A matcher: encoder, decision rule and catalogue of known listings as one object.

It saves to a folder, loads without pickle or fastai, and matches new listings.
"""
from .cropped import CropEncoder
from .encode import Encoder, Picture
from .explain import Explanation
from .known import check_blanks
from .matcher import Matcher, load_matcher
from .parts import draw_parts, part_similarities
from .result import MatchResult, submission
from .several import SeveralEncoders
from .stream import match_file

__all__ = ['CropEncoder', 'Encoder', 'Explanation', 'MatchResult', 'Matcher', 'Picture', 'SeveralEncoders',
           'check_blanks', 'draw_parts', 'load_matcher', 'match_file', 'part_similarities', 'submission']
