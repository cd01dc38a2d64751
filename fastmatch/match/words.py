"A rule in words: what it fuses, what each step does, and where its thresholds are."
from .rule import Rule
from .steps.step import Step

# how a fusion makes one score; {parts} are the modalities with their numbers
FUSION_WORDS = {
    'mean': 'The score of a pair is the weighted mean of the similarities of {parts}.',
    'square': 'The score of a pair is the weighted mean of the squared similarities of {parts}.',
    'joint': 'The score of a pair is the weighted mean of the similarities of {parts}, of those both have.',
    'prob_or': 'The score of a pair is the chance that at least one is right of {parts}, each similarity '
    'to its power being a chance.',
    'power': 'The score of a pair is the root of summed powers of its similarities over their thresholds, '
    'of {parts}.',
    'union': 'The score of a pair is the most by which one similarity is above its threshold, of {parts}.',
    'above': 'The score of a pair is how far its similarities are above their thresholds in all, of {parts}.',
    'piecewise': 'The score of a pair is the distance to a boundary made of planes, over {parts}.',
}

# what a step does; {numbers} are its settings
STEP_WORDS = {
    'expand': 'Each listing searches with the mean of its own vector and those of its nearest neighbors',
    'augment': "Each listing's vector becomes a weighted mean with those of its nearest neighbors",
    'blend': "Each listing's vector is summed with those of its neighbors above a similarity",
    'cross_mean': "Each listing's vector becomes the mean over the listings with an equal key",
    'neighbor_mean': 'Scores are averaged with the rows of the nearest neighbors',
    'k_reciprocal': 'Scores are computed anew from the neighbors that two listings share',
    'standardize': "Scores are set in relation to each listing's other scores",
    'mutual': 'Only pairs stay in which each is among the nearest of the other',
    'veto': 'Pairs whose titles name contradicting quantities are dropped',
    'pair_model': 'A classifier gives the probability that two are the same, which is the score from '
    'here on',
    'min2': 'A listing without a match gets its nearest one',
    'chisel': 'Listings get as many matches as the sizes of known groups ask for',
    'components': 'All that hang together by matches become one group',
    'agglomerate': 'Groups are merged by mean similarity until they have their usual size',
    'tiers': 'Groups are made in tiers, the most similar pairs first',
}


def rule_in_words(
    rule: Rule,
) -> list[str]:
    "The rule as plain sentences, in the order in which it is carried out."
    sentences = []
    if rule.join: sentences.append(f'Listings with an equal {_listed(rule.join)} match by that alone.')
    sentences += [_step_sentence(step) for step in rule.steps if step.stage == 'vectors']
    sentences.append(FUSION_WORDS[rule.how].format(parts=_parts(rule)))
    sentences += [_step_sentence(step) for step in rule.steps if step.stage == 'neighbors']
    sentences.append(
        f'Pairs with a score of {rule.threshold:.3f} or more match, at most {rule.max_matches} a '
        f'listing, of the {rule.k} nearest in each modality.'
    )
    sentences += [_step_sentence(step) for step in rule.steps if step.stage == 'matches']
    if rule.pools is not None: sentences.append(_pool_sentence(rule.pools))
    return sentences


def _parts(rule):
    "'image (weight 0.6) and title (weight 0.4)'; what has no weight is left out."
    used = {modality: weight for modality, weight in rule.weights.items()
            if weight != 0 or rule.how in ('union', 'above')}
    if len(used) == 1: return next(iter(used))
    return _listed([f'{modality} ({weight:.3g})' for modality, weight in used.items()])


def _step_sentence(step: Step):
    words = STEP_WORDS.get(step.do, f'The function {step.do} is carried out')
    found = ''
    if step.stage == 'vectors' and step.by != 'own': found = ', found by all modalities together'
    numbers = [f'{name} {value:.3g}' for name, value in step.params.items()
               if isinstance(value, (int, float)) and not isinstance(value, bool)]
    settings = f' ({", ".join(numbers)})' if numbers else ''
    return f'{words}{found}{settings}.'


def _pool_sentence(pools):
    points = [f'{threshold:.3f} among {size:,}' for size, threshold in zip(pools.sizes, pools.thresholds)]
    beyond = f'; beyond that each doubling adds {pools.per_doubling:+.3f}' if pools.per_doubling else ''
    return f'The threshold follows the number of listings searched: {_listed(points)}{beyond}.'


def _listed(names):
    *earlier, last = names
    return f'{", ".join(earlier)} and {last}' if earlier else str(last)
