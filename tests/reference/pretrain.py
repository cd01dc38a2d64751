"Objectives of pretraining as they are written on paper, one item at a time in float64 with numpy."
import math

import numpy as np


def log_softmax(row):
    row = np.asarray(row, np.float64)
    return row - row.max() - math.log(np.exp(row - row.max()).sum())


def gelu(values): return np.array([.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in values])


def layer_norm(values, weight, bias, eps):
    return (values - values.mean()) / math.sqrt(values.var() + eps) * weight + bias


def unit(vector): return vector / np.sqrt((vector * vector).sum())


def masked_words(tokens, ids, chosen, head, words, eps):
    "Mean cross-entropy at the chosen tokens; `head`: weights of BERT's prediction head by name."
    losses = []
    for row, place in zip(*np.nonzero(chosen)):
        state = gelu(head['dense.weight'] @ tokens[row, place] + head['dense.bias'])
        state = layer_norm(state, head['norm.weight'], head['norm.bias'], eps)
        losses.append(-log_softmax(words @ state + head['bias'])[ids[row, place]])
    return np.mean(losses)


def masked_frames(states, features, has_frame, chosen, weight, bias, temperature):
    "Mean cross-entropy of finding each chosen frame among all that are there."
    there = list(zip(*np.nonzero(has_frame)))
    losses = []
    for place in zip(*np.nonzero(chosen)):
        told = weight @ states[place] + bias
        if temperature is None: logits = [told @ features[other] for other in there]
        else: logits = [unit(told) @ unit(features[other]) / temperature for other in there]
        losses.append(-log_softmax(logits)[there.index(place)])
    return np.mean(losses)


def binary(logits, labels):
    "Mean binary cross-entropy."
    return np.mean([math.log1p(math.exp(-logit if label else logit)) for logit, label in zip(logits, labels)])


def contrast(texts, frames, text_keys, frame_keys, old_texts, old_frames, temperature, alpha):
    """ALBEF's contrastive loss: targets are one-hot with share 1 - alpha, and what the momentum encoders find
    similar with share alpha."""
    def one_way(queries, own_keys, candidates):
        losses = []
        for row, (query, own) in enumerate(zip(queries, own_keys)):
            found = log_softmax([query @ candidate / temperature for candidate in candidates])
            similar = np.exp(log_softmax([own @ candidate / temperature for candidate in candidates]))
            targets = alpha * similar
            targets[row] += 1 - alpha
            losses.append(-(targets * found).sum())
        return np.mean(losses)
    all_frames, all_texts = [*frame_keys, *old_frames], [*text_keys, *old_texts]
    return (one_way(texts, text_keys, all_frames) + one_way(frames, frame_keys, all_texts)) / 2
