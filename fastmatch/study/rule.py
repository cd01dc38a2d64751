"A rule tuned: Optuna picks how modalities are fused, refined and forced in, exact sweeps pick the cuts, and the figures are of products that neither saw."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from ..match.decide import MAX_MATCHES
from ..match.embeddings import Embeddings
from ..match.flat import FUSED, Flat
from ..match.fuse import candidates, fuse
from ..match.heldout import HeldOut, fusion_grid, halves, paired
from ..match.keys import Keys
from ..match.neighbors import check_k, label_codes
from ..match.rule import Rule
from ..match.steps import Step, as_step
from ..match.sweep import RankSweep, Sweep
from .space import Param, defaults, suggest
from .storage import open_study
from .tune import _packed, _unpacked
from .work import work

# What may be done before the cut. Steps on vectors cost one more search and are quick from then on; steps on neighbours are done in every trial.
REFINEMENTS = {
    'none': (), 'expand': (Step('expand', k=3),), 'augment': (Step('augment', k=2),), 'blend': (Step('blend', threshold=.7),),
    'standardize': (Step('standardize'),), 'neighbor_mean': (Step('neighbor_mean', weight=.5),), 'k_reciprocal': (Step('k_reciprocal'),), 'mutual': (Step('mutual'),),
}
QUICK = 'none', 'expand', 'augment', 'blend'
# which numbers a fusion has of each modality
KINDS = {**dict.fromkeys(('mean', 'square', 'joint'), 'weight'), 'prob_or': 'exponent', **dict.fromkeys(('power', 'union', 'above'), 'cut')}


def rule_space(
    names,  # Modalities
    hows=FUSED,  # Fusions to choose from, the plainest first
    steps=QUICK,  # Names of refinements to choose from
    most=(MAX_MATCHES,),  # Most matches a row to choose from
) -> dict[str, Param]:
    "What `tune_rule` searches; the first trial is the first of each, with equal weights."
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    ranges = {'weight': (FloatDistribution(0, 1), 1.), 'exponent': (FloatDistribution(.25, 8, log=True), 1.), 'cut': (FloatDistribution(.05, 1), .6)}
    def choice(o): return {} if len(o) < 2 else Param(CategoricalDistribution(list(o)), next(iter(o)))
    space = {'how': choice(hows), 'steps': choice(steps), 'max_matches': choice(most), 'min2': choice((False, True))}
    if len(names) > 1:
        for kind in dict.fromkeys(KINDS[o] for o in hows): space |= {f'{kind}.{k}': Param(*ranges[kind]) for k in names}
        if 'power' in hows: space['power'] = Param(FloatDistribution(1, 16, log=True), 6.)
    return {k: v for k, v in space.items() if v}


@dataclass(frozen=True)
class Structure:
    "A rule without its cuts."
    how: str
    weights: tuple  # (modality, number) pairs
    power: float = 6.
    steps: str = 'none'  # Of the refinements
    ranks: int = 1  # Cuts; 2: one of its own for the nearest (min2)
    max_matches: int = MAX_MATCHES

    def __str__(self):
        more = [f'power {self.power:.2g}'] * (self.how == 'power') + [self.steps] * (self.steps != 'none') + ['min2'] * (self.ranks == 2)
        return f'{self.how} of ' + ', '.join(f'{k} {w:.2g}' for k, w in self.weights) + ''.join(f', {o}' for o in more)


