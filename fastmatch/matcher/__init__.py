"A matcher: encoders, decision rule and catalogue as one thing that saves to a folder, loads without pickle or fastai, and matches new listings."
from .encode import Encoder, Picture
from .explain import Explanation
from .matcher import Matcher, check_blanks, load_matcher
from .result import MatchResult, submission

__all__ = ['Encoder', 'Explanation', 'MatchResult', 'Matcher', 'Picture', 'check_blanks', 'load_matcher', 'submission']
