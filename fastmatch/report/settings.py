"The last section: the rule as json, and whatever else is known of the run."
import json
from collections.abc import Mapping
from dataclasses import dataclass

from ..match.rule import Rule
from .render import render

MAX_ROWS = 50  # most rows of a list, e.g. of skipped listings


@dataclass
class Block:
    "A table with its heading, as `settings.html` shows it."
    heading: str
    rows: list  # Cells by row; [] where `text` takes their place
    head: list | None = None
    text: str = ''  # In place of a table
    hidden: int = 0  # Rows that are not shown


def settings_html(
    rule: Rule,
    settings: dict | None,  # Name -> value, dict, or list of dicts
) -> str:  # html
    "The rule, then a table of each setting; those of plain values together under 'run'."
    plain_values = {}
    tables = {}
    for heading, setting in (settings or {}).items():
        if isinstance(setting, Mapping):
            tables[heading] = {entry_name: entry for entry_name, entry in setting.items()
                               if not isinstance(entry, list)}
            # rows inside an entry, as summary.json's skipped listings, are a table of their own
            tables.update({entry_name: entry for entry_name, entry in setting.items()
                           if isinstance(entry, list)})
        elif isinstance(setting, list): tables[heading] = setting
        else: plain_values[heading] = setting
    if plain_values: tables['run'] = plain_values
    return render('settings.html', rule_json=json.dumps(_shown(rule), indent=2),
                  blocks=[_block(heading, setting) for heading, setting in tables.items()])


def _shown(rule):
    "The rule as plain values, without the thousands of numbers of a fitted pair model."
    plain_values = rule.to_dict()
    steps = [
        step.to_dict() if step.pair_model is None else {**step.to_dict(), 'params': repr(step.pair_model)}
        for step in rule.steps
    ]
    return {**plain_values, 'steps': steps} if steps else plain_values


def _block(heading, setting):
    if isinstance(setting, Mapping): return Block(heading, [list(entry) for entry in setting.items()])
    if not setting: return Block(heading, [], text='none')
    if not isinstance(setting[0], Mapping): return Block(heading, [], text=', '.join(map(str, setting)))
    columns = list(setting[0])
    table_rows = [[entry.get(column, '') for column in columns] for entry in setting[:MAX_ROWS]]
    return Block(heading, table_rows, columns, hidden=max(0, len(setting) - MAX_ROWS))
