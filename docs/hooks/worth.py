"""'What each trick is worth': made of `nbs/worth.csv` whenever the site is built, so that no figure in it can
be an old one."""
import re
from pathlib import Path

import pandas as pd

TABLE = Path(__file__).resolve().parents[2]/'nbs'/'worth.csv'
PAGE = 'worth.md'  # holds what is said before the tables
# whose trainings are done seed by seed
OWN = 'python tests/bench/worth_all.py', 'python tests/bench/parts.py'
ONE_SEED = 'one seed'
NOISE = 25  # MB that the peak of the same training varies by
LENGTH = 'Length of the training'
FIRST = 3  # tricks of a section in the list of what to try first

# section -> what is said before its table
TEXTS = {
    'Default': 'What every training below is compared with: `ArcFace(m=.3, s=20)`, `adamw` in '
               '`fit_flat_cos`, a BatchNorm neck.',
    'Length of the training': 'The default after shorter and longer trainings, against the length that '
                              'the tables below have: where it has stopped rising.',
    'Steps of a rule': 'No training is needed for these: seconds on embeddings that are there. '
                       '`fastmatch train` does it by default (`--rule ladder`), in Python `match.ladder`.',
    'Losses': 'The loss alone is changed. Losses over pairs get batches of groups (`sampler="pk"`).',
    'Augmentations': 'Presets of `augs` against `colour`, and mixing; the encoder is trained, so they '
                     'take minutes and not seconds.',
    'Necks and heads': 'What stands between encoder and loss.',
    'Optimizers': 'Every optimizer at the best rate of three to six, `adamw` too, found on products that the '
                  'figures are not of.',
    'Schedules': 'The same number of steps along another curve.',
    'Callbacks': 'Each with its defaults, unless the name says otherwise.',
    'Inside the encoder': 'The encoder is trained.',
    'Batches': 'Which listings make a batch.',
    'Crops, parts and styles of pictures': 'The product cut out of cluttered pictures, embeddings of '
                                           'stripes, instance normalization.',
    'Several pictures of a listing': '`joint` is the embedding of picture and title together, `fused` the '
                                     'fusion of scores.',
    'Columns of two shops\' tables': 'What `match_tables` is worth more with a part than without it.',
    'Tuning': 'Studies, on groups that no trial looked at.',
    'Classification of items': 'Electronic parts in 12 categories.',
    'Frames and texts in one model': 'Items of 47 classes with frames and three texts.',
    'Objectives and tricks on such a model': 'One change each to the model named under *against*.',
    'Few labels': 'One seed and many ways: no single row is a finding.',
    'Labels, thresholds and stacks': 'What is done with outputs that are there: no training.',
    'Cost of a step': 'The processor\'s time of a step of the optimizer alone.'}


def verdict(low, high):
    if low > 0: return '**better**'
    if high < 0: return 'worse'
    return 'no difference' if low == high == 0 else 'not clear'


def is_early(rows):
    "Whether rows are of trainings that were done once: how much another would have changed is not known yet."
    return rows.command.str.startswith(OWN) & (rows.seeds < 2)


def clear(table):
    "The rows that have an interval, of which one may say what is clear."
    return table.dropna(subset=['gain', 'low', 'high'])[lambda rows: ~is_early(rows)]


def number(figure): return re.sub(r'^([+-])0\.', r'\1.', f'{figure:+.3f}')


def cell(row):
    "A difference with its interval and what it says: +.043 [+.024, +.061] **better**."
    if pd.isna(row.gain): return '' if pd.isna(row.value) else f'{row.value:.3f}'.removeprefix('0')
    says = ONE_SEED if row.is_early else verdict(row.low, row.high)
    return f'{number(row.gain)} [{number(row.low)}, {number(row.high)}] {says}'


def markdown(frame):
    "A table of strings as Markdown."
    rows = [list(frame.columns), ['---'] * len(frame.columns), *frame.astype(str).values.tolist()]
    return '\n'.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows)


def costs(rows):
    "Time and memory of a trick over its sets, as text; '' where nothing was measured."
    time, memory = rows.time.median(), rows.memory_mb.median()
    return {'time': '' if pd.isna(time) else f'{time:.2f}x',
            'memory': '' if pd.isna(memory) else 'same' if abs(memory) < NOISE else f'{memory:+.0f} MB'}


def seeds_of(rows):
    numbers = sorted({int(seeds) for seeds in rows.seeds.dropna()})
    return '-'.join(map(str, {numbers[0]: 0, numbers[-1]: 0})) if numbers else ''


