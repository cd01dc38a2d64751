"""'What each trick is worth': made of the tables in `nbs/`, so that no figure in it can be an old one."""
import re
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT/'nbs'
PAGE = 'worth.md'  # holds what is said before the tables


def verdict(low, high):
    if low > 0: return '**better**'
    if high < 0: return 'worse'
    return 'no difference' if low == high == 0 else 'not clear'


def span(gain, low, high, digits=3):
    "A difference with its interval: +.043 [+.024, +.061]."
    def said(number): return re.sub(r'^([+-])0\.', r'\1.', f'{number:+.{digits}f}')
    return f'{said(gain)} [{said(low)}, {said(high)}]'


def table(frame):
    "A table of strings as Markdown."
    rows = [list(frame.columns), ['---'] * len(frame.columns), *frame.astype(str).values.tolist()]
    return '\n'.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows)


def compared(source, names, gain, low, high, seeds=None, digits=3):
    "Differences, the best first: the columns `names` as they are, the difference, what it says, the seeds."
    source = source.dropna(subset=[gain, low, high]).sort_values(gain, ascending=False, kind='stable')
    figures = list(zip(source[gain], source[low], source[high]))
    shown = {name: source[name] for name in names}
    shown |= {'difference, 95% interval': [span(*three, digits) for three in figures],
              'verdict': [verdict(*three[1:]) for three in figures]}
    if seeds: shown['seeds'] = source[seeds].astype(int)
    return pd.DataFrame(shown)


def section(title, text, frame, commands, files, notebook=None):
    "A part of the page; `commands` made the `files`."
    where = ', '.join(f'[{name}](notebooks/{name})' for name in files)
    made_by = ', '.join(f'`{command}`' for command in commands)
    more = f' More in [the notebook](notebooks/{notebook}).' if notebook else ''
    return f'## {title}\n\n{text}{more}\n\n{table(frame)}\n\nMade by {made_by}: {where}.\n\n'


def read(name): return pd.read_csv(TABLES/name)


def ladders():
    "The steps of a rule, each over the rung before it."
    both = pd.concat([read('ladder_emoji.csv'), read('ladder_luma.csv')])
    both = both.dropna(subset=['over_before']).rename(columns={'set': 'data', 'rung': 'step'})
    figures = list(zip(both.over_before, both.low_before, both.high_before))
    shown = both[['data', 'setting', 'step']].assign(**{
        'row F1': [f'{score:.3f}' for score in both.row_f1],
        'over the step before, 95% interval': [span(*three) for three in figures],
        'verdict': [verdict(*three[1:]) for three in figures]})
    return section(
        'Steps of a rule',
        'No training is needed for these: seconds on embeddings that are there. Each step is '
        'chosen on half of the held-out groups and scored on the other half; `fastmatch train` does it by '
        'default (`--rule ladder`), in Python `match.ladder`. *In the catalogue* is the setting of a shop, '
        '*among themselves* that of a competition.', shown,
        both.command.unique(), ['ladder_emoji.csv', 'ladder_luma.csv'], '05_matching.ipynb')


def fields():
    "What a match of two tables loses without one of its parts."
    parts = read('tables.csv').query('protocol == "official" and way != "all of it"')
    parts = parts.rename(columns={'set': 'data', 'way': 'what was left out'})
    return section(
        'Columns of two shops\' tables',
        'Points of pair F1 that `match_tables` is worth more with a part than '
        'without it, on the published splits. *Better* says that the part pays.',
        compared(parts, ['data', 'what was left out'], 'worth', 'worth_low', 'worth_high', 'seeds', digits=1),
        parts.command.unique(), ['tables.csv'], '09_tables.ipynb')


def pictures():
    "Several pictures of a listing against its first."
    rows = read('several_pictures.csv').query('way != "first" and over_first != 0')
    rows = rows.rename(columns={'set': 'data', 'way': 'how they are compared', 'merged': 'listings made by'})
    return section(
        'Several pictures of a listing',
        'Row F1 against the first picture alone; `joint` is the embedding of '
        'picture and title together, `fused` the fusion of scores.',
        compared(rows, ['data', 'listings made by', 'how they are compared'], 'over_first', 'low_first',
                 'high_first'), rows.command.unique(), ['several_pictures.csv'])


def studies():
    rows = read('studies.csv').rename(columns={'study': 'what is tuned'})
    rows['what is tuned'] = rows['what is tuned'].replace({'head': 'a head', 'training': 'a whole training',
                                                           'rule': 'a rule'})
    rows['CPU minutes'] = rows.cpu_minutes.round(1)
    return section(
        'Tuning',
        'Row F1 on groups that no trial looked at.',
        compared(rows, ['what is tuned', 'data', 'compared', 'CPU minutes'], 'diff', 'low', 'high', 'seeds'),
        rows.command.unique(), ['studies.csv'], '06_tuning.ipynb')


