"The report in the order a reader asks: is it good, where is the cut, what is right, what goes wrong, how was it made?"
from pathlib import Path

from ..core import InputError, write_atomically
from ..match.judge.heldout import alone_heldout
from ..match.rule import Rule
from .cases import groups, mistakes
from .figures import curves, headline, scores, worth
from .page import Cards, and_, page
from .pairs import judge_pairs
from .settings import settings_html


def report_html(
    emb,  # `Embeddings` of listings no encoder was trained on, with groups; titles where there are some
    rule: Rule,  # What decides, as `choose_rule` gives it
    table: dict,  # Row -> `HeldOut`, 'fused' among them, as `judge` gives it; with 'untrained_fused' the gain over it is told
    images=None,  # (n,) files or PIL images, or a function from a row number to one; None: no pictures
    spaces: dict | None = None,  # Modality -> space, where they are not `emb.spaces()`
    losses=None,  # Training loss of each step
    monitors: dict | None = None,  # Name -> its value after each epoch
    settings: dict | None = None,  # Name -> value, dict, or list of dicts: what the last section tells besides the rule
    n: int = 9,  # Mistakes of each kind to show
) -> str:
    "The report as one html page that needs nothing else."
    emb.refuse_trained_on('a report')
    if emb.groups is None: raise InputError('the listings have no groups: a report tells right from wrong')
    if 'fused' not in table: raise InputError(f"table holds {list(table)}: the report is about the row 'fused'")
    for k, o in table.items():
        if len(o.row_f1) != len(emb): raise InputError(f'table[{k!r}]: scores of {len(o.row_f1)} listings, but there are {len(emb)}')
    judged = judge_pairs(emb.spaces() if spaces is None else spaces, rule, emb.groups)
    rows, cards = {'alone': alone_heldout(emb.groups), **table}, Cards(emb, images)
    return page(f'{len(emb):,} listings matched by {and_(rule.weights)}', headline(rows, judged), [
        ('What each part is worth', worth(rows)), ('Training', curves(losses, monitors)), ('Scores and the cut', scores(judged, rule)),
        ('Matched groups', groups(judged, cards)), ('Worst mistakes', mistakes(judged, rule, cards, n)),
        ('Settings', settings_html(rule, settings))])


def write_report(
    outcome,  # As `train_and_judge` returns it
    path='report.html',  # File to write, whole or not at all; its folder is made if it isn't there
    n: int = 9,  # Mistakes of each kind to show
) -> Path:
    "Write the report of a run of `train_and_judge`."
    path, dls, rec, s = Path(path), outcome.learn.dls, outcome.learn.recorder, outcome.summary()
    if path.is_dir(): raise InputError(f'path={path}: is a folder, name the file')
    images = None
    if dls.columns.image is not None:
        file = dict(zip(dls.valid_df[dls.columns.id], dls.valid_df[dls.columns.image]))
        images = [dls.image_folder/str(file[o]) for o in outcome.emb.ids]
    # the Recorder's rows hold neither epoch nor time; its loss is the curve's
    monitors = {k: v for k, v in zip(list(rec.metric_names)[1:], zip(*rec.values)) if k != 'train_loss'}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, report_html(outcome.emb, outcome.rule, outcome.table, images, losses=rec.losses, monitors=monitors, n=n,
                                  settings={k: s[k] for k in ('settings', 'listings', 'seconds', 'versions', 'seed')}))
    return path