def by_trick(rows):
    "A line for each trick: what it is worth on each set, and what it costs."
    rows = rows.assign(is_early=is_early(rows))
    sets, lines = list(dict.fromkeys(rows.set)), []
    for (trick, setting, over), same in rows.groupby(['trick', 'setting', 'over'], sort=False, dropna=False):
        # several sets beside each other
        by_set = {row.set: cell(row) for row in same.itertuples()}
        lines.append({'trick': trick, 'setting': '' if pd.isna(setting) else setting,
                      'against': '' if pd.isna(over) else over,
                      **{name: by_set.get(name, '') for name in sets}, **costs(same),
                      'seeds': seeds_of(same)})
    frame = pd.DataFrame(lines)
    # a column that says the same everywhere is said once, above the table
    said = [f'{name}: {frame[name].iloc[0]}' for name in ('setting', 'against')
            if frame[name].nunique() == 1 and frame[name].iloc[0]]
    empty = [name for name in frame if (frame[name] == '').all()]
    frame = frame.drop(columns={*empty, *(text.split(': ')[0] for text in said)})
    return said, frame


def commands_of(rows):
    "The commands, each once; those of single tricks of one bench as the one that does them all."
    commands = dict.fromkeys(re.sub(r' (--seeds \d+ )?--only .*', '', command) for command in rows.command)
    return ', '.join(f'`{command}`' for command in commands)


def section(name, rows):
    said, frame = by_trick(rows)
    scores = ', '.join(dict.fromkeys(rows.score.dropna()))
    what = '; '.join([*([f'figures: {scores}'] if scores else []), *said])
    return (f'## {name}\n\n{TEXTS[name]} {what[:1].upper()}{what[1:]}.\n\n{markdown(frame)}\n\n'
            f'Made by {commands_of(rows)}.\n\n')


def what_first(table):
    "Of each section what was better somewhere and worse nowhere, the largest mean difference first."
    compared = clear(table)
    lines = []
    for part, rows in compared.groupby('section', sort=False):
        if part == LENGTH: continue
        better = []
        for trick, same in rows.groupby('trick', sort=False):
            if not (same.low > 0).any() or (same.high < 0).any(): continue
            best = dict.fromkeys(same[same.low > 0].set)
            unclear = [name for name in dict.fromkeys(same.set) if name not in best]
            better.append((same.gain.mean(), {
                'trick': trick, 'part': f'[{part}](#{anchor(part)})',
                'mean difference': number(same.gain.mean()),
                'better on': ', '.join(best), 'not clear on': ', '.join(unclear), **costs(same)}))
        better.sort(key=lambda line: -line[0])
        lines += [line for _, line in better[:FIRST]]
    if not lines: return ''
    return ('## What to try first\n\nOf each part below the three that gave most, of those that were clearly '
            f'better on one set at least and worse on none.\n\n{markdown(pd.DataFrame(lines))}\n\n')


def anchor(title): return re.sub(r'[^a-z0-9]+', '-', title.lower().replace("'", '')).strip('-')


def counted(table):
    "How many rows there are to be lucky in."
    compared = clear(table)
    n_clear = int(((compared.low > 0) | (compared.high < 0)).sum())
    return (f'The table has {len(compared)} differences with an interval, and {n_clear} of them look clear; '
            f'of so many rows behind which there is nothing, {round(len(compared) / 20)} are expected to '
            'look clear by luck.\n\n')


MORE = """## More tables

What is promised and what is delivered later: [promise.csv](notebooks/promise.csv); thresholds that follow
the size of the pool: [pools.csv](notebooks/pools.csv); a search of a million rows:
[scale.csv](notebooks/scale.csv); a catalogue in pieces and in any order:
[living.csv](notebooks/living.csv); which families of encoders work:
[families.csv](notebooks/families.csv); titles without training on published sets:
[textsets.csv](notebooks/textsets.csv); a cross-encoder for close pairs:
[cross_encoder.csv](notebooks/cross_encoder.csv). The notebooks say how each was made.
"""


def sections():
    "The page after its first words."
    table = pd.read_csv(TABLE)
    parts = [section(name, rows) for name, rows in table.groupby('section', sort=False)]
    end = ('All of it: [worth.csv](notebooks/worth.csv), which also holds recall@1 and the command of each '
           f'row.\n\n{MORE}')
    return counted(table) + what_first(table) + ''.join(parts) + end


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri != PAGE: return markdown
    return f'{markdown}\n\n{sections()}'
