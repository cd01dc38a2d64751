"The first two parts of a report: the figures above everything, and the tables of what each part is worth."
from ..match.judge.paired import paired
from ..match.judge.score import row_f1
from .origin import Origin
from .pairs import Judged
from .render import number, render

# what a row of the table is, by the beginning of its name
ROWS = {
    'alone': 'every listing matched with itself only',
    'tfidf': "the titles' character n-grams, which need no training",
    'fused': 'all modalities together, with one threshold',
    'rule': 'the rule that was found, with all its steps',
    'untrained_': 'the same with encoders as they came'}
FIGURES = ('row_f1', 'se', 'recall_at_1', 'map_at_r')


def main_row(
    rows: dict,  # Row -> `HeldOut`
):  # `HeldOut`
    "What the report is about: the rule that was found, or, where none was searched for, the plain fusion."
    return rows['rule'] if 'rule' in rows else rows['fused']


def headline(
    rows: dict,  # Row -> `HeldOut` in the setting of use; 'alone' and 'fused' among them
    judged: Judged,
    origin: Origin | None = None,  # What is known of other settings
) -> str:  # html
    "What the rule is worth beside matching nothing and beside no training, and what it gets right."
    judged_pairs = judged.pairs
    matched_count = int(judged_pairs.matched.sum())
    right_count = int((judged_pairs.matched & judged_pairs.true).sum())
    true_count = int(judged_pairs.true.sum())
    exact_count = (row_f1(judged.matches, judged.known) == 1).sum()
    n_listings = len(judged.matches)
    others = {} if origin is None else origin.others
    return render(
        'headline.html', promised=main_row(rows), alone=rows['alone'], gain=_gain(rows, others),
        setting='' if origin is None else origin.main, rule='rule' if 'rule' in rows else 'fused',
        others=[(name, main_row(table)) for name, table in others.items()],
        listings=n_listings, groups=judged.known.count, pool=len(judged.groups),
        exact=exact_count / n_listings, named=matched_count, true_pairs=true_count,
        precision=right_count / matched_count if matched_count else None,
        recall=right_count / true_count if true_count else None)


def _gain(rows, others):
    "(setting, `Paired`) of training, in the first setting whose table holds untrained encoders; or None."
    for setting, table in {'': rows, **others}.items():
        if 'untrained_fused' in table: return setting, paired(table['fused'], table['untrained_fused'])
    return None


def worth_tables(
    rows: dict,  # Row -> `HeldOut` in the setting of use
    origin: Origin | None = None,  # What is known of other settings
) -> str:  # html
    "The held-out table of each setting, that of use first, in the order of the rows."
    tables = {'': rows}
    if origin is not None: tables = {origin.words(name): table for name, table in
                                     {origin.main: rows, **origin.others}.items()}
    cells = {heading: [[row, *(number(scores.summary()[figure]) for figure in FIGURES)]
                       for row, scores in table.items()] for heading, table in tables.items()}
    all_rows = [row for table in tables.values() for row in table]
    explained = {beginning: words for beginning, words in ROWS.items()
                 if any(row.startswith(beginning) for row in all_rows)}
    return render('worth.html', tables=cells, listings=len(rows['fused'].row_f1), explained=explained,
                  main='rule' if 'rule' in rows else 'fused')
