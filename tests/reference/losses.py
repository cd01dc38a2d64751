"""Losses as their papers write them, one row at a time in float64 with numpy; slow and plain on purpose,
and written without a look at the package's code."""
import math

import numpy as np


def cross_entropy(logits, targets, weight=None, smoothing=0.):
    losses = []
    for row, target in zip(np.asarray(logits, np.float64), targets):
        log_probabilities = row - row.max() - math.log(np.exp(row - row.max()).sum())
        weights = np.ones(len(row)) if weight is None else np.asarray(weight, np.float64)
        of_target = weights[target] * log_probabilities[target]
        smooth_part = (weights * log_probabilities).sum() / len(row)
        losses.append(-(1 - smoothing) * of_target - smoothing * smooth_part)
    return np.array(losses)


def arcface(cosines, targets, margin, scale, smoothing=0.):
    "Deng et al. 2018, equation 3; past pi - margin the straight line of the authors' code."
    logits = scale * np.asarray(cosines, np.float64)
    for row, target in enumerate(targets):
        theta = math.acos(float(cosines[row][target]))
        if theta + margin < math.pi: target_cosine = math.cos(theta + margin)
        else: target_cosine = math.cos(theta) - margin * math.sin(margin)
        logits[row, target] = scale * target_cosine
    return cross_entropy(logits, targets, smoothing=smoothing)


def focal(logits, targets, gamma, weight=None):
    "Lin et al. 2017, equation 5, with p_t of the plain softmax."
    plain = cross_entropy(logits, targets)
    weights = np.ones(np.shape(logits)[1]) if weight is None else np.asarray(weight, np.float64)
    return np.array([weights[target] * (1 - math.exp(-loss))**gamma * loss
                     for loss, target in zip(plain, targets)])


def with_target(cosines, targets, scale, margin, smoothing=0.):
    """Softmax cross-entropy over scale * cosines, with `margin(theta, class)` in the target's place; the
    scale may be a number a row (n,1) or a number for each cosine (n,c)."""
    changed = np.array(cosines, np.float64)
    for row, target in enumerate(targets):
        changed[row, target] = margin(math.acos(changed[row, target]), target)
    return cross_entropy(changed * scale, targets, smoothing=smoothing)


def psi(theta, factor):
    "Liu et al. 2016, equation 6, looking for the k whose stretch holds factor * theta."
    for k in range(20):
        if k * math.pi <= factor * theta <= (k + 1) * math.pi:
            return (-1)**k * math.cos(factor * theta) - 2 * k


def curricular(cosines, targets, margin, scale, t):
    "Huang et al. 2020, equations 5 and 9; past pi - margin ArcFace's straight line."
    changed = np.array(cosines, np.float64)
    for row, target in enumerate(targets):
        theta = math.acos(cosines[row][target])
        if theta + margin < math.pi: target_cosine = math.cos(theta + margin)
        else: target_cosine = math.cos(theta) - margin * math.sin(margin)
        for column, cosine in enumerate(cosines[row]):
            if column == target: changed[row, column] = target_cosine
            elif cosine > target_cosine: changed[row, column] = cosine * (t + cosine)
    return cross_entropy(scale * changed, targets)


