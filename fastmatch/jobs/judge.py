"What a trained Learner's embeddings are worth: the rule that is chosen, judged where it will be used."
from dataclasses import dataclass, field

from ..core import InputError
from ..match.embeddings import Embeddings
from ..match.judge.heldout import HeldOut, alone_heldout, heldout
from ..match.judge.pool_thresholds import pool_thresholds
from ..match.judge.setting import (
    AMONG_THEMSELVES,
    IN_THE_CATALOGUE,
    Setting,
    among_themselves,
    in_the_catalogue,
)
from ..match.neighbors import NEAREST
from ..match.rule import Rule
from ..match.search.ladder import LadderResult, ladder
from .options import RuleChoice

KEEP_HALVINGS = 10  # of the table's rows


@dataclass
class Judgement:
    "A rule, and what each part of it and the whole are worth in each setting."
    rule: Rule  # Chosen on all rows of the first setting
    settings: dict  # Name -> `Setting`, that which the rule was chosen in first
    tables: dict  # Name of the setting -> {row: `HeldOut`}: 'alone', each modality, 'fused', 'rule'
    ladder: LadderResult  # How the rule was found
    seconds: dict = field(default_factory=dict)  # Stage -> seconds

    @property
    def main(self) -> str:
        "The name of the setting that the rule was chosen in."
        return next(iter(self.settings))

    @property
    def promised(self) -> HeldOut:
        "What a user of the rule gets, measured on groups that took no part in its choice."
        return self.tables[self.main]['rule']

    def summary(self) -> dict:
        "The figures as plain values."
        setting = self.settings[self.main]
        return {
            'promised': {'setting': self.main, 'pool': setting.pool, **self.promised.summary()},
            'judged': {name: {'pool': self.settings[name].pool,
                              'heldout': {row: scores.summary() for row, scores in table.items()}}
                       for name, table in self.tables.items()},
            'ladder': [{name: value if isinstance(value, str) else round(float(value), 5)
                        for name, value in rung.items() if value == value}
                       for rung in self.ladder.table().to_dict('records')]}


def settings_for(
    embeddings: Embeddings,  # Of all listings that the matcher will hold, those that were trained on flagged
    held_out,  # bool (n,), the listings that a rule may be judged on
    choice: RuleChoice,
    catalogue: str = 'all',  # What the matcher will hold: 'all' listings, or the 'heldout' ones
) -> dict:  # Name -> `Setting`
    "The settings to judge in, the one that the matcher will work in first."
    of_rows = among_themselves(embeddings.take(held_out))
    if catalogue == 'heldout': return {AMONG_THEMSELVES: _with_share(of_rows, choice)}
    if held_out.sum() * 2 > len(held_out) and not embeddings.trained_on.any():
        raise InputError(f'{held_out.sum()} of {len(held_out)} listings are held out: '
                         'the catalogue is smaller than the fold')
    whole = in_the_catalogue(embeddings, held_out)
    return {IN_THE_CATALOGUE: _with_share(whole, choice), AMONG_THEMSELVES: _with_share(of_rows, choice)}


def _with_share(setting, choice):
    "The setting with as many listings without a match as was asked for."
    return setting if choice.matchless is None else setting.without_mates(choice.matchless, choice.seed)


def judge_modalities(
    setting: Setting,
    seed: int = 0,  # Of the halvings
    k: int = NEAREST,  # Candidates of each modality
) -> dict:  # {row: `HeldOut`}
    "Every listing alone, and each modality alone under the held-out protocol."
    rows = {'alone': alone_heldout(setting.groups)}
    for modality in (*setting.modalities, *setting.keys):
        neighbors = setting.spaces[modality].search(min(k, setting.pool))
        rows[modality] = heldout(neighbors, setting.groups, seed=seed)
    return rows


def judge(
    settings: dict,  # Name -> `Setting`, as `settings_for` gives them
    choice: RuleChoice,  # How the rule is chosen
    echo=None,  # Called with a line of text after each step of the ladder
) -> Judgement:
    "Choose a rule in the first setting and judge it, and its parts, in all of them."
    main, *others = settings
    found = choice.search(settings[main], echo)
    rule = found.rule.with_pools(pool_thresholds(settings[main], found.rule, seed=choice.seed))
    tables = {}
    for name, setting in settings.items():
        tables[name] = judge_modalities(setting, choice.seed)
        if name == main:
            tables[name] |= {'fused': found.fused, 'rule': found.heldout}
        else:
            shift = rule.at(setting.pool).threshold - rule.threshold
            tables[name] |= {'fused': ladder(setting, 'plain', seed=choice.seed).heldout,
                             'rule': found.scores_in(setting, shift)}
    return Judgement(rule, settings, tables, found)