def grid(title, text, name, scores, grid_name, notebook):
    "Trainings of a grid against its default, by each of `scores`."
    from tests.bench.grid import worth
    rows = worth(TABLES/name).drop(index='default').sort_values(f'{scores[0]} gain', ascending=False)
    shown = {'name': rows.index}
    for score in scores:
        figures = list(zip(rows[f'{score} gain'], rows[f'{score} low'], rows[f'{score} high']))
        shown |= {score: [span(*three) for three in figures],
                  f'{score}: verdict': [verdict(*three[1:]) for three in figures]}
    shown |= {'time': [f'{ratio:.2f}x' for ratio in rows.time], 'seeds': rows.seeds.astype(int)}
    return section(title, text, pd.DataFrame(shown),
                   [f'python tests/bench/grid.py {grid_name} --seeds 0 1 2 --out nbs/{name}'], [name],
                   notebook)


def trainings():
    seeds = 'Three seeds, Student\'s interval of the paired differences: wide, as it should be. '
    sample = 'Pictures of the embedded sample at 64 px, EfficientNet-Lite0, two epochs (102 steps of 32). '
    both = ['row F1', 'recall@1']
    yield grid('Losses', f'Against `ArcFace(m=.3, s=20)`. {sample}{seeds}', 'losses.csv', both, 'losses',
               '02_losses.ipynb')
    yield grid('Optimizers and schedules', f'Against `adamw` in `fit_flat_cos`. {sample}{seeds}',
               'optimizers.csv', both, 'optimizers', '03_optimizers.ipynb')
    yield grid('Callbacks, on pictures', f'Against the same training without. {sample}{seeds}',
               'callbacks.csv', both, 'callbacks', '04_sharpness.ipynb')
    yield grid('Callbacks, on texts', 'Titles and descriptions of electronic parts in 12 categories, MiniLM, '
               f'three epochs; macro-F1. {seeds}', 'callbacks_parts.csv', ['macro-F1'], 'parts',
               '04_sharpness.ipynb')


def batches():
    "Titles of like length in a batch; the interval of the seeds' own differences, the only one of all rows."
    rows = read('buckets.csv').rename(columns={'set': 'data', 'way': 'training'})
    rows['time'] = ['' if pd.isna(ratio) else f'{ratio:.2f}x' for ratio in rows.time]
    return section(
        'Titles of like length in a batch',
        '`buckets=True`: row F1 against batches of any titles, the interval '
        'over seeds.', compared(rows, ['data', 'training', 'layers', 'time'], 'diff', 'seed_low', 'seed_high',
                                'seeds'),
        ['python tests/bench/buckets.py --seeds 5 --sets emoji --out x.csv',
         'python tests/bench/buckets.py --seeds 7 --layers 0 --sets amazon_google --out y.csv'],
        ['buckets.csv'])


def steps():
    rows = read('steps.csv').sort_values('ratio')
    ratio = [f'{row.ratio:.2f}' + ('' if pd.isna(row.low) else f' [{row.low:.2f}, {row.high:.2f}]')
             for row in rows.itertuples()]
    return section(
        'What a step of an optimizer costs',
        'CPU time of a step on 147 tensors, against AdamW of torch\'s '
        'lists of tensors (`foreach`).', pd.DataFrame({'optimizer': rows.side, 'time': ratio}),
        ['python tests/bench/run.py steps'], ['steps.csv'], '03_optimizers.ipynb')


def classes():
    rows = read('labels.csv').rename(columns={'name': 'way', 'over': 'against'})
    return section(
        'Classification of items',
        'Macro-F1 over 506 electronic parts in 12 categories, five folds.',
        compared(rows, ['way', 'against'], 'diff', 'low', 'high', 'seeds'),
        ['python tests/bench/labels.py'], ['labels.csv'], '01_classification.ipynb')


def streams():
    rows = read('streams.csv').query('way != "late fusion"')
    return section(
        'Frames and texts in one model',
        'Macro-F1 of 687 items of 47 classes (1,640 with those without a '
        'label), against late fusion of the same stored features.',
        compared(rows, ['way'], 'over_late', 'over_late_low', 'over_late_high', 'seeds'),
        rows.command.unique(), ['streams.csv'], '07_streams.ipynb')


def few_labels():
    rows = read('few_labels_runs.csv').query('over_base_low != over_base_high')
    return section(
        'Few labels',
        'Macro-F1 on the same items, against the same model trained on the labels alone. One seed '
        'and many ways: no single row is a finding.',
        compared(rows, ['way'], 'over_base', 'over_base_low', 'over_base_high', 'seeds'),
        rows.command.unique(), ['few_labels_runs.csv'], '08_few_labels.ipynb')


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
    parts = [ladders(), studies(), fields(), pictures(), *trainings(), classes(), streams(), few_labels(),
             batches(), steps(), MORE]
    return ''.join(parts)


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri != PAGE: return markdown
    # the benches are a package of the repository's root
    if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))
    return f'{markdown}\n\n{sections()}'
