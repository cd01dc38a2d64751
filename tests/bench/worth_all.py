"""What each trick is worth: one table of all, `nbs/worth.csv`.

`python tests/bench/worth_all.py [--minutes 60] [--seeds 5] [--only NAME ...] [--sets SET ...]
[--work FOLDER]`

Each trick of `worth_tricks.py` is trained once for each set and seed, in a process of its own, and what came
out is kept in a small file of the work folder: a run that was killed is the only one that is lost, what is
there already is not run again, and the table is written from what there is. The first seed of all comes
before the second of any. With `--minutes` no run begins after so many; with `--minutes 0` the table is
written and nothing is run.

**Features that stand still**: pictures and titles are encoded once (`worth_sets.py`), and a linear layer,
neck and head are trained on them by `match_learner` for 400 steps of 64 listings. **Encoder trained**: the
sample's pictures at 64 px, EfficientNet-Lite0 without its lowest blocks, four epochs of 32 listings.

Seed s trains without fold s, whose listings are then looked up among all of the set (recall@1 and row F1 in
the catalogue): after five seeds every product was judged once, by a model that never saw it. The threshold is
chosen on half of the held-out products and used on the other half, over ten halvings. The
default's rate is the best of four on fold 1 without fold 0, the same for all three sets, as margin and scale
are, and that of every trick that names none. Optimizers are compared at the best rate of each, adamw's too:
found for each set and seed on fold s + 1, without fold s.

A difference is that to the default (of an optimizer, to adamw at its best rate) with the same seed. Its
interval counts what products differ and what trainings differ (`interval`). Time is the processor's for the
training, as a ratio to that of what it is compared with, the median over seeds; memory is the peak of the
training in MB over what was there before, less that of the other.

Figures of other benches are taken over with their own command, see `worth_others.py`.
"""
import argparse
import gc
import hashlib
import json
import multiprocessing
import os
import re
import shlex
import sys
import time
import warnings
from copy import deepcopy
from functools import cache
from pathlib import Path

# a script: its own checkout is what is measured
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import numpy as np
import pandas as pd
from fastai.vision.augment import Resize, ResizeMethod
from scipy import stats

from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.jobs.judge import judge_modalities
from fastmatch.learner import match_learner
from fastmatch.losses.base import NotANumber
from fastmatch.match import HeldOut, compare, in_the_catalogue
from fastmatch.schedule import Still
from fastmatch.store import table_text, write_text
from tests.bench.grid import ARCH, SIZE, STILL, TrainOnly
from tests.bench.harness import memory
from tests.bench.worth_others import COLUMNS, other_rows
from tests.bench.worth_sets import (
    FOLDS,
    SETS,
    StoredVectors,
    features,
    listings,
    loaders,
    main_directions,
)
from tests.bench.worth_tricks import DEFAULT, PICTURES, STORED, Trick, tricks

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT/'nbs'/'worth.csv'
WORK = ROOT/'worth-work'
COMMAND = 'python tests/bench/worth_all.py'
KEY = ['section', 'trick', 'setting', 'set']  # what a row is found by
SEEDS = 5
STEPS = {STORED: 400, PICTURES: 204}
RATES = {STORED: 1e-2, PICTURES: 4e-3}  # of adamw, the best on fold 1 of the emoji of a few
FACTOR = 3.  # between the rates of an optimizer that are tried
MOST_RATES = 6
TUNING_STEPS = 200
# of the page, in the order in which one would try them: what costs least and gave most comes first
SECTIONS = [
    'Default', 'Length of the training', 'Steps of a rule', 'Losses', 'Augmentations', 'Necks and heads',
    'Optimizers', 'Schedules', 'Callbacks', 'Inside the encoder', 'Batches',
    'Crops, parts and styles of pictures', 'Several pictures of a listing',
    'Columns of two shops\' tables', 'Tuning', 'Classification of items', 'Frames and texts in one model',
    'Objectives and tricks on such a model', 'Few labels', 'Labels, thresholds and stacks', 'Cost of a step']
SETS_OF = {STORED: list(SETS), PICTURES: ['emoji']}


def file_of(work: Path, trick: Trick, name: str, seed: int) -> Path:
    "Where the run of a trick on the set `name` is kept."
    slug = re.sub(r'[^a-z0-9]+', '-', trick.id.lower()).strip('-')
    digest = hashlib.sha256(trick.id.encode()).hexdigest()[:6]
    return Path(work)/name/f'{slug}-{digest}-seed{seed}.json'