class _Bench:
    "What is searched once and shared by all trials: candidates of each refinement, laid flat for the rows that a study may see."
    def __init__(self, spaces, labels, k, steps, hows, most):
        self.spaces, self.labels, self.k, self.steps, self.hows, self.most = spaces, labels, k, steps, hows, most
        self.groups = label_codes(labels, len(labels))
        self.join = tuple(o for o, s in spaces.items() if isinstance(s, Keys))
        self.names = tuple(o for o in spaces if o not in self.join)
        self.space = rule_space(self.names, hows, tuple(steps), most)
        self._cands, self._flats = {}, {}

    def rule(self, s, cuts=0., score=None):
        "The `Rule` of a structure and its cuts."
        near, far = (None, cuts) if np.ndim(cuts) == 0 else cuts
        force = () if near is None else (Step('min2', threshold=near),)
        return Rule(s.how, dict(s.weights), far, self.k, s.max_matches, score or {}, self.join, (*self.steps[s.steps], *force),
                    {'power': s.power} if s.how == 'power' else {})

    def refined(self, name):
        "(spaces, candidates) after the steps on vectors of a refinement."
        vectors = tuple(o for o in self.steps[name] if o.stage == 'vectors')
        if vectors not in self._cands:
            spaces = Rule('mean', dict.fromkeys(self.names, 1.), 0., self.k, steps=vectors).refined(self.spaces)
            self._cands[vectors] = spaces, candidates(spaces, self.k)
        return self._cands[vectors]

    def sweep(self, s, rows):
        "The sweep over the cuts of a structure; `rows` is a `_Rows`."
        spaces, cand = self.refined(s.steps)
        if all(o.stage == 'vectors' for o in self.steps[s.steps]):
            key = id(cand), rows.key
            if key not in self._flats: self._flats[key] = Flat(cand, self.labels, rows.mask)
            return self._flats[key].sweep(s.how, dict(s.weights), s.power, s.ranks, s.max_matches)
        nb = fuse(cand, s.how, dict(s.weights), power=s.power)
        nb = self.rule(s).reranked(nb, spaces)[-1][1]
        return Sweep(nb, self.labels, s.max_matches) if s.ranks == 1 else RankSweep(nb, self.labels, 2, s.max_matches)

    def forget(self, rows): self._flats = {k: v for k, v in self._flats.items() if k[1] != rows.key}

    def structure(self, trial):
        "The structure that a trial asks for."
        def pick(name, only): return suggest(trial, {name: self.space[name]})[name] if name in self.space else only
        how = pick('how', self.hows[0])
        # one modality: its score as it is
        weights = {k: pick(f'{KINDS[how]}.{k}', 1.) for k in self.names}
        if KINDS[how] == 'weight' and not any(weights.values()): weights = dict.fromkeys(self.names, 1.)
        return Structure(how, tuple(weights.items()), pick('power', 6.) if how == 'power' else 6., pick('steps', 'none'),
                         1 + pick('min2', False), pick('max_matches', self.most[0]))


class _Rows:
    "Rows that a study may see, and the halves within them."
    def __init__(self, key, mask, groups, halvings, seed):
        self.key, self.mask = key, mask
        own = np.unique(groups[mask], return_inverse=True)[1]
        if own.max() < 1: raise InputError('too few groups: a rule is chosen on some groups and scored on others, halved twice')
        self.sides = []
        for side in halves(own, halvings, seed):
            self.sides.append(np.zeros(len(mask), bool))
            self.sides[-1][mask] = side

    def crossed(self, sweep):
        "Mean row F1 under cuts chosen on other groups."
        if hasattr(sweep, 'crossed'): return sweep.crossed(self.sides)
        total = 0.
        for side in self.sides:
            for chosen, scored in ((side, self.mask & ~side), (self.mask & ~side, side)): total += sweep.at(sweep.best(chosen)[0])[scored].sum()
        return float(total / len(self.sides) / self.mask.sum())


