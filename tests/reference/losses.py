"""Losses as their papers write them, one row at a time in float64 with numpy; slow and plain on purpose,
and written without a look at the package's code."""
import math

import numpy as np


def cross_entropy(logits, targets, weight=None, smoothing=0.):
    rows = []
    for row, target in zip(np.asarray(logits, np.float64), targets):
        log_p = row - row.max() - math.log(np.exp(row - row.max()).sum())
        weights = np.ones(len(row)) if weight is None else np.asarray(weight, np.float64)
        hard = weights[target] * log_p[target]
        rows.append(-(1 - smoothing) * hard - smoothing / len(row) * (weights * log_p).sum())
    return np.array(rows)


def arcface(cosines, targets, m, s, smoothing=0.):
    "Deng et al. 2018, equation 3; past pi - m the straight line of the authors' code."
    logits = s * np.asarray(cosines, np.float64)
    for i, target in enumerate(targets):
        theta = math.acos(float(cosines[i][target]))
        hard = math.cos(theta + m) if theta + m < math.pi else math.cos(theta) - m * math.sin(m)
        logits[i, target] = s * hard
    return cross_entropy(logits, targets, smoothing=smoothing)


def focal(logits, targets, gamma, weight=None):
    "Lin et al. 2017, equation 5, with p_t of the plain softmax."
    plain = cross_entropy(logits, targets)
    weights = np.ones(np.shape(logits)[1]) if weight is None else np.asarray(weight, np.float64)
    return np.array([weights[target] * (1 - math.exp(-row))**gamma * row
                     for row, target in zip(plain, targets)])


def with_target(cosines, targets, scale, margin, smoothing=0.):
    """Softmax cross-entropy over scale * cosines, with `margin(theta, class)` in the target's place; the
    scale may be a number a row (n,1) or a number for each cosine (n,c)."""
    changed = np.array(cosines, np.float64)
    for i, target in enumerate(targets): changed[i, target] = margin(math.acos(changed[i, target]), target)
    return cross_entropy(changed * scale, targets, smoothing=smoothing)


def psi(theta, m):
    "Liu et al. 2016, equation 6, looking for the k whose stretch holds m theta."
    for k in range(20):
        if k * math.pi <= m * theta <= (k + 1) * math.pi: return (-1)**k * math.cos(m * theta) - 2 * k


def curricular(cosines, targets, m, s, t):
    "Huang et al. 2020, equations 5 and 9; past pi - m ArcFace's straight line."
    changed = np.array(cosines, np.float64)
    for i, target in enumerate(targets):
        theta = math.acos(cosines[i][target])
        hard = math.cos(theta + m) if theta + m < math.pi else math.cos(theta) - m * math.sin(m)
        for j in range(changed.shape[1]):
            if j == target: changed[i, j] = hard
            elif cosines[i][j] > hard: changed[i, j] = cosines[i][j] * (t + cosines[i][j])
    return cross_entropy(s * changed, targets)