def planned(seeds: int, only=(), sets=tuple(SETS)) -> list:
    """(trick, set, seed) of all runs, in their order: the first seed of everything comes first.

    Raises `InputError` for a trick or a set that there isn't."""
    by_id = tricks()
    names = {trick.name for trick in by_id.values()}
    if unknown := sorted(set(only) - names):
        raise InputError(f'--only: no trick {unknown}: there are {", ".join(sorted(names))}')
    if unknown := sorted(set(sets) - set(SETS)):
        raise InputError(f'--sets: no set {unknown}: there are {", ".join(SETS)}')
    # a difference needs what it is taken to
    wanted = {DEFAULT, *only, *(trick.over for trick in by_id.values() if trick.name in only)}
    chosen = [trick for trick in by_id.values() if not only or trick.name in wanted]
    # those whose rate has to be found first take several times as long
    return [(trick, name, seed) for seed in range(seeds) for is_tuned in (False, True)
            for setting in (STORED, PICTURES) for name in SETS_OF[setting] if name in sets
            for trick in chosen if (trick.setting, trick.tuned) == (setting, is_tuned)]


@cache
def encoder_of(name: str, work: Path) -> StoredVectors:
    "What reads a set's features, which are kept in the work folder; a training takes a copy."
    vectors = features(name, work/'features')
    return StoredVectors(vectors, main_directions(vectors))


def stored_learner(trick, name, df, work, fold, seed):
    "A learner on features that stand still, and the callbacks of its training."
    dls = loaders(df, fold, trick.sampler, seed)
    options = {'lr_mult': {'title': 1., 'head': 5.}, **trick.learner(dls)}
    learn = match_learner(dls, text_arch=deepcopy(encoder_of(name, work)), metrics=[], check_matcher=False,
                          **options)
    return learn, []


def picture_learner(trick, name, df, work, fold, seed):
    "A learner whose encoder of pictures is trained, and the callbacks of its training."
    dls = MatchDataLoaders.from_df(
        df, SETS['emoji'].parent/'images', text_col=None, fold_col='fold', valid_fold=fold, seed=seed,
        sampler=trick.sampler, item_tfms=Resize(SIZE, method=ResizeMethod.Squish),
        batch_tfms=augs(trick.augs), bs=32, num_workers=0, phash=False)
    learn = match_learner(dls, ARCH, metrics=[], check_matcher=False, **trick.learner(dls))
    return learn, [Still(*(f'encoders.image.body.{block}' for block in STILL))]


def trained(trick, name, seed, work, *, rate=None, steps=None, tune=False) -> dict:
    """What one training scores on the listings of the fold that has the seed's number, and what it took; with
    `tune` on those of the next fold, the seed's own left out altogether."""
    df, fold = listings(name), seed % FOLDS
    if tune:
        df = df[df.fold != fold].reset_index(drop=True)
        fold = (seed + 1) % FOLDS
    seed_everything(seed)
    gc.collect()
    before = memory('VmRSS')
    make = stored_learner if trick.setting == STORED else picture_learner
    learn, callbacks = make(trick, name, df, work, fold, seed)
    steps = STEPS[trick.setting] if steps is None else steps
    epochs = round(steps / len(learn.dls.train))
    start = time.process_time()
    if epochs:
        with learn.no_bar(), learn.no_logging():
            trick.fit(learn, epochs, rate or RATES[trick.setting] * trick.rate,
                      cbs=[TrainOnly(), *callbacks, *trick.cbs()])
    seconds = time.process_time() - start
    peak = memory('VmHWM') - before
    embeddings = learn.embeddings(df)
    setting = in_the_catalogue(embeddings, (df.fold == fold).to_numpy(), only=learn.modalities)
    found = judge_modalities(setting, seed)[learn.modalities[0]]
    return {'row_f1': found.row_f1.round(5).tolist(),
            'recall': [None if np.isnan(value) else value for value in found.recall_at_1.tolist()],
            'clusters': found.clusters.tolist(), 'seconds': round(seconds, 3), 'peak_mb': round(peak, 2),
            'steps': epochs * len(learn.dls.train)}


def rate_file(work, trick, name, seed): return file_of(work/'rates', trick, name, seed)


