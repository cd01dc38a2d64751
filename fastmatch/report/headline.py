"The first two parts of a report: the figures above everything, and the table of what each modality is worth."
from ..match.judge.paired import paired
from ..match.judge.score import row_f1
from .pairs import Judged
from .render import number, render

# what a row of the table is, by the beginning of its name
ROWS = {
    'alone': 'every listing matched with itself only',
    'tfidf': "the titles' character n-grams, which need no training",
    'fused': 'all modalities together',
    'untrained_': 'the same with encoders as they came'}


def headline(
    rows: dict,  # Row -> `HeldOut`; 'alone' and 'fused' among them
    judged: Judged,
) -> str:  # html
    "What the rule is worth beside matching nothing and beside no training, and what it gets right."
    fused = rows['fused']
    judged_pairs = judged.pairs
    matched_count = int(judged_pairs.matched.sum())
    right_count = int((judged_pairs.matched & judged_pairs.true).sum())
    true_count = int(judged_pairs.true.sum())
    exact_count = (row_f1(judged.matches, judged.groups) == 1).sum()
    return render(
        'headline.html', fused=fused, alone=rows['alone'],
        gain=paired(fused, rows['untrained_fused']) if 'untrained_fused' in rows else None,
        listings=len(judged.groups), groups=int(judged.groups.max()) + 1,
        exact=exact_count / len(judged.groups), named=matched_count, true_pairs=true_count,
        precision=right_count / matched_count if matched_count else None,
        recall=right_count / true_count if true_count else None)


def worth_table(
    rows: dict,  # Row -> `HeldOut`
) -> str:  # html
    "The held-out table, in the order of the rows."
    summaries = {row: heldout.summary() for row, heldout in rows.items()}
    figures = ('row_f1', 'se', 'recall_at_1', 'map_at_r')
    cells = [[row, *(number(summary[figure]) for figure in figures)] for row, summary in summaries.items()]
    explained = {beginning: words for beginning, words in ROWS.items()
                 if any(row.startswith(beginning) for row in rows)}
    return render('worth.html', rows=cells, listings=summaries['fused']['n'], explained=explained)
