"A rule in words: what it fuses, what each step does, and which threshold it takes for how many listings."
import inspect

from ..core import preview
from .judge.setting import IN_THE_CATALOGUE
from .rule import Rule
from .spaces.keys import MAX_SHARED
from .steps.step import Step

FAR = 16  # times the listings that a rule was chosen among: a threshold for more of them is a guess


def rule_in_words(
    rule: Rule,
) -> list[str]:
    """The rule as plain sentences, in the order in which it is carried out.

    The formula of a fusion is written out with its weights ('0.7 × image + 0.3 × title'), so that a reader
    can compute the score of a pair.
    """
    neighbor_steps = [step for step in rule.steps if step.stage == 'neighbors']
    sentences = []
    if rule.join: sentences.append(f'Listings with an equal {" or ".join(rule.join)} match by that alone.')
    sentences += [step_in_words(step) for step in rule.steps if step.stage == 'vectors']
    if neighbor_steps:
        sentences.append(f'The score of a pair is {fusion_in_words(rule.how, rule.weights, rule.options)}.')
        sentences += map(step_in_words, neighbor_steps)
    sentences.append(_decision(rule, bool(neighbor_steps)))
    modalities = _listed([*rule.weights, *rule.compared])
    sentences.append(
        f'Candidates are the {rule.k} nearest of each modality ({modalities}), the listing itself included; '
        f'a listing has at most {rule.max_matches} matches, itself included.')
    if rule.compared: sentences.append(f'{_listed(rule.compared)}: compared, and not part of the score.')
    if rule.apart is not None: sentences.append(f'Listings of the same {rule.apart} never match each other.')
    sentences += [step_in_words(step) for step in rule.steps if step.stage == 'matches']
    if rule.pools is not None: sentences.append(_follows_the_pool(rule))
    return sentences


def _decision(rule, is_rescored):
    if is_rescored: return f'Two listings match when that score is {rule.threshold:.3f} or more.'
    if rule.how == 'union':
        thresholds = ', '.join(f'{modality} {weight + rule.threshold:.3f}'
                               for modality, weight in rule.weights.items())
        return f'Two listings match when one of these is reached: {thresholds}.'
    formula = fusion_in_words(rule.how, rule.weights, rule.options)
    return f'Two listings match when their score, {formula}, is {rule.threshold:.3f} or more.'


def fusion_in_words(
    how: str,  # One of `FUSIONS`
    weights: dict,  # Modality -> weight, exponent or threshold
    options: dict | None = None,  # `power`, `planes`
) -> str:
    "The formula of a fusion, such as '0.7 × image + 0.3 × title'; what has no weight is left out."
    options = options or {}
    return FUSION_WORDS[how](weights, options)


def _weighted_sum(weights, form='{}'):
    used = {modality: weight for modality, weight in weights.items() if weight > 0}
    if len(used) == 1: return form.format(next(iter(used)))
    weight_sum = sum(used.values())
    return ' + '.join(f'{weight / weight_sum:.3g} × {form.format(modality)}'
                      for modality, weight in used.items())


def _joint(weights, options):
    return f'{_weighted_sum(weights)} (what a listing lacks, such as an empty title, does not count)'


def _prob_or(weights, options):
    powers = [modality if weight == 1 else f'{modality}^{weight:.3g}'
              for modality, weight in weights.items() if weight > 0]
    return '1 − ' + ' × '.join(f'(1 − {power})' for power in powers)


def _power(weights, options):
    power = options.get('power', 6.)
    terms = ' + '.join(f'({modality} / {threshold:.3g})^{power:.3g}'
                       for modality, threshold in weights.items())
    return f'({terms})^(1 / {power:.3g})'


def _differences(weights):
    return [f'{modality} − {threshold:.3g}' if threshold >= 0 else f'{modality} + {-threshold:.3g}'
            for modality, threshold in weights.items()]


def _union(weights, options): return f'the largest of {_listed(_differences(weights))}'
def _above(weights, options): return f'the sum of what is above 0 of {_listed(_differences(weights))}'


def _piecewise(weights, options):
    planes = []
    for coefficients, threshold in options['planes']:
        terms = ' + '.join(f'{coefficient * weights[modality]:.3g} × {modality}'
                           for modality, coefficient in coefficients.items())
        planes.append(f'({terms} − {threshold:.3g})')
    return f'the largest of {_listed(planes)}'


# fusion -> function (weights, options) -> formula
FUSION_WORDS = {
    'mean': lambda weights, options: _weighted_sum(weights),
    'square': lambda weights, options: _weighted_sum(weights, '{}²'),
    'joint': _joint, 'prob_or': _prob_or, 'power': _power, 'union': _union, 'above': _above,
    'piecewise': _piecewise}