def adacos_scale(cosines, targets, scale):
    "Zhang et al. 2019, equation 15, from the scale before."
    total = 0.
    thetas = []
    for row, target in enumerate(targets):
        thetas.append(math.acos(cosines[row][target]))
        for column in range(len(cosines[row])):
            if column != target: total += math.exp(scale * cosines[row][column]) / len(targets)
    # torch's median: the lower of the middle two
    median = sorted(thetas)[(len(thetas) - 1) // 2]
    return math.log(total) / math.cos(min(math.pi / 4, median))


def sigmoid(x): return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def asymmetric(logits, targets, gamma_pos, gamma_neg, clip):
    "Ridnik et al. 2020, equations 4 to 7, with the sign of a loss."
    losses = []
    for row_logits, row_targets in zip(logits, targets):
        label_losses = 0.
        for logit, target in zip(row_logits, row_targets):
            probability = sigmoid(logit)
            if target: label_losses -= (1 - probability)**gamma_pos * math.log(probability)
            else:
                probability = max(probability - clip, 0)
                label_losses -= probability**gamma_neg * math.log(1 - probability)
        losses.append(label_losses / len(row_logits))
    return np.array(losses)


def multi_label_focal(logits, targets, gamma, alpha):
    "Lin et al. 2017, equation 5, for each label."
    losses = []
    for row_logits, row_targets in zip(logits, targets):
        label_losses = 0.
        for logit, target in zip(row_logits, row_targets):
            p_t = sigmoid(logit) if target else sigmoid(-logit)
            alpha_t = alpha if target else 1 - alpha
            label_losses -= alpha_t * (1 - p_t)**gamma * math.log(p_t)
        losses.append(label_losses / len(row_logits))
    return np.array(losses)


def soft_f_beta(logits, targets, beta, eps=1e-6):
    total = 0.
    for label in range(len(logits[0])):
        hits = sum(sigmoid(row[label]) * target[label] for row, target in zip(logits, targets))
        predicted = sum(sigmoid(row[label]) for row in logits)
        true = sum(target[label] for target in targets)
        total += 1 - ((1 + beta**2) * hits + eps) / (beta**2 * true + predicted + eps)
    return np.full(len(logits), total / len(logits[0]))


def distill(logits, targets, teacher, t, alpha, smoothing=0.):
    """Hinton et al. 2015: labels, and the cross-entropy with the softened teacher less its entropy, times
    T squared."""
    label_losses = cross_entropy(logits, targets, smoothing=smoothing)
    losses = []
    softened = zip(np.asarray(logits) / t, np.asarray(teacher) / t)
    for label_loss, (own_logits, teacher_logits) in zip(label_losses, softened):
        teachers = np.exp(teacher_logits) / np.exp(teacher_logits).sum()
        own = np.exp(own_logits) / np.exp(own_logits).sum()
        divergence = sum(x * math.log(x / y) for x, y in zip(teachers, own))
        losses.append((1 - alpha) * label_loss + alpha * t**2 * divergence)
    return np.array(losses)


def unit(vectors):
    "Rows at unit length."
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.sqrt((vectors**2).sum(1, keepdims=True))


def _positives(targets, anchor):
    return [row for row, target in enumerate(targets) if row != anchor and target == targets[anchor]]


def _negatives(targets, anchor):
    return [row for row, target in enumerate(targets) if target != targets[anchor]]


def _distance(first, second): return math.sqrt(sum((x - y)**2 for x, y in zip(first, second)))


def _hinge(difference, margin):
    return math.log1p(math.exp(difference)) if margin is None else max(0., difference + margin)


def batch_hard(embeddings, targets, m):
    "Hermans et al. 2017, equation 5, by trying every positive and negative."
    losses = []
    for anchor in range(len(targets)):
        positives = [_distance(embeddings[anchor], embeddings[row]) for row in _positives(targets, anchor)]
        negatives = [_distance(embeddings[anchor], embeddings[row]) for row in _negatives(targets, anchor)]
        losses.append(_hinge(max(positives) - min(negatives), m) if positives and negatives else 0.)
    return np.array(losses)


def semi_hard(embeddings, targets, m):
    "Schroff et al. 2015, section 3.2: the nearest negative beyond the positive, else the farthest negative."
    losses = []
    for anchor in range(len(targets)):
        negatives = [_distance(embeddings[anchor], embeddings[row]) for row in _negatives(targets, anchor)]
        terms = []
        for row in _positives(targets, anchor):
            positive = _distance(embeddings[anchor], embeddings[row])
            beyond = [negative for negative in negatives if negative > positive]
            if negatives: terms.append(_hinge(positive - (min(beyond) if beyond else max(negatives)), m))
        losses.append(np.mean(terms) if terms else 0.)
    return np.array(losses)


def contrastive(embeddings, targets, m):
    "Hadsell et al. 2006, equation 4, each pair from both ends."
    n = len(targets)
    losses = []
    for row in range(n):
        total = 0.
        for other in range(n):
            if other == row: continue
            distance = _distance(embeddings[row], embeddings[other])
            total += distance**2 / 2 if targets[row] == targets[other] else max(0., m - distance)**2 / 2
        losses.append(total / (n - 1))
    return np.array(losses)


def supcon(embeddings, targets, t):
    "Khosla et al. 2020, equation 2."
    losses = []
    for anchor in range(len(targets)):
        exponentials = [math.exp(embeddings[anchor] @ other / t) for other in embeddings]
        positives = _positives(targets, anchor)
        total = sum(exponentials[other] for other in positives + _negatives(targets, anchor))
        terms = [math.log(exponentials[positive] / total) for positive in positives]
        losses.append(-np.mean(terms) if terms else 0.)
    return np.array(losses)


def nt_xent(embeddings, targets, t):
    "Chen et al. 2020, equation 1, for each positive of an anchor."
    losses = []
    for anchor in range(len(targets)):
        exponentials = [math.exp(embeddings[anchor] @ other / t) for other in embeddings]
        of_negatives = sum(exponentials[negative] for negative in _negatives(targets, anchor))
        terms = []
        for positive in _positives(targets, anchor):
            of_positive = exponentials[positive]
            terms.append(-math.log(of_positive / (of_positive + of_negatives)))
        losses.append(np.mean(terms) if terms else 0.)
    return np.array(losses)


def multi_similarity(embeddings, targets, alpha, beta, base, eps):
    "Wang et al. 2019, equations 7, 8 (mining) and 14."
    losses = []
    for anchor in range(len(targets)):
        positives = _positives(targets, anchor)
        negatives = _negatives(targets, anchor)
        if not positives or not negatives:
            losses.append(0.)
            continue
        cosines = [float(embeddings[anchor] @ other) for other in embeddings]
        of_positives = [cosines[positive] for positive in positives]
        of_negatives = [cosines[negative] for negative in negatives]
        hard_positives = [cosine for cosine in of_positives if cosine < max(of_negatives) + eps]
        hard_negatives = [cosine for cosine in of_negatives if cosine > min(of_positives) - eps]
        losses.append(
            math.log(1 + sum(math.exp(-alpha * (cosine - base)) for cosine in hard_positives)) / alpha
            + math.log(1 + sum(math.exp(beta * (cosine - base)) for cosine in hard_negatives)) / beta)
    return np.array(losses)


def center(embeddings, targets, centers):
    "Wen et al. 2016, equation 2, a row at a time."
    embeddings = np.asarray(embeddings, np.float64)
    return np.array([_distance(embedding, centers[target])**2 / 2
                     for embedding, target in zip(embeddings, targets)])


def _planes(logits, masks):
    "Probabilities and 0/1 planes (n,c,p) of every image and class, by loops; one channel is a sigmoid."
    n_images, n_classes, n_pixels = len(logits), len(logits[0]), logits[0][0].size
    probabilities = np.zeros((n_images, n_classes, n_pixels))
    planes = np.zeros((n_images, n_classes, n_pixels))
    for image in range(n_images):
        image_logits = np.asarray(logits[image], np.float64).reshape(n_classes, -1)
        mask = np.asarray(masks[image]).reshape(-1)
        for pixel in range(n_pixels):
            if n_classes == 1:
                probabilities[image, 0, pixel] = sigmoid(image_logits[0, pixel])
                planes[image, 0, pixel] = mask[pixel]
            else:
                exponentials = np.exp(image_logits[:, pixel] - image_logits[:, pixel].max())
                probabilities[image, :, pixel] = exponentials / exponentials.sum()
                planes[image, int(mask[pixel]), pixel] = 1
    return probabilities, planes


def dice(logits, masks, smooth, empties=False):
    """Milletari et al. 2016 with `smooth` above and below; with `empties` cross-entropy on planes that
    hold nothing."""
    losses = []
    for image_probabilities, image_planes in zip(*_planes(logits, masks)):
        terms = []
        for probabilities, plane in zip(image_probabilities, image_planes):
            if empties and not plane.any():
                terms.append(-np.mean([math.log(1 - probability) for probability in probabilities]))
                continue
            total = sum(probabilities) + sum(plane)
            terms.append(1 - (2 * sum(probabilities * plane) + smooth) / (total + smooth))
        losses.append(np.mean(terms))
    return np.array(losses)


def jaccard(wrong, true):
    """1 - |true and predicted| / |true or predicted|, the pixels in `wrong` mispredicted: Berman et al.
    2018, equation 3."""
    union = set(true) | set(wrong)
    return len(wrong) / len(union) if union else 0.


def lovasz(logits, masks):
    """Berman et al. 2018, equations 5 to 11: errors in falling order, each times what its pixel adds to
    the Jaccard loss as a set."""
    losses = []
    for image, (image_probabilities, image_planes) in enumerate(zip(*_planes(logits, masks))):
        terms = []
        for channel, (probabilities, plane) in enumerate(zip(image_probabilities, image_planes)):
            if len(image_planes) == 1:
                margins = np.asarray(logits[image], np.float64)[channel].reshape(-1)
                errors = np.maximum(1 - margins * (2 * plane - 1), 0)
            elif plane.any(): errors = abs(plane - probabilities)
            else: continue
            true = [int(pixel) for pixel in np.flatnonzero(plane)]
            wrong = []
            total = 0.
            for pixel in sorted(range(len(plane)), key=lambda pixel: -errors[pixel]):
                before = jaccard(wrong, true)
                wrong.append(pixel)
                total += errors[pixel] * (jaccard(wrong, true) - before)
            terms.append(total)
        losses.append(np.mean(terms))
    return np.array(losses)
