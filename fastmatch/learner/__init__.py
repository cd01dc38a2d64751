"fastai Learners over listings: `match_learner` for the same product, `classify_learner` for classes."
from .base import LR_MULT, ListingLearner, groups_splitter
from .classify import ClassifyLearner, classify_learner
from .match import MatchLearner, match_learner

__all__ = ['LR_MULT', 'ClassifyLearner', 'ListingLearner', 'MatchLearner', 'classify_learner',
           'groups_splitter', 'match_learner']
