"A rule tuned: Optuna picks how modalities are fused, refined and forced in, exact sweeps pick the cuts, and the figures are of products that neither saw."
import zlib

import numpy as np

from ..core import InputError
from ..match.embeddings import Embeddings
from ..match.judge.heldout import HeldOut, fusion_grid, paired, random_halves
from ..match.matches import MAX_MATCHES
from ..match.neighbors import check_k
from ..match.spaces.dense import Dense
from ..match.thresholds.flat import FUSED
from .engine.space import defaults
from .engine.storage import likeness, open_study, packed, unpacked
from .engine.work import work
from .structure import QUICK, Fixed, Rows, Structure, Workbench, refinements, rule_space


def tune_rule(
    embeddings,  # `Embeddings` with groups, of listings no encoder was trained on; or {modality: (n,d) array}
    n_trials: int = 200,  # Of each study: that of the rule, and two for each halving
    groups=None,  # (n,) groups, where `embeddings` holds none
    titles=None,  # (n,) titles, where `embeddings` holds none: their TF-IDF is a modality
    k: int = 50,  # Candidates of each modality
    hows=None,  # Fusions to choose from, the default one first; default `FUSED`, 'joint' only where listings lack a modality
    steps=QUICK,  # Refinements to choose from: names of `REFINEMENTS`, or {name: steps} of your own
    max_matches=(MAX_MATCHES,),  # Most matches a row to choose from
    min2: bool = True,  # Whether a listing without a match may get its nearest, by a cut of its own: not where many listings have none
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
    emb = _embeddings(embeddings, groups, titles)
    check_k(k)
    if halvings < 0 or inner < 1: raise InputError(f'halvings={halvings}, inner={inner}: 0 or more, 1 or more')
    most = (max_matches,) if isinstance(max_matches, (int, np.integer)) else tuple(max_matches)
    if not most or not all(isinstance(o, (int, np.integer)) and o >= 1 for o in most): raise InputError(f'max_matches={max_matches}: whole numbers from 1')
    spaces = emb.spaces(only=only)
    steps = refinements(steps)
    if lacking := {o for part in steps.values() for step in part for o in step.reads} - set(spaces):
        raise InputError(f'steps: {sorted(lacking)} are read; there are {list(spaces)}, say only=(...)')
    bench = Workbench(spaces, emb.groups, min(k, len(emb)), steps, (), tuple(map(int, most)))
    if not bench.names: raise InputError('embeddings: exact keys alone, nothing to tune')
    bench.hows = _hows(hows, bench)
    bench.space = rule_space(bench.names, bench.hows, tuple(steps), bench.most, min2)
    def searched(rows, name, n):
        study = open_study(name, storage, 'maximize', bench.space, sampler, seed=seed + n, about=_about(bench, rows, inner, seed, emb.titles))
        def objective(trial): return rows.crossed(bench.sweep(bench.structure(trial), rows))
        work(study, objective, n_trials, echo=echo)
        return study, bench.structure(Fixed(study.best_params))
    figures = _judge(bench, searched, study_name, halvings, inner, seed) if halvings else {}
    rows = Rows('all', np.ones(len(emb), bool), bench.codes, inner, seed)
    study, best = searched(rows, study_name, 0)
    cuts, value = bench.sweep(best, rows).best()
    score = {'row_f1_chosen_on': round(float(value), 5), 'row_f1_crossed': round(study.best_value, 5), **_said(figures)}
    for k, v in (('heldout', {k: packed(v.row_f1) for k, v in figures.items()}), ('groups', bench.codes.tolist())): study.set_user_attr(k, v)
    return bench.rule(best, cuts, score), study


def heldout_rules(
    study,  # Of `tune_rule`
) -> dict:  # {'tuned', 'fused', 'plain': `HeldOut`}
    "What the tuned rule, the fused protocol and the plain mean scored on products they weren't chosen on: for `compare` and `paired`."
    if not study.user_attrs.get('heldout'): raise InputError(f'study {study.study_name!r} holds no figures: tune_rule(halvings=...) makes them')
    return {k: HeldOut(unpacked(v), np.array(study.user_attrs['groups'])) for k, v in study.user_attrs['heldout'].items()}


def _embeddings(emb, groups, titles):
    if not isinstance(emb, Embeddings):
        if not isinstance(emb, dict): raise InputError(f'embeddings: {type(emb).__name__}: give Embeddings, or {{modality: (n,d) array}} with labels=')
        if not emb: raise InputError('embeddings: no modality')
        emb = Embeddings(emb, np.arange(len(next(iter(emb.values())))), titles, groups)
    elif groups is not None or titles is not None:
        emb = Embeddings(emb, emb.ids, emb.titles if titles is None else titles, emb.groups if groups is None else groups, emb.trained_on, emb.phash)
    if emb.groups is None: raise InputError('groups: the embeddings hold none, and a rule is tuned against the true groups')
    return emb.refuse_trained_on('tuning a rule')


def _hows(hows, bench):
    if hows is not None:
        hows = (hows,) if isinstance(hows, str) else tuple(hows)
        if not hows or set(hows) - set(FUSED): raise InputError(f'hows={list(hows)}: choose from {", ".join(FUSED)}')
        return hows
    if len(bench.names) == 1: return ('mean',)
    lacks = not all(v.all() for k, v in bench.refined('none')[1].present.items() if k in bench.names)
    # with all modalities everywhere it is the mean
    return tuple(o for o in FUSED if o != 'joint' or lacks)


def _about(bench, rows, inner, seed, titles):
    "What a stored study must agree in: resumed on other listings, or other embeddings of these, it would mix two things up."
    return {'monitor': 'row_f1', 'listings': len(bench.groups), 'groups': zlib.crc32(bench.codes[rows.mask].tobytes()), 'k': bench.k, 'halvings': inner, 'seed': seed,
            'modalities': list(bench.spaces), 'vectors': likeness({k: o.vectors for k, o in bench.spaces.items() if isinstance(o, Dense)}),
            'titles': None if titles is None else zlib.crc32('\n'.join(titles).encode()), 'hows': list(bench.hows), 'max_matches': list(bench.most),
            'steps': {k: [repr(o) for o in v] for k, v in bench.steps.items()}}


def _judge(bench, searched, name, halvings, inner, seed):
    "{way: HeldOut}: structure and cuts chosen on half of the products by a study of its own, scored on the other half."
    g = bench.codes
    plain = bench.structure(Fixed(defaults(bench.space)))
    grid = [Structure(how, tuple(w.items()), max_matches=bench.most[0]) for how, w in fusion_grid(bench.names)]
    out = {k: HeldOut(np.zeros(len(g)), g) for k in ('tuned', 'fused', 'plain')}
    for i, half in enumerate(random_halves(g, halvings, seed)):
        for side, there in ((half, ~half), (~half, half)):
            n = 1 + 2 * i + int(side is not half)
            rows, rest = (Rows((n, o), m, g, inner, seed + n) for o, m in (('chosen', side), ('scored', there)))
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
