"The report in the order a reader asks: is it good, what is right, what goes wrong, how was it made?"
from pathlib import Path

from ..core import InputError
from ..data.image import image_path
from ..data.pictures import picture_names
from ..match.embeddings import Embeddings
from ..match.judge.heldout import alone_heldout
from ..match.judge.setting import among_themselves
from ..match.rule import Rule
from ..store import write_atomically
from .cards import Cards
from .curves import scores, training
from .groups import groups
from .headline import headline, worth_tables
from .mistakes import mistakes
from .origin import Origin
from .pairs import judge_pairs
from .render import listed, page
from .rule import rule_html
from .settings import settings_html

ENTRIES = ('settings', 'listings', 'seconds', 'versions', 'seed')  # of a summary, shown in the last section


def report_html(
    emb,  # `Embeddings` with groups, titles where there are some: all listings that the rule is judged with
    rule: Rule,  # What decides, as `choose_rule` gives it
    # Row -> `HeldOut` in the setting of use: 'fused' at least, 'rule' where more was searched for;
    # 'untrained_fused' in it, or in that of another setting, adds the gain by training
    table: dict,
    # (n,) files or PIL images, or a function from a row number to one; a list of them where a listing has
    # several, the first of which is shown; None: no pictures
    images=None,
    # In which settings the rule was judged, and how it was found; None: the listings are looked up among
    # themselves, none of which may have been trained on
    origin: Origin | None = None,
    losses=None,  # Training loss of each step
    monitors: dict | None = None,  # Name -> its value after each epoch
    settings: dict | None = None,  # Name -> value, dict, or list of dicts: shown in the last section
    n: int = 9,  # Mistakes of each kind to show
) -> str:
    "The report as one self-contained html page; raises `InputError` for listings that can't be judged."
    setting = among_themselves(emb) if origin is None else origin.setting
    _check(setting, table)
    judged = judge_pairs(setting.spaces, rule, setting.groups.codes)
    all_rows = {'alone': alone_heldout(setting.groups), **table}
    cards = Cards(_in_order(emb, setting), _images_in_order(images, emb, setting))
    sections = [
        ('What each part is worth', worth_tables(all_rows, origin)),
        ('The rule', rule_html(rule, None if origin is None else origin.ladder)),
        ('Training', training(losses, monitors)),
        ('Scores and the threshold', scores(judged)),
        ('Matched groups', groups(judged, cards)),
        ('Worst mistakes', mistakes(judged, cards, n)),
        ('Settings', settings_html(rule, settings))]
    page_title = f'{len(setting):,} listings matched by {listed(rule.modalities)}'
    return page(page_title, headline(all_rows, judged, origin), sections)


def _in_order(embeddings, setting):
    "What is shown of the listings, those that are judged first; without the vectors, which may be large."
    titles = embeddings.titles
    return Embeddings({}, embeddings.ids[setting.order],
                      None if titles is None else [titles[row] for row in setting.order],
                      embeddings.groups[setting.order],
                      fields={name: column.take(setting.order) for name, column in embeddings.fields.items()})


def _images_in_order(images, embeddings, setting):
    if images is None: return None
    if callable(images): return lambda row: images(int(setting.order[row]))
    if len(images) != len(embeddings):
        raise InputError(f'images: {len(images)} for {len(embeddings)} listings')
    return [images[row] for row in setting.order]


def _check(setting, heldout_table):
    if 'fused' not in heldout_table:
        raise InputError(f"table holds {list(heldout_table)}: the report is about the row 'fused'")
    for row_name, heldout in heldout_table.items():
        if len(heldout.row_f1) != len(setting):
            raise InputError(f'table[{row_name!r}]: scores of {len(heldout.row_f1)} listings, '
                             f'but there are {len(setting)}')


def write_report(
    outcome,  # As `train_and_judge` returns it
    path='report.html',  # File to write, whole or not at all; its folder is made if it isn't there
    n: int = 9,  # Mistakes of each kind to show
) -> Path:
    "Write the report of a run of `train_and_judge`: the rule as it works in the setting of use."
    path = Path(path)
    if path.is_dir(): raise InputError(f'path={path}: is a folder, name the file')
    recorder = outcome.learn.recorder
    summary = outcome.summary()
    # the Recorder's rows hold neither epoch nor time; its loss is the curve's
    columns = zip(list(recorder.metric_names)[1:], zip(*recorder.values))
    monitors = {monitor: values for monitor, values in columns if monitor != 'train_loss'}
    judgement = outcome.judgement
    table, *_ = outcome.tables.values()
    others = {name: rows for name, rows in outcome.tables.items() if name != judgement.main}
    page_html = report_html(
        outcome.judged_listings, outcome.rule, table, _image_files(outcome),
        Origin(judgement.settings, others, judgement.ladder), losses=recorder.losses, monitors=monitors, n=n,
        settings={entry: summary[entry] for entry in ENTRIES})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page_html)
    return path


def _image_files(outcome):
    "The image files of each listing that is judged or found; None where the listings have no images."
    dls = outcome.learn.dls
    columns = dls.columns
    if columns.image is None: return None
    file_of = dict(zip(dls.all_df[columns.id], dls.all_df[columns.image]))
    return [[image_path(dls.image_folder, name)
             for name in picture_names(file_of[posting_id], dls.image_folder)]
            for posting_id in outcome.judged_listings.ids]
