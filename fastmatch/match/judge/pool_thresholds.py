"Thresholds over the size of the pool (to be replaced)."
from ..pools import PoolThresholds


def pool_thresholds(setting, rule, seed=0):
    "The threshold as it is."
    return PoolThresholds((setting.pool,), (rule.threshold,), 0.)