def tune_rule(
    embeddings,  # `Embeddings` with labels, of listings no encoder was trained on; or {modality: (n,d) array}
    n_trials: int = 200,  # Of each study: that of the rule, and two for each halving
    labels=None,  # (n,) groups, where `embeddings` holds none
    titles=None,  # (n,) titles, where `embeddings` holds none: their TF-IDF is a modality
    k: int = 50,  # Candidates of each modality
    hows=None,  # Fusions to choose from, the default one first; default `FUSED`, 'joint' only where listings lack a modality
    steps=QUICK,  # Refinements to choose from: names of `REFINEMENTS`, or {name: steps} of your own
    max_matches=(MAX_MATCHES,),  # Most matches a row to choose from
    halvings: int = 2,  # Of the products for the held-out figures: each half gets a study of its own; 0: no figures
    inner: int = 2,  # Halvings within a study: cuts are chosen on one half and scored on the other
    study_name: str = 'rule',
    storage=None,  # As for `open_study`; default in memory
    sampler='tpe',  # As for `open_study`
    seed: int = 0,  # Of samplers and halvings
    only: tuple | None = None,  # Modalities, as for `Embeddings.spaces`; default all
    echo=None,  # As for `work`
) -> tuple:  # (`Rule`, optuna.Study); `rule.score` holds the held-out figures, `heldout_rules(study)` those of each listing
    "Choose a whole rule: structure by Optuna, cuts exactly; judged by the same done on halves of the products, beside the plain rule and the fused protocol."
    emb = _embeddings(embeddings, labels, titles)
    check_k(k)
    if halvings < 0 or inner < 1: raise InputError(f'halvings={halvings}, inner={inner}: 0 or more, 1 or more')
    spaces = emb.spaces(only=only)
    steps = _refinements(steps)
    if lacking := {o for part in steps.values() for step in part for o in step.reads} - set(spaces):
        raise InputError(f'steps: {sorted(lacking)} are read; there are {list(spaces)}, say only=(...)')
    bench = _Bench(spaces, emb.labels, min(k, len(emb)), steps, (), tuple(max_matches))
    if not bench.names: raise InputError('embeddings: exact keys alone, nothing to tune')
    bench.hows = _hows(hows, bench)
    bench.space = rule_space(bench.names, bench.hows, tuple(steps), bench.most)
    def searched(rows, name, n):
        study = open_study(name, storage, 'maximize', bench.space, sampler, seed=seed + n, about=_about(bench, rows, inner, seed))
        def objective(trial): return rows.crossed(bench.sweep(bench.structure(trial), rows))
        work(study, objective, n_trials, echo=echo)
        return study, bench.structure(_Fixed(study.best_params))
    figures = _judge(bench, searched, study_name, halvings, inner, seed) if halvings else {}
    rows = _Rows('all', np.ones(len(emb), bool), bench.groups, inner, seed)
    study, best = searched(rows, study_name, 0)
    cuts, value = bench.sweep(best, rows).best()
    score = {'row_f1_chosen_on': round(float(value), 5), 'row_f1_crossed': round(study.best_value, 5), **_said(figures)}
    for k, v in (('heldout', {k: _packed(v.row_f1) for k, v in figures.items()}), ('groups', bench.groups.tolist())): study.set_user_attr(k, v)
    return bench.rule(best, cuts, score), study


def heldout_rules(
    study,  # Of `tune_rule`
) -> dict:  # {'tuned', 'fused', 'plain': `HeldOut`}
    "What the tuned rule, the fused protocol and the plain mean scored on products they weren't chosen on: for `compare` and `paired`."
    if not study.user_attrs.get('heldout'): raise InputError(f'study {study.study_name!r} holds no figures: tune_rule(halvings=...) makes them')
    return {k: HeldOut(_unpacked(v), np.array(study.user_attrs['groups'])) for k, v in study.user_attrs['heldout'].items()}


class _Fixed:
    "Parameters as a trial that suggests them."
    def __init__(self, params): self.params = params
    def _get(self, name, *args, **kwargs): return self.params[name]
    suggest_categorical = suggest_float = suggest_int = _get