def tuned_rate(trick, name, seed, work) -> float:
    """The best rate for an optimizer on products that this seed doesn't judge; found once, and kept.

    Three rates a factor of three apart, and on from there where the best is the lowest or the highest."""
    file = rate_file(work, trick, name, seed)
    if file.exists(): return json.loads(file.read_text(encoding='utf-8'))['rate']
    start, scores = RATES[STORED] * trick.rate, {}
    def score(power):
        rate = start * FACTOR**power
        # a rate that is too high for an optimizer loses the loss
        try: found = trained(trick, name, seed, work, rate=rate, steps=TUNING_STEPS, tune=True)
        except NotANumber: return 0.
        return float(np.mean(found['row_f1']))
    for power in (-1, 0, 1): scores[power] = score(power)
    while len(scores) < MOST_RATES:
        best = max(scores, key=scores.get)
        if min(scores) < best < max(scores): break
        outside = best - 1 if best == min(scores) else best + 1
        scores[outside] = score(outside)
    best = max(scores, key=scores.get)
    keep(file, {'trick': trick.id, 'rate': start * FACTOR**best,
                'row_f1': {f'{start * FACTOR**power:g}': found for power, found in sorted(scores.items())}})
    return start * FACTOR**best


def keep(file: Path, found: dict):
    "Write what was found, whole or not at all."
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix('.part')
    write_text(part, json.dumps(found))
    os.replace(part, file)


def run(trick, name, seed, work):
    "One run, kept in its file; of what fails, the reason."
    warnings.filterwarnings('ignore')
    rate = tuned_rate(trick, name, seed, work) if trick.tuned else None
    found = trained(trick, name, seed, work, rate=rate, steps=trick.steps)
    keep(file_of(work, trick, name, seed),
         {'trick': trick.id, 'set': name, 'seed': seed, 'rate': rate or RATES[trick.setting] * trick.rate,
          **found})


def fill(runs: list, work: Path, minutes: float | None, echo=print) -> int:
    "Do the runs that are missing, each in a process of its own; returns how many failed."
    start, failed = time.monotonic(), 0
    warm, default = {}, Trick('Default', DEFAULT)
    for trick, name, seed in runs:
        if file_of(work, trick, name, seed).exists(): continue
        if minutes is not None and time.monotonic() - start >= 60 * minutes: break
        # what all runs share is made and imported before a process branches off
        if name not in warm: warm[name] = trained(default, name, 0, work, steps=0)
        began = time.monotonic()
        # the rate is found in a process of its own, or the memory of the run would be what that one left
        if trick.tuned and not rate_file(work, trick, name, seed).exists():
            apart(tuned_rate, trick, name, seed, work)
        is_done = apart(run, trick, name, seed, work)
        failed += not is_done
        echo(f'{time.monotonic() - start:6.0f} s  {name}, seed {seed}, {trick.id}: '
             f'{time.monotonic() - began:.1f} s{"" if is_done else " FAILED"}', flush=True)
    return failed


def apart(function, *arguments) -> bool:
    "Call a function in a process of its own; whether it came to its end."
    process = multiprocessing.get_context('fork').Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode == 0


def found_runs(runs: list, work: Path) -> dict:
    "(trick id, set, seed) -> what is kept of it, of the runs that are there."
    files = {(trick.id, name, seed): file_of(work, trick, name, seed) for trick, name, seed in runs}
    return {key: json.loads(file.read_text(encoding='utf-8')) for key, file in files.items() if file.exists()}


def scores_of(found: dict, score: str) -> HeldOut:
    "The scores of one run's listings, of those that have one."
    values = np.array(found[score], float)
    has_score = ~np.isnan(values)
    clusters = np.unique(np.array(found['clusters'])[has_score], return_inverse=True)[1]
    return HeldOut(values[has_score], clusters)


def interval(ours: list, plain: list) -> tuple:  # (difference, low, high)
    """The mean difference of runs, each on products of its own, and its 95% interval.

    Products are drawn and trainings are drawn, so two variances add up, as in `match.compare` over seeds:
    that over groups, and, of two runs at least, that of the runs' mean differences. Of one run how much
    another training would have changed is not in the interval.
    """
    of_groups = compare(*({(0, run): scores for run, scores in enumerate(side)} for side in (ours, plain)))
    variances = [of_groups.se**2]
    degrees = [sum(len(np.unique(scores.clusters)) for scores in ours) - 1]
    if len(ours) > 1:
        by_run = [a.mean - b.mean for a, b in zip(ours, plain)]
        variances.append(stats.sem(by_run)**2)
        degrees.append(len(ours) - 1)
    total = sum(variances)
    if not total: return of_groups.diff, of_groups.diff, of_groups.diff
    # Satterthwaite's degrees of freedom for a sum of variances
    freedom = total**2 / sum(each**2 / degree for each, degree in zip(variances, degrees))
    margin = stats.t.ppf(.975, freedom) * total**.5
    return of_groups.diff, of_groups.diff - margin, of_groups.diff + margin


