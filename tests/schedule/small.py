"The tiny Learner of the optimizers' tests, but fastai's own with nothing added except the schedules."
from fastai.learner import Learner

from fastmatch.schedule import ScheduledFits
from tests.optim import tiny


class ScheduledLearner(ScheduledFits, Learner):
    "fastai's Learner with the schedules as methods."


def make_learner(make_optimizer, folder=None, **options):
    "A `ScheduledLearner` of a `TinyNet` or of another `model`, see `tiny.make_learner`."
    return tiny.make_learner(make_optimizer, folder, learner_class=ScheduledLearner, **options)