def _embeddings(emb, labels, titles):
    if not isinstance(emb, Embeddings):
        if not isinstance(emb, dict): raise InputError(f'embeddings: {type(emb).__name__}: give Embeddings, or {{modality: (n,d) array}} with labels=')
        if not emb: raise InputError('embeddings: no modality')
        emb = Embeddings(emb, np.arange(len(next(iter(emb.values())))), titles, labels)
    elif labels is not None or titles is not None:
        emb = Embeddings(emb, emb.ids, emb.titles if titles is None else titles, emb.labels if labels is None else labels, emb.trained_on, emb.phash)
    if emb.labels is None: raise InputError('labels: the embeddings hold none, and a rule is tuned against the true groups')
    return emb.refuse_trained_on('tuning a rule')


def _refinements(steps):
    if isinstance(steps, str): steps = (steps,)
    if not isinstance(steps, dict):
        if unknown := [o for o in steps if o not in REFINEMENTS]: raise InputError(f'steps={unknown}: choose from {", ".join(REFINEMENTS)}, or give {{name: steps}}')
        steps = {o: REFINEMENTS[o] for o in steps}
    steps = {k: tuple(as_step(o) for o in ((v,) if isinstance(v, (str, Step)) or callable(v) else v)) for k, v in steps.items()}
    if bad := [k for k, v in steps.items() if any(o.stage == 'matches' or o.by == 'fused' for o in v)]:
        raise InputError(f"steps {bad}: those before the cut, and by each modality's own neighbours (min2 is searched anyway)")
    # first what does nothing: the first trial is the plain rule
    return {'none': (), **steps}


def _hows(hows, bench):
    if hows is not None:
        hows = (hows,) if isinstance(hows, str) else tuple(hows)
        if not hows or set(hows) - set(FUSED): raise InputError(f'hows={list(hows)}: choose from {", ".join(FUSED)}')
        return hows
    if len(bench.names) == 1: return ('mean',)
    lacks = not all(v.all() for k, v in bench.refined('none')[1].present.items() if k in bench.names)
    # with all modalities everywhere it is the mean
    return tuple(o for o in FUSED if o != 'joint' or lacks)


def _about(bench, rows, inner, seed):
    "What a stored study must agree in: resumed on other listings it would mix two things up."
    import zlib
    return {'listings': len(bench.labels), 'groups': zlib.crc32(bench.groups[rows.mask].tobytes()), 'k': bench.k, 'halvings': inner, 'seed': seed,
            'steps': {k: [repr(o) for o in v] for k, v in bench.steps.items()}}


def _judge(bench, searched, name, halvings, inner, seed):
    "{way: HeldOut}: structure and cuts chosen on half of the products by a study of its own, scored on the other half."
    g = bench.groups
    plain = bench.structure(_Fixed(defaults(bench.space)))
    grid = [Structure(how, tuple(w.items()), max_matches=bench.most[0]) for how, w in fusion_grid(bench.names)]
    out = {k: HeldOut(np.zeros(len(g)), g) for k in ('tuned', 'fused', 'plain')}
    for i, half in enumerate(halves(g, halvings, seed)):
        for side, there in ((half, ~half), (~half, half)):
            n = 1 + 2 * i + int(side is not half)
            rows, rest = (_Rows((n, o), m, g, inner, seed + n) for o, m in (('chosen', side), ('scored', there)))
            found = {'tuned': searched(rows, f'{name}, half {n}', n)[1], 'plain': plain,
                     # of equal options the first stays: a grid starts with its plainest
                     'fused': max(grid, key=lambda s: bench.sweep(s, rows).best(rows.mask)[1])}
            for way, s in found.items():
                cuts, _ = bench.sweep(s, rows).best(rows.mask)
                out[way].row_f1[there] += bench.sweep(s, rest).at(cuts)[there] / halvings
                out[way].picks.append((s, cuts))
            for o in (rows, rest): bench.forget(o)
    return out


def _said(figures):
    if not figures: return {}
    return {'heldout': {k: v.summary() for k, v in figures.items()}, 'gain': {f'tuned over {k}': paired(figures['tuned'], figures[k]).to_dict() for k in ('fused', 'plain')}}