def adacos_scale(cosines, targets, s):
    "Zhang et al. 2019, equation 15, from the scale before."
    total = 0.
    thetas = []
    for i, target in enumerate(targets):
        thetas.append(math.acos(cosines[i][target]))
        for j in range(len(cosines[i])):
            if j != target: total += math.exp(s * cosines[i][j]) / len(targets)
    # torch's median: the lower of the middle two
    median = sorted(thetas)[(len(thetas) - 1) // 2]
    return math.log(total) / math.cos(min(math.pi / 4, median))


def sigmoid(x): return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def asymmetric(logits, targets, gamma_pos, gamma_neg, clip):
    "Ridnik et al. 2020, equations 4 to 7, with the sign of a loss."
    rows = []
    for row_logits, row_targets in zip(logits, targets):
        total = 0.
        for logit, target in zip(row_logits, row_targets):
            p = sigmoid(logit)
            if target: total -= (1 - p)**gamma_pos * math.log(p)
            else:
                p = max(p - clip, 0)
                total -= p**gamma_neg * math.log(1 - p)
        rows.append(total / len(row_logits))
    return np.array(rows)


def multi_label_focal(logits, targets, gamma, alpha):
    "Lin et al. 2017, equation 5, for each label."
    rows = []
    for row_logits, row_targets in zip(logits, targets):
        total = 0.
        for logit, target in zip(row_logits, row_targets):
            p_t = sigmoid(logit) if target else sigmoid(-logit)
            alpha_t = alpha if target else 1 - alpha
            total -= alpha_t * (1 - p_t)**gamma * math.log(p_t)
        rows.append(total / len(row_logits))
    return np.array(rows)


def soft_f_beta(logits, targets, beta, eps=1e-6):
    total = 0.
    for j in range(len(logits[0])):
        hits = sum(sigmoid(row[j]) * target[j] for row, target in zip(logits, targets))
        predicted = sum(sigmoid(row[j]) for row in logits)
        true = sum(target[j] for target in targets)
        total += 1 - ((1 + beta**2) * hits + eps) / (beta**2 * true + predicted + eps)
    return np.full(len(logits), total / len(logits[0]))


def distill(logits, targets, teacher, t, alpha, smoothing=0.):
    """Hinton et al. 2015: labels, and the cross-entropy with the softened teacher less its entropy, times
    T squared."""
    hard = cross_entropy(logits, targets, smoothing=smoothing)
    rows = []
    for hard_row, ours, theirs in zip(hard, np.asarray(logits) / t, np.asarray(teacher) / t):
        p = np.exp(theirs) / np.exp(theirs).sum()
        q = np.exp(ours) / np.exp(ours).sum()
        divergence = sum(u * math.log(u / v) for u, v in zip(p, q))
        rows.append((1 - alpha) * hard_row + alpha * t**2 * divergence)
    return np.array(rows)


def unit(x):
    "Rows at unit length."
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x**2).sum(1, keepdims=True))


def _positives(targets, i): return [j for j in range(len(targets)) if j != i and targets[j] == targets[i]]


def _negatives(targets, i): return [j for j in range(len(targets)) if targets[j] != targets[i]]


def _distance(a, b): return math.sqrt(sum((u - v)**2 for u, v in zip(a, b)))


def _hinge(difference, m): return math.log1p(math.exp(difference)) if m is None else max(0., difference + m)


def batch_hard(x, targets, m):
    "Hermans et al. 2017, equation 5, by trying every positive and negative."
    rows = []
    for i in range(len(targets)):
        positives = [_distance(x[i], x[j]) for j in _positives(targets, i)]
        negatives = [_distance(x[i], x[j]) for j in _negatives(targets, i)]
        rows.append(_hinge(max(positives) - min(negatives), m) if positives and negatives else 0.)
    return np.array(rows)


def semi_hard(x, targets, m):
    "Schroff et al. 2015, section 3.2: the nearest negative beyond the positive, else the farthest negative."
    rows = []
    for i in range(len(targets)):
        negatives = [_distance(x[i], x[k]) for k in _negatives(targets, i)]
        terms = []
        for j in _positives(targets, i):
            positive = _distance(x[i], x[j])
            beyond = [negative for negative in negatives if negative > positive]
            if negatives: terms.append(_hinge(positive - (min(beyond) if beyond else max(negatives)), m))
        rows.append(np.mean(terms) if terms else 0.)
    return np.array(rows)


def contrastive(x, targets, m):
    "Hadsell et al. 2006, equation 4, each pair from both ends."
    n = len(targets)
    rows = []
    for i in range(n):
        total = 0.
        for j in range(n):
            if j == i: continue
            d = _distance(x[i], x[j])
            total += d**2 / 2 if targets[i] == targets[j] else max(0., m - d)**2 / 2
        rows.append(total / (n - 1))
    return np.array(rows)


def supcon(x, targets, t):
    "Khosla et al. 2020, equation 2."
    rows = []
    for i in range(len(targets)):
        positives = _positives(targets, i)
        total = sum(math.exp(x[i] @ x[a] / t) for a in positives + _negatives(targets, i))
        terms = [math.log(math.exp(x[i] @ x[p] / t) / total) for p in positives]
        rows.append(-np.mean(terms) if terms else 0.)
    return np.array(rows)


