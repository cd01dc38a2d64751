"A whole rule tuned: Optuna picks fusion and refinements, an exact search the thresholds."
import zlib
from dataclasses import replace

import numpy as np

from ..core import InputError
from ..match.embeddings import Embeddings
from ..match.judge.heldout import HeldOut, alone_heldout, random_halves
from ..match.judge.paired import paired
from ..match.judge.pool_thresholds import pool_thresholds
from ..match.judge.setting import READ_ONLY, Setting, among_themselves
from ..match.neighbors import NEAREST, check_k
from ..match.search.ladder import HalfRule, LadderResult, Rung
from ..match.search.menu import PLAIN_FUSIONS, fusions
from ..match.spaces.dense import Dense
from ..match.spaces.picture_sets import PictureSets
from ..match.spaces.pool import holds_column
from .engine.open_study import fingerprint_vectors, open_study
from .engine.options import StudyOptions, read_options
from .engine.space import default_values
from .engine.storage import pack_array, unpack_array
from .engine.work import work
from .rule_space import RuleChoices
from .workbench import VisibleRows, Workbench


def tune_rule(
    # A `Setting`; or `Embeddings` with groups, of listings no encoder was trained on, which are matched among
    # themselves; or {modality: (n,d) array}
    embeddings,
    n_trials: int = 200,  # Of each study: that of the rule, and two for each halving
    groups=None,  # (n,) groups, where `embeddings` holds none
    titles=None,  # (n,) titles, where `embeddings` holds none: their TF-IDF is a modality
    k: int = 50,  # Candidates of each modality
    halvings: int = 2,  # Of the groups, for the held-out figures: each half gets its own study; 0: none
    inner: int = 2,  # Halvings within a study: thresholds are chosen on one half and scored on the other
    only: tuple | None = None,  # Modalities, as for `Embeddings.spaces`; default all
    **options,  # Fields of `RuleChoices` (hows, steps, ...) and `StudyOptions` (study_name, storage, ...)
) -> tuple:  # (`Rule`, optuna.Study)
    """Choose a whole rule: its structure by Optuna, its thresholds exactly.

    `rule.score` says what that is worth on groups that took no part in the choice: the same search is done
    on halves of the groups and scored on the other halves, beside the plain mean of the modalities and the
    fused protocol of `heldout_fused`. `heldout_rules(study)` gives these figures for each listing."""
    choices, settings = read_options(tune_rule, options, RuleChoices(), StudyOptions('rule'))
    check_k(k)
    if halvings < 0 or inner < 1:
        raise InputError(f'halvings={halvings}, inner={inner}: 0 or more, 1 or more')
    search = _RuleSearch(_setting_of(embeddings, groups, titles, only), k, n_trials, inner, settings, choices)
    figures = _held_out_figures(search, halvings) if halvings else {}
    rule, _, study = search.choose(figures)
    return rule, study


def tuned_ladder(
    setting: Setting,  # Where the rule is going to work
    n_trials: int = 100,  # Of each study: that of the rule, and two for each halving
    halvings: int = 2,  # Of the groups, for the figures
    seed: int = 0,  # Of trials and halvings
    k: int = NEAREST,  # Candidates of each modality
) -> LadderResult:
    "A rule found by `tune_rule`, in the form in which the ladder gives its own: beside the plain fusion."
    search = _RuleSearch(setting, k, n_trials, 2, StudyOptions('rule', seed=seed), RuleChoices())
    figures = _held_out_figures(search, halvings)
    rule, structure, _ = search.choose(figures)
    alone, fused, tuned = alone_heldout(setting.groups), figures['fused'], figures['tuned']
    rungs = [Rung('alone', alone, None), Rung('fused', fused, paired(fused, alone)),
             Rung('tuned', tuned, paired(tuned, fused))]
    sides = [
        side for half in random_halves(setting.groups.row_codes, halvings, seed) for side in (half, ~half)
    ]
    halves = [HalfRule(*pick, ~side) for pick, side in zip(tuned.picks, sides, strict=True)]
    return LadderResult(rule, structure, rungs, halves)


