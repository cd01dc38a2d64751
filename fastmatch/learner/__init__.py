"""fastai Learners over listings: `match_learner` for the same product, `classify_learner` for classes,
`pretrain_learner` to teach frames and text to each other before that."""
from .base import LR_MULT, ListingLearner, groups_splitter
from .classify import ClassifyLearner, classify_learner
from .match import MatchLearner, match_learner
from .pretrain import PretrainLearner, pretrain_learner

__all__ = ['LR_MULT', 'ClassifyLearner', 'ListingLearner', 'MatchLearner', 'PretrainLearner',
           'classify_learner', 'groups_splitter', 'match_learner', 'pretrain_learner']
