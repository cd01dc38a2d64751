"The job behind `fastmatch export --static`: a matcher of titles whose encoder is a vector for each token."
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError
from ..match import Embeddings, Rule
from ..match.judge.groups import Groups
from ..match.judge.heldout import HeldOut
from ..match.judge.paired import Paired, paired
from ..match.judge.score import row_f1
from ..matcher import Matcher, load_matcher
from ..matcher.static import distil_static
from ..store import check_new_folder
from .export import MEASURED, column_of_groups, drawn_groups, titles_of
from .runtime_loss import agreement

HELD_OUT = .1  # of the catalogue, where no listings to measure on are given


@dataclass
class StaticLoss:
    "What a static encoder's answers are worth beside its teacher's, on titles that it was not fitted to."
    n_listings: int
    agreement: float  # Mean row F1 between both matchers' matches, the teacher's taken as true
    teacher: float | None = None  # Row F1 of the teacher, the listings among themselves; None without groups
    loss: Paired | None = None  # Row F1 of the teacher over the static encoder's

    def to_dict(self) -> dict:
        "The figures as plain values, for `info` of a matcher."
        figures = {'listings': self.n_listings, 'agreement': round(self.agreement, 5)}
        if self.teacher is None: return figures
        return {**figures, 'teacher_row_f1': round(self.teacher, 5), 'loss': self.loss.to_dict()}

    def in_words(self) -> str:
        "One sentence."
        agreed = f"{self.n_listings} listings; matches agree with the teacher's to {self.agreement:.4f}"
        if self.teacher is None: return f'{agreed} (row F1 between both; without groups no loss is known)'
        loss = self.loss
        return (f'{agreed}; row F1 {self.teacher:.4f} with the teacher, lost {loss.diff:+.4f} '
                f'({loss.low:+.4f} to {loss.high:+.4f})')


def static_matcher(
    folder,  # Of a saved matcher that reads one title a listing
    out,  # Folder to write; must not be there
    listings: pd.DataFrame | None = None,  # To measure the loss on; None: a tenth of the catalogue, agreement
    *,
    group_col: str | None = None,  # Says which listings are the same product; None: by its usual names
    bs: int = 64,  # Listings a batch
    seed: int = 0,  # Of what is drawn
    echo=print,  # Called with a line of text at each stage
) -> Matcher:
    """Distil a matcher's title encoder to a vector for each token, and write a matcher of it.

    The vectors are fitted to the catalogue's titles without groups. The threshold is the one at which as many
    pairs of the catalogue match as before. The loss in row F1 is measured on listings that neither encoder
    was fitted to, each matcher with its own threshold, and written into `info['static']`.
    """
    out = Path(out)
    check_new_folder(out)
    matcher = load_matcher(folder, 'cpu')
    if matcher.encoder is None: raise InputError(f'{folder}: the matcher has no encoder to distil')
    catalogue = titles_of(matcher)
    group_col = column_of_groups(listings, group_col)
    measured = _measured(matcher, catalogue, listings, group_col, seed)
    is_measured = _known_among(catalogue, measured, matcher.columns)
    if is_measured.sum() > len(catalogue) - 2:
        raise InputError('all titles of the catalogue are among the listings to measure on: give others, or '
                         'none')
    echo('embedding with torch ...')
    by_torch = matcher.embed(measured, bs=bs)[0]
    echo('distilling ...')
    encoder = distil_static(matcher.encoder, catalogue[matcher.columns.title][~is_measured], seed=seed)
    rule = _rule_of_as_many(matcher, encoder, catalogue[~is_measured], bs)
    static, _ = Matcher.from_df(catalogue, '.', rule, encoder, matcher.columns, dict(matcher.info), bs,
                                trained_on=matcher.ids[matcher.trained_on])
    groups = measured[group_col].to_numpy() if group_col in measured else None
    loss = _loss(matcher, by_torch, static, static.embed(measured, bs=bs)[0], groups)
    echo(f'  {loss.in_words()}')
    static.info['static'] = loss.to_dict()
    static.save(out)
    echo(f'wrote {out}')
    return static


def _measured(matcher, catalogue, listings, group_col, seed):
    "The listings that the loss is measured on, none of them one that the encoder was trained on."
    rng = np.random.default_rng(seed)
    if listings is None:
        is_drawn = rng.permutation(len(catalogue)) < max(2, round(HELD_OUT * len(catalogue)))
        return catalogue[is_drawn].reset_index(drop=True)
    ids = listings[matcher.columns.id].astype(str)
    listings = listings[~ids.isin(matcher.ids[matcher.trained_on])].reset_index(drop=True)
    if len(listings) > MEASURED:
        groups = listings[group_col].to_numpy() if group_col in listings else np.arange(len(listings))
        listings = listings[drawn_groups(groups, MEASURED, rng)].reset_index(drop=True)
    if len(listings) < 2:
        raise InputError('the encoder was trained on all of the listings: to measure what the static one '
                         'loses give some that it was not trained on')
    return listings


def _known_among(catalogue, measured, columns):
    "Which listings of the catalogue are measured on, by id or by title: bool (n,)."
    return (catalogue[columns.id].astype(str).isin(measured[columns.id].astype(str))
            | catalogue[columns.title].isin(measured[columns.title])).to_numpy()


def _rule_of_as_many(matcher, encoder, table, bs) -> Rule:
    "The matcher's rule with its thresholds moved so that as many pairs of the listings match as with torch."
    rule = replace(matcher.rule, made_with=encoder.made_with)
    before = Matcher(matcher.rule, matcher.embed(table, bs=bs)[0], columns=matcher.columns).match()
    lowest = replace(rule, threshold=-1., pools=None) if rule.scores_are_cosines else replace(
        rule, threshold=np.finfo(np.float32).min, pools=None)
    after, _ = Matcher.from_df(table, '.', lowest, encoder, matcher.columns, bs=bs)
    found = after.match().neighbors
    rows, others, scores = found.pairs()
    scores = np.sort(scores[rows != others])[::-1].astype(np.float64)
    wanted = sum(len(row) - 1 for row in before.matches)
    shift = _between(scores, wanted) - before.rule.threshold
    pools = rule.pools
    if pools is not None:
        pools = replace(pools, thresholds=tuple(threshold + shift for threshold in pools.thresholds))
    return replace(rule, threshold=rule.threshold + shift, pools=pools)


def _between(scores, wanted):
    "A threshold that lets so many of the falling scores in, in the middle between two of them."
    if not len(scores): raise InputError('the catalogue has no two titles that could match')
    last, first = scores[max(0, min(wanted, len(scores)) - 1)], scores[min(wanted, len(scores) - 1)]
    return float((last + first) / 2)


def _loss(matcher, by_torch, static, by_static, groups):
    "`StaticLoss` of listings that are matched among themselves, each embedding with its own rule."
    sides = []
    for rule, embeddings in ((matcher.rule, by_torch), (static.rule, by_static)):
        given = Embeddings(embeddings, embeddings.ids, embeddings.titles, made_with=embeddings.made_with)
        sides.append(Matcher(rule, given, columns=matcher.columns).match().matches)
    expected, found = sides
    agreed = agreement(found, expected)
    if groups is None: return StaticLoss(len(by_torch), agreed)
    clusters = Groups.of(groups).codes
    of_teacher, of_static = (HeldOut(row_f1(matches, groups), clusters) for matches in (expected, found))
    return StaticLoss(len(by_torch), agreed, of_teacher.mean, paired(of_teacher, of_static))
