"What a trained Learner's embeddings are worth: the rule that is chosen, judged where it will be used."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from ..match.cells import texts_of
from ..match.embeddings import SOURCE, Embeddings
from ..match.judge.heldout import HeldOut, alone_heldout, heldout
from ..match.judge.setting import Setting, among_themselves, in_the_catalogue
from ..match.neighbors import NEAREST
from ..match.rule import Rule
from ..match.search.ladder import LadderResult, ladder
from ..match.spaces.pool import finds_candidates
from ..match.spaces.sources import search_other_sources
from .options import RuleChoice


@dataclass
class Judgement:
    "A rule, and what each part of it and the whole are worth in each setting."
    rule: Rule  # Chosen on all rows of the first setting
    settings: dict  # Name -> `Setting`, that which the rule was chosen in first; the same rows in each
    tables: dict  # Name of the setting -> {row: `HeldOut`}: 'alone', each modality, 'fused', 'rule'
    ladder: LadderResult  # How the rule was found

    @property
    def main(self) -> str:
        "The name of the setting that the rule was chosen in."
        return next(iter(self.settings))

    @property
    def setting(self) -> Setting:
        "The setting that the rule was chosen in: where the matcher is going to work."
        return self.settings[self.main]

    @property
    def promised(self) -> HeldOut:
        "What a user of the rule gets, measured on groups that took no part in its choice."
        return self.tables[self.main]['rule']

    def promised_at(
        self,
        pool: int,  # Listings searched
    ) -> float:
        """Mean row F1 to expect in a pool of another size: on a line through those of the settings, over the
        logarithm of the pool, as long as the listings are like these. It never rises beyond them."""
        by_pool = {self.settings[name].pool: table['rule'].mean for name, table in self.tables.items()}
        if len(by_pool) < 2: return self.promised.mean
        (smaller, in_smaller), (larger, in_larger) = sorted(by_pool.items())
        per_doubling = min(0., (in_larger - in_smaller) / np.log2(larger / smaller))
        doublings_beyond = max(0., np.log2(pool / larger))
        between = np.interp(np.log2(pool), np.log2([smaller, larger]), [in_smaller, in_larger])
        return float(max(0., between + per_doubling * doublings_beyond))

    def summary(self) -> dict:
        "The figures as plain values: 'promised', 'judged' (by setting) and 'ladder'."
        judged = {name: {'pool': self.settings[name].pool, 'rows': summary_rows(table)}
                  for name, table in self.tables.items()}
        return {'promised': {'setting': self.main, 'pool': self.setting.pool, **self.promised.summary()},
                'judged': judged, 'ladder': [_plain_rung(rung) for rung in self.ladder.rungs]}


def summary_rows(
    table: dict,  # Row -> `HeldOut`
) -> dict:
    "The figures of a table as plain values."
    return {row_name: scores.summary() for row_name, scores in table.items()}


def _plain_rung(rung):
    "A rung of the ladder as plain values: its row F1, and what it adds to the one before."
    plain_values = {'rung': rung.name, 'row_f1': round(rung.heldout.mean, 5), 'se': round(rung.heldout.se, 5)}
    if rung.over_before is None: return plain_values
    step = rung.over_before.to_dict()
    return {**plain_values, 'adds': step['diff'], 'low': step['low'], 'high': step['high']}


def settings_for(
    embeddings: Embeddings,  # Of all listings, those that were trained on flagged
    held_out,  # bool (n,), the listings that a rule may be judged on
    choice: RuleChoice,
    catalogue: str = 'all',  # What the matcher will hold: 'all' listings, or the 'heldout' ones
) -> dict:  # Name -> `Setting`
    """The settings to judge in, the one that the matcher will work in first.

    Raises `InputError` where all listings are held out, which leaves no catalogue to look them up in, and
    where all that are held out come from one source, so that none of them may match another.
    """
    held_out = np.asarray(held_out)
    if held_out.all():
        raise InputError(f'all {len(held_out)} listings are held out: there is no catalogue of others to '
                         'look them up in')
    if embeddings.source is not None: check_sources(embeddings.source[held_out])
    in_catalogue = in_the_catalogue(embeddings, held_out)
    # a matcher of the held-out listings takes its vocabulary from them, one of all listings from all
    if catalogue == 'heldout': both = [among_themselves(embeddings.take(held_out)), in_catalogue]
    else: both = [in_catalogue, in_catalogue.alone()]
    return {setting.name: with_share(setting, choice) for setting in both}