def step_in_words(
    step: Step,
) -> str:
    "What a step does, with its numbers, as one sentence."
    if step.do not in STEP_WORDS:
        changed = {'vectors': 'vectors', 'neighbors': 'scores', 'matches': 'matches'}[step.stage]
        return f'The function {step.do} changes the {changed}.'
    words = STEP_WORDS[step.do](_parameters(step))
    return words.replace('{vector}', _vector_of(step)).replace('{found}', _found_by(step))


def _parameters(step):
    "All parameters of a step by name, those it does not give at the function's default."
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(step.function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, **step.params}


def _vector_of(step):
    return 'vector' if step.on is None else f'vector of {_listed(step.on)}'


def _found_by(step):
    if step.by == 'own': return 'found in the same modality'
    if step.by == 'fused': return 'found by the fused score'
    return f'found by {fusion_in_words(step.by["how"], step.by["weights"], step.by.get("options"))}'


def _expand(numbers):
    return (
        f'Each listing searches with the sum of its own {{vector}} and those of its {_others(numbers["k"])}, '
        f'{{found}}, weighted by similarity to the power of {numbers["alpha"]:.3g}.'
    )


def _augment(numbers):
    weights = ('weighted by rank' if numbers['alpha'] is None
               else f'weighted by similarity to the power of {numbers["alpha"]:.3g}')
    return (f"Each listing's {{vector}} becomes the sum of its own and those of its {_others(numbers['k'])}, "
            f'{{found}}, {weights}.')


def _blend(numbers):
    nearest = ', and of the nearest in any case' if numbers['min2'] else ''
    return (f"To each listing's {{vector}} those of its {_others(numbers['k'])}, {{found}}, are added where "
            f'the similarity is {numbers["threshold"]:.3g} or more{nearest}.')


def _cross_mean(numbers):
    return f"Each listing's {{vector}} becomes the mean over all listings with an equal {numbers['keys']}."


def _neighbor_mean(numbers):
    return (f'Scores are averaged with those of the {_others(numbers["k"])} (weight of the mean '
            f'{numbers["weight"]:.3g}).')


def _k_reciprocal(numbers):
    return (
        f'Scores are computed anew from the neighborhoods that two listings share: those among the '
        f'{numbers["k1"]} nearest who list each other, averaged over {numbers["k2"]}; the distance before '
        f'counts {numbers["lam"]:.3g}.'
    )


def _standardize(numbers):
    return (f'Scores are counted in deviations above those of the {numbers["k"]} nearest, and averaged over '
            'both sides.')


def _mutual(numbers):
    among = 'candidates' if numbers['k'] is None else f'{numbers["k"] - 1} nearest'
    return f'Only pairs stay in which each listing is among the {among} of the other.'


def _veto(numbers):
    if numbers['units'] == 'units':
        return 'Pairs whose titles name contradicting quantities (250 ml, 1 l) are dropped.'
    return (f'Pairs whose {numbers["units"]} is known of both and {numbers["least"]:.0%} alike or less are '
            'dropped.')


def _pair_model(numbers):
    return ('A classifier reads the scores of a pair and how its titles compare, and gives the probability '
            'that both are the same product, which is the score from here on.')


def _cross_encoder(numbers):
    return (f'Close pairs, those with a score from {numbers["low"]:.3g} to {numbers["high"]:.3g}, are read '
            'again by a cross-encoder, which sees both texts together and says how far up between these two '
            'a pair belongs.')


def _min2(numbers):
    conditions = []
    if numbers['threshold'] is not None: conditions.append(f'its score is {numbers["threshold"]:.3f} or more')
    if numbers['mutual']: conditions.append('each is the nearest of the other')
    if numbers['gap'] is not None: conditions.append(f'the second is {numbers["gap"]:.3g} behind')
    where = f' where {_listed(conditions)}' if conditions else ''
    return f'A listing without any match gets its nearest one{where}.'


def _one_to_one(numbers):
    several = f', except for those of {_listed(numbers["several"])}' if numbers['several'] else ''
    return f'A listing has one match at most in each other {numbers["sources"]}{several}.'


def _chisel(numbers):
    sizes = [f'{share:.0%} have {size} or more' for size, share in enumerate(numbers['shares'], 2)][:4]
    return ('Listings get as many matches, the best-scoring first, as known groups have'
            f'{": " if sizes else ""}{", ".join(sizes)}.')


def _components(numbers):
    return 'All listings that matches tie together, directly or through others, match each other.'


def _agglomerate(numbers):
    least = f', down to a mean score of {numbers["least"]:.3g}' if numbers['least'] else ''
    return ('Groups with the highest mean score are merged until a group has '
            f'{numbers["mean_size"]:.3g} listings on average{least}; all listings of a group match.')


