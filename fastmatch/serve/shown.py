"What the catalogue says, as the answers of the API take it."
from urllib.parse import urlencode

import pandas as pd

from ..core import InputError
from .uploads import Refused


def listing_of(
    row: dict,  # posting_id, title, pictures (file names, or None), group
) -> dict:
    "A listing as `answers.Shown` takes it."
    names = row['pictures'] if isinstance(row['pictures'], list) else []
    addresses = [f'/api/picture?{urlencode({"id": row["posting_id"], "place": place})}'
                 for place in range(len(names))]
    return {'id': row['posting_id'], 'title': _plain(row['title']), 'group': _plain(row['group']),
            'pictures': addresses}


def match_of(
    matches: list[dict],  # As `Service.match` gives them
    threshold: float,
) -> dict:
    "The matches of a listing."
    return {'matches': [{**found, 'listing': listing_of(found['listing']), 'score': _score(found['score'])}
                        for found in matches], 'threshold': threshold}


def change_of(
    changes,  # `Changes`
) -> dict:
    "What an event did."
    moved = [{'id': row.posting_id, 'before': _plain(row.before), 'after': _plain(row.after)}
             for row in changes.frame.itertuples()]
    merged = [{'group': int(group), 'into': int(into)} for group, into in changes.merged.items()]
    return {'event': changes.event, 'kind': changes.kind, 'words': changes.in_words(), 'moved': moved,
            'opened': changes.opened, 'merged': merged, 'gone': [int(group) for group in changes.gone],
            'known': changes.known}


def event_of(
    row: dict,  # Of `Catalogue.events`
) -> dict:
    "An event."
    return {name: row[name] for name in ('event', 'kind', 'time', 'who', 'reason')}


def about(
    service,  # `Service`
    figures: tuple | None,  # (listings, groups, last event, threshold) of the catalogue
) -> dict:
    "What the service holds and reads."
    if figures is None: figures = len(service.matcher), None, None, service.matcher.rule.threshold
    listings, groups, event, threshold = figures
    return {**service.about(), 'listings': listings, 'groups': groups, 'event': event,
            'threshold': threshold, 'limits': vars(service.limits)}


# --- asked of a `Catalogue` that a thread of readers holds

def found_of(reader, text: str, n: int) -> list:
    "Listings whose title holds all words of a text."
    return [listing_of(row) for row in reader.listings(reader.search(text, n)).to_dict('records')]


def groups_of(reader, n: int, start: int, least: int) -> dict:
    "The largest groups with their listings, as far as these are few."
    # one more, to know whether there are any
    table = reader.largest_groups(n + 1, start, least)
    found = [_group(reader, row.group, reader.members(row.group), 24) for row in table.head(n).itertuples()]
    return {'groups': found, 'more': len(table) > n}


def group_of(reader, group: int, most: int) -> dict:
    "A group by its number."
    try: number = reader.resolve(group)
    except InputError as error: raise Refused(404, str(error)) from error
    return _group(reader, number, reader.members(number), most)


def _group(reader, group, members, most):
    rows = reader.listings(members[:most]).to_dict('records')
    return {'group': int(group), 'size': len(members), 'listings': [listing_of(row) for row in rows]}


def why_of(reader, first: str, second: str | None, most: int) -> dict:
    "Why listings are in one group or in two, with what the page shows of them."
    if first == second: raise Refused(422, f'{first}: give two listings, or one alone')
    why = reader.why(first, second)
    return {'sentence': why.sentence, 'pairs': _pairs(reader, why.frame.head(most)),
            'threshold': reader.threshold}


def close_calls_of(reader, n: int) -> dict:
    "Pairs to judge."
    return {'pairs': _pairs(reader, reader.close_calls(n, scores=True)), 'threshold': reader.threshold}


def _pairs(reader, table):
    "Pairs of a table with both listings as they are shown."
    names = pd.unique(pd.concat([table['first'], table['second']])) if len(table) else []
    shown = {row['posting_id']: listing_of(row) for row in reader.listings(names).to_dict('records')}
    rows = []
    for row in table.to_dict('records'):
        both = {side: shown.get(row[side]) or _gone(row[side]) for side in ('first', 'second')}
        rows.append({**row, **both, 'score': _score(row['score'])})
    return rows


def _gone(name): return {'id': name, 'title': None, 'group': None, 'pictures': []}


def _plain(cell): return None if cell is None or pd.isna(cell) else cell


def _score(score):
    "A score, None for equal keys, which match without one: the record keeps the largest number for it."
    if score is None or pd.isna(score) or abs(score) > 1e30: return None
    return float(score)
