"The report in the order a reader asks: is it good, what is right, what goes wrong, how was it made?"
from pathlib import Path

from ..core import InputError
from ..match.judge.heldout import alone_heldout
from ..match.rule import Rule
from ..store import write_atomically
from .cards import Cards
from .curves import scores, training
from .groups import groups
from .headline import headline, worth_table
from .mistakes import mistakes
from .pairs import judge_pairs
from .render import listed, page
from .settings import settings_html

ENTRIES = ('settings', 'listings', 'seconds', 'versions', 'seed')  # of a summary, shown in the last section


def report_html(
    emb,  # `Embeddings` of listings no encoder was trained on, with groups; titles where there are some
    rule: Rule,  # What decides, as `choose_rule` gives it
    table: dict,  # Row -> `HeldOut`, as `judge` gives it; 'untrained_fused' in it adds the gain by training
    images=None,  # (n,) files or PIL images, or a function from a row number to one; None: no pictures
    spaces: dict | None = None,  # Modality -> space, where they are not those of `emb`
    losses=None,  # Training loss of each step
    monitors: dict | None = None,  # Name -> its value after each epoch
    settings: dict | None = None,  # Name -> value, dict, or list of dicts: shown in the last section
    n: int = 9,  # Mistakes of each kind to show
) -> str:
    "The report as one self-contained html page; raises `InputError` for listings that can't be judged."
    _check(emb, table)
    judged = judge_pairs(emb.spaces(only=tuple(rule.reads)) if spaces is None else spaces, rule, emb.groups)
    all_rows = {'alone': alone_heldout(emb.groups), **table}
    cards = Cards(emb, images)
    sections = [
        ('What each part is worth', worth_table(all_rows)),
        ('Training', training(losses, monitors)),
        ('Scores and the threshold', scores(judged, rule)),
        ('Matched groups', groups(judged, cards)),
        ('Worst mistakes', mistakes(judged, rule, cards, n)),
        ('Settings', settings_html(rule, settings))]
    page_title = f'{len(emb):,} listings matched by {listed(rule.modalities)}'
    return page(page_title, headline(all_rows, judged), sections)


def _check(embeddings, heldout_table):
    embeddings.refuse_trained_on('a report')
    if embeddings.groups is None:
        raise InputError('the listings have no groups: a report tells right from wrong')
    if 'fused' not in heldout_table:
        raise InputError(f"table holds {list(heldout_table)}: the report is about the row 'fused'")
    for row_name, heldout in heldout_table.items():
        if len(heldout.row_f1) != len(embeddings):
            raise InputError(f'table[{row_name!r}]: scores of {len(heldout.row_f1)} listings, '
                             f'but there are {len(embeddings)}')


def write_report(
    outcome,  # As `train_and_judge` returns it
    path='report.html',  # File to write, whole or not at all; its folder is made if it isn't there
    n: int = 9,  # Mistakes of each kind to show
) -> Path:
    "Write the report of a run of `train_and_judge`."
    path = Path(path)
    if path.is_dir(): raise InputError(f'path={path}: is a folder, name the file')
    recorder = outcome.learn.recorder
    summary = outcome.summary()
    # the Recorder's rows hold neither epoch nor time; its loss is the curve's
    columns = zip(list(recorder.metric_names)[1:], zip(*recorder.values))
    monitors = {monitor: values for monitor, values in columns if monitor != 'train_loss'}
    page_html = report_html(
        outcome.emb, outcome.rule, outcome.table, _image_files(outcome), losses=recorder.losses,
        monitors=monitors, n=n, settings={entry: summary[entry] for entry in ENTRIES})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page_html)
    return path


def _image_files(outcome):
    "The image file of each listing held out; None where the listings have no images."
    dls = outcome.learn.dls
    columns = dls.columns
    if columns.image is None: return None
    file_of = dict(zip(dls.valid_df[columns.id], dls.valid_df[columns.image]))
    return [dls.image_folder/str(file_of[posting_id]) for posting_id in outcome.emb.ids]