def heldout_rules(
    study,  # Of `tune_rule` with halvings
) -> dict:  # {'tuned', 'fused', 'plain': `HeldOut`}
    """What the tuned rule, the fused protocol and the plain mean scored on groups they were not chosen on,
    for each listing.

    For `compare` and `paired`; raises `InputError` for a study that holds no such figures."""
    if not study.user_attrs.get('heldout'):
        raise InputError(f'study {study.study_name!r} holds no figures: tune_rule(halvings=...) makes them')
    groups = np.array(study.user_attrs['groups'])
    packed_scores = study.user_attrs['heldout']
    return {protocol: HeldOut(unpack_array(row_scores), groups)
            for protocol, row_scores in packed_scores.items()}


class _RuleSearch:
    "Studies of a rule's structure, one for each set of rows that may be seen."
    def __init__(self, setting, k, n_trials, inner, settings, choices):
        self.setting = setting
        self.workbench = Workbench(setting, k, choices)
        self.n_trials, self.inner = n_trials, inner
        self.settings = settings  # `StudyOptions`

    def choose(self, figures):
        "(rule, its structure, study) of a search that sees all rows; `figures` are kept with both."
        workbench = self.workbench
        all_rows = self.visible_rows('all', np.ones(len(workbench.groups), bool))
        study, structure = self.run(all_rows)
        thresholds, best_row_f1 = workbench.threshold_search(structure, all_rows).best()
        packed_scores = {protocol: pack_array(held_out.row_f1) for protocol, held_out in figures.items()}
        study.set_user_attr('heldout', packed_scores)
        study.set_user_attr('groups', workbench.groups.row_codes.tolist())
        setting = self.setting
        score = {'row_f1_chosen_on': round(float(best_row_f1), 5),
                 'row_f1_crossed': round(study.best_value, 5), **_summary(figures),
                 'setting': setting.name, 'pool': setting.pool}
        rule = workbench.rule(structure, thresholds, score=score)
        # what was searched in the whole pool is at hand
        pools = pool_thresholds(setting, rule, seed=self.settings.seed,
                                neighbors=workbench.neighbors(structure))
        return replace(rule, pools=pools), structure, study

    def visible_rows(self, rows_key, row_mask, half_number=0):
        seed = self.settings.seed + half_number
        return VisibleRows(rows_key, row_mask, self.workbench.groups.row_codes, self.inner, seed)

    def run(self, visible_rows, half_number=0):
        "(study, best structure) of a search that sees `visible_rows` alone; `half_number` is 0 for all rows."
        from optuna.trial import FixedTrial
        workbench, settings = self.workbench, self.settings
        study_name = f'{settings.study_name}, half {half_number}' if half_number else settings.study_name
        study = open_study(study_name, settings.storage, 'maximize', workbench.space, settings.sampler,
                           seed=settings.seed + half_number, about=self._about(visible_rows))

        def objective(trial):
            structure = workbench.structure(trial, visible_rows)
            return visible_rows.crossed(workbench.threshold_search(structure, visible_rows))
        work(study, objective, self.n_trials, echo=settings.echo)
        return study, workbench.structure(FixedTrial(study.best_params), visible_rows)

    def _about(self, visible_rows):
        "What a stored study must agree in: on other listings or vectors its trials answer another question."
        workbench = self.workbench
        spaces = {name: space for name, space in workbench.spaces().items() if name not in READ_ONLY}
        vectors = {modality: space.vectors for modality, space in spaces.items()
                   if isinstance(space, (Dense, PictureSets))}
        titles = workbench.spaces().get('titles')
        in_a_pool = {} if workbench.looks_among_themselves else {'pool': self.setting.pool}
        return {
            'monitor': 'row_f1',
            'listings': len(workbench.groups),
            'groups': zlib.crc32(workbench.groups.row_codes[visible_rows.mask].tobytes()),
            'k': workbench.searched,
            'halvings': self.inner,
            'seed': self.settings.seed,
            'modalities': list(spaces),
            **in_a_pool,
            **_columns_of(spaces),
            'vectors': fingerprint_vectors(vectors),
            'titles': None if titles is None else zlib.crc32('\n'.join(titles.titles).encode()),
            'hows': list(workbench.hows),
            'max_matches': list(workbench.max_matches),
            'steps': {refinement: [repr(step) for step in steps]
                      for refinement, steps in workbench.steps.items()},
        }