def check_sources(
    held_out,  # (n,) where the held-out listings come from
    column: str = SOURCE,  # The column that says so, for the message
):
    "Raise `InputError` where they all come from one source: judged among themselves none could match."
    sources = set(texts_of(held_out)) - {None}
    if len(sources) != 1: return
    raise InputError(f'{column}: all {len(held_out)} held-out listings are of {next(iter(sources))!r}, and '
                     'listings of one source never match: hold out listings of several (by another fold, '
                     'or a split that divides every source), or name no source')


def with_share(
    setting: Setting,
    choice: RuleChoice,  # Its `matchless` is the share
) -> Setting:
    "The setting with as many listings without a match as was asked for: the same ones in any pool."
    if choice.matchless is None: return setting
    return setting.without_mates(choice.matchless, choice.seed or 0)


def judge_modalities(
    setting: Setting,
    seed: int = 0,  # Of the halvings
    k: int = NEAREST,  # Candidates of each modality
) -> dict:  # {row: `HeldOut`}
    "Every listing alone, and each modality and column that finds others, alone under the held-out protocol."
    rows = {'alone': alone_heldout(setting.groups)}
    sources = setting.sources
    finding = [name for name in setting.fields if finds_candidates(setting.spaces[name])]
    for modality in (*setting.modalities, *finding, *setting.keys):
        space, n_nearest = setting.spaces[modality], min(k, setting.pool)
        neighbors = (space.search(n_nearest) if sources is None
                     else search_other_sources(space, n_nearest, sources))
        rows[modality] = heldout(neighbors, setting.groups, seed=seed)
    return rows


def judge_plain(
    setting: Setting,
    seed: int = 0,  # Of the halvings
) -> dict:  # {row: `HeldOut`}
    "What needs no search for a rule: each listing alone, each modality, and their plain fusion, 'fused'."
    fused = ladder(setting, 'plain', seed=seed, pools=False).heldout
    return {**judge_modalities(setting, seed), 'fused': fused}


def judge(
    settings: dict,  # Name -> `Setting`, as `settings_for` gives them
    choice: RuleChoice | None = None,  # How the rule is chosen; default the ladder
    echo=None,  # Called with a line of text after each step of the ladder
) -> Judgement:
    """Choose a rule in the first setting and judge it, and its parts, in all of them.

    No listing is scored by a rule that was chosen on its group: in the first setting the whole search is done
    on each half and scored on the other; in the others the rules of the halves are scored with the threshold
    that the rule takes for a pool of that size.
    """
    choice = choice or RuleChoice()
    choice.check()
    seed = choice.seed or 0
    if not isinstance(settings, dict) or not all(isinstance(each, Setting) for each in settings.values()):
        raise InputError(f'settings of type {type(settings).__name__}: give {{name: Setting}}, '
                         'as `settings_for` gives them')
    main, *others = settings.values()
    found = _found(main, choice, echo)
    rule = found.rule
    plain = judge_modalities(main, seed)
    tables = {main.name: {**plain, 'fused': found.fused, 'rule': found.heldout}}
    for setting in others:
        shift = rule.at(setting.pool).threshold - rule.threshold
        tables[setting.name] = {**judge_plain(setting, seed), 'rule': found.scores_in(setting, shift)}
    return Judgement(rule, settings, tables, found)


def _found(setting, choice, echo):
    "The rule that was asked for, with what each step was worth, as `LadderResult`."
    if choice.rule == 'tune':
        from ..study.rule import tuned_ladder
        return tuned_ladder(setting, choice.n_trials, seed=choice.seed or 0)
    menu = 'plain' if choice.rule == 'plain' else None
    return ladder(setting, menu, seed=choice.seed or 0, echo=echo)
