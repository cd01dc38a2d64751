"A matcher whose rule has a pair model, and listings that it does not know."
from functools import cache

import numpy as np

from fastmatch.match import Embeddings, Rule, RulePairs, Step, augment, best_threshold, candidates, fuse
from fastmatch.match.judge.groups import Groups
from fastmatch.matcher import Matcher
from tests.match.pairs.made import in_a_catalogue

WEIGHTS = {'image': .5, 'tfidf': .5}


@cache
def matcher_and_new():
    "(matcher of a catalogue, embeddings of new listings, their groups and the catalogue's)."
    spaces, groups, n_rows = in_a_catalogue()
    embeddings = Embeddings({'image': spaces['image'].vectors}, [f'p{i}' for i in range(len(groups))],
                            spaces['titles'].titles, groups)
    found = fuse(candidates({name: spaces[name] for name in WEIGHTS}, 12), 'mean', WEIGHTS)
    after = {**spaces, **{name: augment(spaces[name], found, k=2) for name in WEIGHTS}}
    refound = fuse(candidates({name: after[name] for name in WEIGHTS}, 12), 'mean', WEIGHTS)
    pairs = RulePairs(refound, after, plain=spaces, modalities=list(WEIGHTS), join=(), n_rows=n_rows)
    model, neighbors = pairs.crossed(groups)
    threshold, _ = best_threshold(neighbors, Groups(groups, rows=n_rows))
    rule = Rule('mean', WEIGHTS, threshold, 12,
                steps=[Step('augment', by='fused', k=2), Step('pair_model', model=model), 'veto', 'min2'])
    is_new = np.arange(len(groups)) < n_rows
    new, known = (Embeddings({'image': embeddings['image'][part]}, embeddings.ids[part],
                             [title for title, kept in zip(embeddings.titles, part) if kept], groups[part])
                  for part in (is_new, ~is_new))
    return Matcher(rule, known), new, groups