def measured_rows(runs: list, work: Path) -> pd.DataFrame:
    "A row for each trick and set of which there is a seed that what it is compared with has too."
    found, rows = found_runs(runs, work), []
    for trick, name in dict.fromkeys((trick, name) for trick, name, _ in runs):
        over = f'{trick.setting}: {trick.over}'
        seeds = sorted(seed for run_trick, set_name, seed in found
                       if (run_trick, set_name) == (trick.id, name) and (over, name, seed) in found)
        if not seeds: continue
        ours = [found[trick.id, name, seed] for seed in seeds]
        plain = [found[over, name, seed] for seed in seeds]
        row = {'section': trick.kind, 'trick': trick.name, 'set': name, 'score': 'row F1',
               'setting': f'{trick.setting}, {STEPS[trick.setting]} steps', 'over': trick.over,
               'value': np.mean([np.mean(each['row_f1']) for each in ours]), 'seeds': len(seeds),
               'listings': sum(len(each['row_f1']) for each in ours),
               'time': np.median([a['seconds'] / b['seconds'] for a, b in zip(ours, plain)]),
               'memory_mb': np.median([a['peak_mb'] - b['peak_mb'] for a, b in zip(ours, plain)]),
               'command': f'{COMMAND} --seeds {max(seeds) + 1} --only {shlex.quote(trick.name)}'}
        if trick.name != DEFAULT:
            for score, prefix in (('row_f1', ''), ('recall', 'recall_')):
                figures = interval(*([scores_of(each, score) for each in side] for side in (ours, plain)))
                row |= {f'{prefix}{end}': figure for end, figure in zip(('gain', 'low', 'high'), figures)}
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows as a newcomer would try them: by section, and in it by the mean difference of a trick over its
    sets; raises `InputError` for a section that has no place."""
    if unknown := sorted(set(table.section) - set(SECTIONS)):
        raise InputError(f'sections without a place in SECTIONS: {unknown}')
    place = table.section.map({section: place for place, section in enumerate(SECTIONS)})
    same = table.groupby(['section', 'trick', 'setting', 'over'], dropna=False).gain
    keys = table.assign(place=place, mean=same.transform('mean'))
    return table.loc[keys.sort_values(['place', 'mean', 'trick'], ascending=[True, False, True],
                                      kind='stable').index].reset_index(drop=True)


def kept_rows(measured: pd.DataFrame, table: Path) -> pd.DataFrame:
    """Rows of a table that is there of which the work folder has no run, or fewer seeds: of somebody else's
    runs only the table may be at hand. Rows of tricks that are no more are left out."""
    if not table.exists(): return measured.iloc[:0]
    known = {(trick.kind, trick.name, f'{trick.setting}, {STEPS[trick.setting]} steps')
             for trick in tricks().values()}
    before = pd.read_csv(table)
    seeds = {tuple(row[KEY]): row.seeds for _, row in measured.iterrows()}
    is_kept = [str(row.command).startswith(COMMAND) and tuple(row[KEY[:3]]) in known
               and row.seeds > seeds.get(tuple(row[KEY]), 0) for _, row in before.iterrows()]
    return before[is_kept]


def table_of(runs: list, work: Path, table: Path) -> pd.DataFrame:
    "What was measured here, what the table has of other runs, and what other benches measured."
    measured = measured_rows(runs, work)
    kept = kept_rows(measured, table)
    is_older = pd.MultiIndex.from_frame(measured[KEY]).isin(pd.MultiIndex.from_frame(kept[KEY]))
    return in_order(pd.concat([measured[~is_older], kept, other_rows()], ignore_index=True)).round(4)


def main(arguments=None):
    "Fill the gaps as far as the minutes go, and write the table of what is there."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=SEEDS)
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME', help='tricks by name; default all')
    parser.add_argument('--sets', nargs='+', default=list(SETS), metavar='SET')
    parser.add_argument('--minutes', type=float, help='begin no run after so many; default: do all')
    parser.add_argument('--work', type=Path, default=WORK, help='folder of finished runs and features')
    parser.add_argument('--out', type=Path, default=TABLE)
    options = parser.parse_args(arguments)
    try: runs = planned(options.seeds, options.only, options.sets)
    except InputError as error: parser.error(str(error))
    failed = fill(runs, options.work, options.minutes)
    write_text(options.out, table_text(table_of(planned(options.seeds), options.work, options.out)))
    if failed: raise SystemExit(f'{failed} runs failed')


if __name__ == '__main__': main()
