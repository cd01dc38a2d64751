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



def with_target(cos, y, s, target, smoothing=0.):
    "Softmax cross-entropy over s * cos with `target(theta, class)` in the target's place; `s` may be a row (n,1) or (n,c)."
    z = np.array(cos, np.float64)
    for i, t in enumerate(y): z[i, t] = target(math.acos(z[i, t]), t)
    return cross_entropy(z * s, y, smoothing=smoothing)


def psi(theta, m):
    "Liu et al. 2016, equation 6, looking for the k whose stretch holds m theta."
    for k in range(20):
        if k * math.pi <= m * theta <= (k + 1) * math.pi: return (-1)**k * math.cos(m * theta) - 2 * k


def curricular(cos, y, m, s, t):
    "Huang et al. 2020, equations 5 and 9; past pi - m ArcFace's straight line."
    z = np.array(cos, np.float64)
    for i, k in enumerate(y):
        theta = math.acos(cos[i][k])
        hard = math.cos(theta + m) if theta + m < math.pi else math.cos(theta) - m * math.sin(m)
        for j in range(z.shape[1]):
            if j == k: z[i, j] = hard
            elif cos[i][j] > hard: z[i, j] = cos[i][j] * (t + cos[i][j])
    return cross_entropy(s * z, y)


def adacos_scale(cos, y, s):
    "Zhang et al. 2019, equation 15, from the scale before."
    b, thetas = 0., []
    for i, t in enumerate(y):
        thetas.append(math.acos(cos[i][t]))
        for j in range(len(cos[i])):
            if j != t: b += math.exp(s * cos[i][j]) / len(y)
    # torch's median: the lower of the middle two
    return math.log(b) / math.cos(min(math.pi / 4, sorted(thetas)[(len(thetas) - 1) // 2]))


def sigmoid(x): return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def asymmetric(x, y, gamma_pos, gamma_neg, clip):
    "Ridnik et al. 2020, equations 4 to 7, with the sign of a loss."
    rows = []
    for xs, ys in zip(x, y):
        total = 0.
        for v, t in zip(xs, ys):
            p = sigmoid(v)
            if t: total -= (1 - p)**gamma_pos * math.log(p)
            else:
                p = max(p - clip, 0)
                total -= p**gamma_neg * math.log(1 - p)
        rows.append(total / len(xs))
    return np.array(rows)


def multi_label_focal(x, y, gamma, alpha):
    "Lin et al. 2017, equation 5, for each label."
    rows = []
    for xs, ys in zip(x, y):
        total = 0.
        for v, t in zip(xs, ys):
            p_t, a_t = (sigmoid(v), alpha) if t else (sigmoid(-v), 1 - alpha)
            total -= a_t * (1 - p_t)**gamma * math.log(p_t)
        rows.append(total / len(xs))
    return np.array(rows)


def soft_f_beta(x, y, beta, eps=1e-6):
    total = 0.
    for j in range(len(x[0])):
        tp = sum(sigmoid(a[j]) * b[j] for a, b in zip(x, y))
        predicted, true = sum(sigmoid(a[j]) for a in x), sum(b[j] for b in y)
        total += 1 - ((1 + beta**2) * tp + eps) / (beta**2 * true + predicted + eps)
    return np.full(len(x), total / len(x[0]))


def distill(x, y, teacher, t, alpha, smoothing=0.):
    "Hinton et al. 2015: labels, and the cross-entropy with the softened teacher less its entropy, times T squared."
    hard, rows = cross_entropy(x, y, smoothing=smoothing), []
    for h, a, b in zip(hard, np.asarray(x) / t, np.asarray(teacher) / t):
        p, q = np.exp(b) / np.exp(b).sum(), np.exp(a) / np.exp(a).sum()
        rows.append((1 - alpha) * h + alpha * t**2 * sum(u * math.log(u / v) for u, v in zip(p, q)))
    return np.array(rows)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x**2).sum(1, keepdims=True))


def _pairs(y, i): return [j for j in range(len(y)) if j != i and y[j] == y[i]], [j for j in range(len(y)) if y[j] != y[i]]


def _dist(a, b): return math.sqrt(sum((u - v)**2 for u, v in zip(a, b)))


def _hinge(d, m): return math.log1p(math.exp(d)) if m is None else max(0., d + m)


def batch_hard(x, y, m):
    "Hermans et al. 2017, equation 5, by trying every positive and negative."
    rows = []
    for i in range(len(y)):
        pos, neg = _pairs(y, i)
        rows.append(_hinge(max(_dist(x[i], x[j]) for j in pos) - min(_dist(x[i], x[j]) for j in neg), m) if pos and neg else 0.)
    return np.array(rows)


def semi_hard(x, y, m):
    "Schroff et al. 2015, section 3.2: the nearest negative beyond the positive, else the farthest negative."
    rows = []
    for i in range(len(y)):
        pos, neg = _pairs(y, i)
        terms = []
        for j in pos:
            d, ds = _dist(x[i], x[j]), [_dist(x[i], x[k]) for k in neg]
            beyond = [o for o in ds if o > d]
            if ds: terms.append(_hinge(d - (min(beyond) if beyond else max(ds)), m))
        rows.append(np.mean(terms) if terms else 0.)
    return np.array(rows)


def contrastive(x, y, m):
    "Hadsell et al. 2006, equation 4, each pair from both ends."
    n, rows = len(y), []
    for i in range(n):
        ds = [(_dist(x[i], x[j]), y[i] == y[j]) for j in range(n) if j != i]
        rows.append(sum(d**2 / 2 if same else max(0., m - d)**2 / 2 for d, same in ds) / len(ds))
    return np.array(rows)


def supcon(x, y, t):
    "Khosla et al. 2020, equation 2."
    rows = []
    for i in range(len(y)):
        pos, neg = _pairs(y, i)
        total = sum(math.exp(x[i] @ x[a] / t) for a in pos + neg)
        rows.append(-np.mean([math.log(math.exp(x[i] @ x[p] / t) / total) for p in pos]) if pos else 0.)
    return np.array(rows)


def nt_xent(x, y, t):
    "Chen et al. 2020, equation 1, for each positive of an anchor."
    rows = []
    for i in range(len(y)):
        pos, neg = _pairs(y, i)
        terms = []
        for p in pos:
            e = math.exp(x[i] @ x[p] / t)
            terms.append(-math.log(e / (e + sum(math.exp(x[i] @ x[k] / t) for k in neg))))
        rows.append(np.mean(terms) if terms else 0.)
    return np.array(rows)


def multi_similarity(x, y, alpha, beta, base, eps):
    "Wang et al. 2019, equations 7, 8 (mining) and 14."
    rows = []
    for i in range(len(y)):
        pos, neg = _pairs(y, i)
        if not pos or not neg:
            rows.append(0.)
            continue
        s = [float(x[i] @ o) for o in x]
        keep_neg = [k for k in neg if s[k] > min(s[j] for j in pos) - eps]
        keep_pos = [j for j in pos if s[j] < max(s[k] for k in neg) + eps]
        rows.append(math.log(1 + sum(math.exp(-alpha * (s[j] - base)) for j in keep_pos)) / alpha
                    + math.log(1 + sum(math.exp(beta * (s[k] - base)) for k in keep_neg)) / beta)
    return np.array(rows)


def center(x, y, centers): return np.array([_dist(a, centers[t])**2 / 2 for a, t in zip(np.asarray(x, np.float64), y)])


def _planes(x, y):
    "Probabilities and 0/1 planes of every image and class, by loops; one channel is a sigmoid."
    n, c = len(x), len(x[0])
    p, hot = np.zeros((n, c, x[0][0].size)), np.zeros((n, c, x[0][0].size))
    for i in range(n):
        z, t = np.asarray(x[i], np.float64).reshape(c, -1), np.asarray(y[i]).reshape(-1)
        for k in range(z.shape[1]):
            if c == 1: p[i, 0, k], hot[i, 0, k] = sigmoid(z[0, k]), t[k]
            else:
                p[i, :, k] = np.exp(z[:, k] - z[:, k].max()) / np.exp(z[:, k] - z[:, k].max()).sum()
                hot[i, int(t[k]), k] = 1
    return p, hot


def dice(x, y, smooth, empties=False):
    p, hot = _planes(x, y)
    rows = []
    for a, b in zip(p, hot):
        terms = []
        for u, v in zip(a, b):
            if empties and not v.any(): terms.append(-np.mean([math.log(1 - o) for o in u]))
            else: terms.append(1 - (2 * sum(u * v) + smooth) / (sum(u) + sum(v) + smooth))
        rows.append(np.mean(terms))
    return np.array(rows)


def jaccard(wrong, true):
    "1 - |true and predicted| / |true or predicted| where the pixels in `wrong` are mispredicted: Berman et al. 2018, equation 3."
    return len(wrong) / len(set(true) | set(wrong)) if set(true) | set(wrong) else 0.


def lovasz(x, y):
    "Berman et al. 2018, equations 5 to 11: errors in falling order times what each pixel adds to the Jaccard loss as a set."
    p, hot = _planes(x, y)
    rows = []
    for i, (a, b) in enumerate(zip(p, hot)):
        terms = []
        for c, (u, v) in enumerate(zip(a, b)):
            if len(a) == 1: errors = np.maximum(1 - np.asarray(x[i], np.float64)[c].reshape(-1) * (2 * v - 1), 0)
            elif v.any(): errors = abs(v - u)
            else: continue
            wrong, true, total = [], [int(k) for k in np.flatnonzero(v)], 0.
            for k in sorted(range(len(v)), key=lambda k: -errors[k]):
                before = jaccard(wrong, true)
                wrong.append(k)
                total += errors[k] * (jaccard(wrong, true) - before)
            terms.append(total)
        rows.append(np.mean(terms))
    return np.array(rows)
