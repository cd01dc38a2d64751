"""'What things cost': made of `nbs/costs.csv` whenever the site is built, so that no figure in it can be an
old one."""
from pathlib import Path

import pandas as pd

TABLE = Path(__file__).resolve().parents[2]/'nbs'/'costs.csv'
PAGE = 'costs.md'  # holds what is said before the tables


def number(figure): return f'{figure:.3g}' if figure >= 1 else f'{figure:.3f}'.removeprefix('0')


def table_of(rows):
    "The rows of one bench as Markdown."
    lines = ['| case | way | against | of | ratio | 95% interval | bar |', '|---|---|---|---|---|---|---|']
    for row in rows.itertuples():
        bar = '' if pd.isna(row.bar) else f'{row.bar:g}: {row.verdict}'
        lines.append(f'| {row.case} | {row.way} | {row.against} | {row.of} | {number(row.ratio)} | '
                     f'{number(row.low)} to {number(row.high)} | {bar} |')
    return '\n'.join(lines)


def sections():
    "The page after its first words: a section for each bench."
    table = pd.read_csv(TABLE)
    return '\n\n'.join(f'## {bench}\n\n{rows.what.iloc[0]}\n\n{table_of(rows)}\n\nMade by '
                       f'`{rows.command.iloc[0]}`.' for bench, rows in table.groupby('bench', sort=False))


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri != PAGE: return markdown
    return f'{markdown}\n\n{sections()}\n\nAll of it: [costs.csv](notebooks/costs.csv).\n'
