"Losses as their papers write them, one row at a time in float64 with numpy; slow and plain on purpose."
import math

import numpy as np


def cross_entropy(logits, y, weight=None, smoothing=0.):
    rows = []
    for z, t in zip(np.asarray(logits, np.float64), y):
        logp = z - z.max() - math.log(np.exp(z - z.max()).sum())
        w = np.ones(len(z)) if weight is None else np.asarray(weight, np.float64)
        rows.append(-(1 - smoothing) * w[t] * logp[t] - smoothing / len(z) * (w * logp).sum())
    return np.array(rows)


def arcface(cos, y, m, s, smoothing=0.):
    "Deng et al. 2018, equation 3; past pi - m the straight line of the authors' code."
    z = s * np.asarray(cos, np.float64)
    for i, t in enumerate(y):
        theta = math.acos(float(cos[i][t]))
        z[i, t] = s * (math.cos(theta + m) if theta + m < math.pi else math.cos(theta) - m * math.sin(m))
    return cross_entropy(z, y, smoothing=smoothing)


def focal(logits, y, gamma, weight=None):
    "Lin et al. 2017, equation 5, with p_t of the plain softmax."
    ce = cross_entropy(logits, y)
    w = np.ones(np.shape(logits)[1]) if weight is None else np.asarray(weight, np.float64)
    return np.array([w[t] * (1 - math.exp(-c))**gamma * c for c, t in zip(ce, y)])