def nt_xent(x, targets, t):
    "Chen et al. 2020, equation 1, for each positive of an anchor."
    rows = []
    for i in range(len(targets)):
        others = sum(math.exp(x[i] @ x[k] / t) for k in _negatives(targets, i))
        terms = []
        for j in _positives(targets, i):
            e = math.exp(x[i] @ x[j] / t)
            terms.append(-math.log(e / (e + others)))
        rows.append(np.mean(terms) if terms else 0.)
    return np.array(rows)


def multi_similarity(x, targets, alpha, beta, base, eps):
    "Wang et al. 2019, equations 7, 8 (mining) and 14."
    rows = []
    for i in range(len(targets)):
        positives = _positives(targets, i)
        negatives = _negatives(targets, i)
        if not positives or not negatives:
            rows.append(0.)
            continue
        s = [float(x[i] @ other) for other in x]
        kept_negatives = [k for k in negatives if s[k] > min(s[j] for j in positives) - eps]
        kept_positives = [j for j in positives if s[j] < max(s[k] for k in negatives) + eps]
        rows.append(math.log(1 + sum(math.exp(-alpha * (s[j] - base)) for j in kept_positives)) / alpha
                    + math.log(1 + sum(math.exp(beta * (s[k] - base)) for k in kept_negatives)) / beta)
    return np.array(rows)


def center(x, targets, centers):
    "Wen et al. 2016, equation 2, a row at a time."
    x = np.asarray(x, np.float64)
    return np.array([_distance(row, centers[target])**2 / 2 for row, target in zip(x, targets)])


def _planes(logits, masks):
    "Probabilities and 0/1 planes (n,c,p) of every image and class, by loops; one channel is a sigmoid."
    n_images, n_classes, n_pixels = len(logits), len(logits[0]), logits[0][0].size
    probabilities = np.zeros((n_images, n_classes, n_pixels))
    planes = np.zeros((n_images, n_classes, n_pixels))
    for i in range(n_images):
        z = np.asarray(logits[i], np.float64).reshape(n_classes, -1)
        mask = np.asarray(masks[i]).reshape(-1)
        for k in range(n_pixels):
            if n_classes == 1:
                probabilities[i, 0, k] = sigmoid(z[0, k])
                planes[i, 0, k] = mask[k]
            else:
                e = np.exp(z[:, k] - z[:, k].max())
                probabilities[i, :, k] = e / e.sum()
                planes[i, int(mask[k]), k] = 1
    return probabilities, planes


def dice(logits, masks, smooth, empties=False):
    """Milletari et al. 2016 with `smooth` above and below; with `empties` cross-entropy on planes that
    hold nothing."""
    rows = []
    for image_probabilities, image_planes in zip(*_planes(logits, masks)):
        terms = []
        for p, plane in zip(image_probabilities, image_planes):
            if empties and not plane.any(): terms.append(-np.mean([math.log(1 - pixel) for pixel in p]))
            else: terms.append(1 - (2 * sum(p * plane) + smooth) / (sum(p) + sum(plane) + smooth))
        rows.append(np.mean(terms))
    return np.array(rows)


def jaccard(wrong, true):
    """1 - |true and predicted| / |true or predicted|, the pixels in `wrong` mispredicted: Berman et al.
    2018, equation 3."""
    union = set(true) | set(wrong)
    return len(wrong) / len(union) if union else 0.


def lovasz(logits, masks):
    """Berman et al. 2018, equations 5 to 11: errors in falling order, each times what its pixel adds to
    the Jaccard loss as a set."""
    rows = []
    for i, (image_probabilities, image_planes) in enumerate(zip(*_planes(logits, masks))):
        terms = []
        for c, (p, plane) in enumerate(zip(image_probabilities, image_planes)):
            if len(image_planes) == 1:
                z = np.asarray(logits[i], np.float64)[c].reshape(-1)
                errors = np.maximum(1 - z * (2 * plane - 1), 0)
            elif plane.any(): errors = abs(plane - p)
            else: continue
            true = [int(k) for k in np.flatnonzero(plane)]
            wrong = []
            total = 0.
            for k in sorted(range(len(plane)), key=lambda k: -errors[k]):
                before = jaccard(wrong, true)
                wrong.append(k)
                total += errors[k] * (jaccard(wrong, true) - before)
            terms.append(total)
        rows.append(np.mean(terms))
    return np.array(rows)