def _columns_of(spaces):
    "What a study must agree in about the further columns of the table, where there are any."
    cells = {name: (space.texts if space.kind == 'text' else space.cells.tolist())
             for name, space in spaces.items() if holds_column(space)}
    if not cells: return {}
    return {'fields': {name: zlib.crc32(repr(column).encode()) for name, column in cells.items()}}


def _setting_of(given, groups, titles, only):
    "The `Setting` to tune in, from whatever `tune_rule` was given."
    if isinstance(given, Setting): return given
    return among_themselves(_checked_embeddings(given, groups, titles), only)


def _checked_embeddings(embeddings, groups, titles):
    "`Embeddings` with groups, from what is no `Setting`."
    if not isinstance(embeddings, Embeddings):
        if not isinstance(embeddings, dict):
            raise InputError(f'embeddings: {type(embeddings).__name__}: give Embeddings, '
                             'or {modality: (n,d) array} with groups=')
        if not embeddings: raise InputError('embeddings: no modality')
        n_listings = len(next(iter(embeddings.values())))
        embeddings = Embeddings(embeddings, np.arange(n_listings), titles, groups)
    elif groups is not None or titles is not None:
        titles = embeddings.titles if titles is None else titles
        groups = embeddings.groups if groups is None else groups
        embeddings = Embeddings(embeddings, embeddings.ids, titles, groups, embeddings.trained_on,
                                embeddings.phash)
    if embeddings.groups is None:
        raise InputError('groups: the embeddings hold none, and a rule is tuned against the true groups')
    return embeddings.refuse_trained_on('tuning a rule')


def _held_out_figures(search, halvings):
    """{'tuned', 'fused', 'plain': `HeldOut`}, the three ways to choose a rule: each chosen on half of the
    groups and scored on the other half."""
    from optuna.trial import FixedTrial
    workbench, groups = search.workbench, search.workbench.groups.row_codes
    most_matches = workbench.max_matches[0]
    fusion_structures = [replace(structure, max_matches=most_matches)
                         for structure in fusions(workbench.modalities, PLAIN_FUSIONS)]
    held_out = {protocol: HeldOut(np.zeros(len(groups)), groups) for protocol in ('tuned', 'fused', 'plain')}
    half_number = 0
    for first_half in random_halves(groups, halvings, search.settings.seed):
        for side in (first_half, ~first_half):
            half_number += 1
            other_side = ~side
            chosen_on = search.visible_rows((half_number, 'chosen'), side, half_number)
            scored_on = search.visible_rows((half_number, 'scored'), other_side, half_number)
            plain_trial = FixedTrial(default_values(workbench.space))
            structures = {
                'tuned': search.run(chosen_on, half_number)[1],
                'plain': workbench.structure(plain_trial, chosen_on),
                'fused': _best_structure(workbench, fusion_structures, chosen_on),
            }
            for protocol, structure in structures.items():
                thresholds, _ = workbench.threshold_search(structure, chosen_on).best(chosen_on.mask)
                row_f1 = workbench.threshold_search(structure, scored_on).at(thresholds)
                held_out[protocol].row_f1[other_side] += row_f1[other_side] / halvings
                held_out[protocol].picks.append((structure, thresholds))
            workbench.forget(chosen_on)
            workbench.forget(scored_on)
    return held_out


def _best_structure(workbench, structures, visible_rows):
    "The structure with the best mean row F1 on some rows; of equal ones the first, in a grid the plainest."
    def best_value(structure):
        search = workbench.threshold_search(structure, visible_rows)
        return search.best(visible_rows.mask)[1]
    return max(structures, key=best_value)


def _summary(figures):
    "The held-out figures as plain numbers, for the rule's score."
    if not figures: return {}
    summaries = {protocol: held_out.summary() for protocol, held_out in figures.items()}
    paired_gains = {f'tuned over {protocol}': paired(figures['tuned'], figures[protocol]).to_dict()
                    for protocol in ('fused', 'plain')}
    return {'heldout': summaries, 'gain': paired_gains}