def _tiers(numbers):
    return ('Pairs tie groups together, the best-scoring first: two listings from '
            f'{numbers["pair"]:.3g}, a listing and a group from {numbers["join"]:.3g}, two groups from '
            f'{numbers["merge"]:.3g}; all listings of a group match.')


# step -> function (its parameters by name) -> sentence with {vector} and {found}
STEP_WORDS = {
    'expand': _expand, 'augment': _augment, 'blend': _blend, 'cross_mean': _cross_mean,
    'neighbor_mean': _neighbor_mean, 'k_reciprocal': _k_reciprocal, 'standardize': _standardize,
    'cross_encoder': _cross_encoder, 'mutual': _mutual, 'veto': _veto, 'pair_model': _pair_model,
    'min2': _min2, 'chisel': _chisel, 'components': _components, 'one_to_one': _one_to_one,
    'agglomerate': _agglomerate, 'tiers': _tiers}


def _others(k):
    "The neighbors that take part, the listing itself left out of the count."
    return 'nearest neighbor' if k == 2 else f'{k - 1} nearest neighbors'


def _follows_the_pool(rule):
    "What the threshold is for other numbers of listings than that it was chosen among."
    pools = rule.pools
    by_size = list(zip(pools.sizes, pools.thresholds))
    measured = [f'{threshold:.3f} among {size:,}' for size, threshold in by_size if size <= pools.measured]
    predicted = [f'{threshold:.3f} among {size:,}' for size, threshold in by_size if size > pools.measured]
    sentence = f'The threshold follows the number of listings searched: {_listed(measured)}'
    # of the predicted ones those that are four times as large as the one before
    if predicted: sentence += f' (measured), {_listed(predicted[3::4] or predicted)} (predicted)'
    beyond = f'a doubling adds {pools.per_doubling:+.3f}' if pools.per_doubling else 'it stays'
    return f'{sentence}; beyond that {beyond}.'


def threshold_in_words(
    rule: Rule,  # As it was chosen
    pool: int,  # Listings searched
    chosen_among: int | None = None,  # Listings that the rule was chosen among, if it doesn't say so itself
) -> str:
    """The threshold that a rule takes in a pool, where it was chosen, and whether it was measured there:
    'threshold 0.629 for a pool of 27,615 (chosen in the catalogue of 27,000 listings, extrapolated)'."""
    taken = f'threshold {rule.at(pool).threshold:.3f} for a pool of {pool:,}'
    if rule.pools is None:
        chosen_among = rule.score.get('pool', chosen_among)
        among = 'in a pool of unknown size' if chosen_among is None else f'among {chosen_among:,} listings'
        return (f'{taken}, taken as it was chosen, {among}: this rule knows no thresholds for other pools, '
                'and among more listings than it was chosen for it is too low')
    smallest, largest = rule.pools.sizes[0], rule.pools.measured
    chosen = f'in the catalogue of {largest:,} listings'
    if rule.score.get('setting') != IN_THE_CATALOGUE: chosen = f'among {largest:,} listings'
    if pool > FAR * largest:
        chosen += (f'; a guess for {pool / largest:.0f} times as many: choose the rule on more, or give a '
                   'threshold')
    elif pool > largest: chosen += '; extrapolated beyond them'
    if pool < smallest: chosen += f'; it was not measured below {smallest:,}'
    return f'{taken} (chosen {chosen})'


def cut_in_words(
    n_cut: int,  # Listings that may have more matches than they were given
    rule: Rule,  # That decided
) -> str:
    """That matches were cut, and by which limit; '' where none were. '12 listings have as many matches as
    max_matches=50 allows, and may have more: only the nearest are given'."""
    if not n_cut: return ''
    limits = []
    if rule.max_matches <= rule.k: limits.append(f'max_matches={rule.max_matches}')
    # with fewer candidates than a listing may have matches, these are what ends them
    if rule.k <= rule.max_matches: limits.append(f'k={rule.k} (candidates of each modality)')
    listings = '1 listing has' if n_cut == 1 else f'{n_cut:,} listings have'
    return (f'{listings} as many matches as {" and ".join(limits)} allow{"s" if len(limits) == 1 else ""}, '
            'and may have more: only the nearest are given')


def placeholders_in_words(
    modality: str,  # Of keys: 'phash', 'same_title'
    keys: list,  # Those on more than `MAX_SHARED` listings
) -> str:
    "Which keys join nothing because too many listings have them; '' for none."
    if not keys: return ''
    are_taken = 'is taken for a placeholder and joins' if len(keys) == 1 else (
        'are taken for placeholders and join')
    return (f'{len(keys):,} {modality} on more than {MAX_SHARED} listings {are_taken} nothing: '
            f'{preview(map(repr, keys))}')


def _listed(names):
    *earlier, last = names
    return f'{", ".join(earlier)} and {last}' if earlier else str(last)
