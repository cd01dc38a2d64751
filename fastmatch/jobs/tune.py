"The tuning job: a table of listings in; a study of trainings, judged on a fold that none of them and not the study saw, out."
import base64
import io
import multiprocessing
import os
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import torch
from fastai.vision.augment import Resize, ResizeMethod

from ..core import InputError, check_device, seed_everything
from ..data.augment import augs
from ..data.block import MatchDataLoaders
from ..data.columns import Columns
from ..data.read import check_listings
from ..data.split import valid_split
from ..match.judge.heldout import Paired, paired
from ..metrics import MAPAtR, RecallAt, RowF1
from ..report.page import esc, page, table
from ..study import learner_maker, spaces, tested, tune
from ..study.engine.pruner import direction_of
from ..study.tune import said


def split_off(
    df,  # Listings with groups: DataFrame
    path,  # Folder of the images
    columns: Columns,  # Of the table
    test_fold: int = 0,  # Which fold is the test
    n_folds: int = 5,  # Folds to deal where none are given
    seed: int = 0,  # Of the dealing
    on_error: str = 'raise',  # As for `check_listings`
) -> tuple:  # (listings to train and validate on, test listings)
    "Put a fold aside, by group and by equal picture."
    seen = check_listings(df, path, columns, on_error=on_error, phash=columns.phash is None and columns.image is not None)
    hashes = seen.phash if columns.phash is None else seen.df[columns.phash].to_numpy(object)
    is_test, _ = valid_split(seen.df, test_fold, columns.fold, columns.group, n_folds, seed, columns.id, fn_col=columns.image, path=path, phash=hashes)
    return seen.df[~is_test].reset_index(drop=True), seen.df[is_test].reset_index(drop=True)


def tune_listings(
    df,  # Listings with groups: DataFrame
    path='.',  # Folder of the images
    columns: Columns | None = None,  # Of the table, as for `MatchDataLoaders.from_df`
    name: str = 'tune',  # Of the study; the same again goes on with it
    storage='fastmatch-studies.db',  # As for `open_study`
    n_trials: int = 20,  # Finished trials that the study is to hold
    jobs: int = 1,  # Processes on this machine; others may work on the same study elsewhere
    space: tuple = ('margin', 'scale', 'lr'),  # Names for `spaces`
    epochs: int = 4,  # Of a whole trial
    monitor: str = 'recall@1',  # Also 'map@r', 'row_f1_max'
    test_fold: int = 0,  # Put aside for the reported score; of the rest one fold more validates, and is what the study looks at
    n_folds: int = 5,  # Folds to deal where none are given
    image_arch: str = 'tf_efficientnet_lite0', text_arch: str = 'all-MiniLM-L6-v2', size: int = 104, aug: str = 'colour', bs: int = 64,
    sampler='tpe',  # As for `open_study`
    pruner='hyperband',  # As for `open_study`
    seed: int = 0,  # Of splits, weights, batches and sampler
    on_error: str = 'raise', num_workers: int = 0, device: str | None = None,
    echo=print,  # Called with a line of text
    **column_names,  # Single columns by keyword: `image_col`, `title_col`, ...
):  # The study
    "Search for what trains best on these listings: `n_trials` short trainings, shared out to `jobs` processes."
    columns = Columns.resolve(columns, column_names)
    call = {k: v for k, v in locals().items() if k not in ('echo', 'jobs', 'column_names')}
    for what, o, least in (('jobs', jobs, 1), ('epochs', epochs, 1), ('size', size, 8), ('bs', bs, 2), ('n_folds', n_folds, 3), ('n_trials', n_trials, 1)):
        if o < least: raise InputError(f'{what}={o}: give {least} or more')
    if device is not None: check_device(device)
    what = spaces(*space)
    seed_everything(seed)
    echo(f'reading {len(df)} listings ...')
    rest, test = split_off(df, path, columns, test_fold=test_fold, n_folds=n_folds, seed=seed, on_error=on_error)
    # the folds left; with one only, folds of its own
    left = [] if columns.fold is None else sorted(set(rest[columns.fold]) - {test_fold})
    dls = MatchDataLoaders.from_df(rest, path, columns if len(left) > 1 else replace(columns, fold=None), valid_fold=left[0] if len(left) > 1 else 0,
                                   n_folds=max(2, n_folds - 1), seed=seed, bs=bs, on_error=on_error, num_workers=num_workers, device=device,
                                   item_tfms=Resize(size, method=ResizeMethod.Squish), batch_tfms=augs(aug))
    if not len(dls.train): raise InputError(f'bs={bs}: only {len(dls.train_df)} listings to train on, not one batch; give a smaller one')
    echo(f'  {len(dls.train_df)} to train on, {len(dls.valid_df)} the study looks at, {len(test)} put aside')
    archs = {k: v for k, v in (('image_arch', image_arch), ('text_arch', text_arch)) if k not in what}
    # trials trained otherwise can't be compared
    about = {**{k: str(v) for k, v in archs.items()}, 'size': size, 'aug': aug, 'bs': bs, 'modalities': [k for k, v in (('image', columns.image), ('title', columns.title)) if v],
             'listings': [len(dls.train_df), len(dls.valid_df)]}
    make = learner_maker(dls, metrics=[RecallAt(1), MAPAtR(), RowF1()], **archs)
    with _helpers(jobs, call) as start:
        def begun(trial):
            # what is wrong with table or study was said before: once, not by each process
            start()
            return make(trial)
        return tune(begun, what, n_trials, epochs=epochs, monitor=monitor, test=test, study_name=name, storage=storage, sampler=sampler, pruner=pruner,
                    seed=seed, about=about, echo=echo)


@contextmanager
def _helpers(jobs, call):
    "A function that starts the other processes, the first time it is called; they end when all trials are done, and never outlive this one."
    threads, others, mp = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(), [], multiprocessing.get_context('spawn')

    def start():
        if jobs == 1 or others: return
        torch.set_num_threads(max(1, threads // jobs))
        was = os.environ.get('OMP_NUM_THREADS')
        os.environ['OMP_NUM_THREADS'] = str(max(1, threads // jobs))
        try:
            for _ in range(jobs - 1):
                others.append(mp.Process(target=_help, args=(call, os.getpid())))
                others[-1].start()
        finally:
            if was is None: del os.environ['OMP_NUM_THREADS']
            else: os.environ['OMP_NUM_THREADS'] = was

    try:
        yield start
        # all trials are done: whoever is still reading the table has nothing to do
        for o in others: o.join(10)
    finally:
        for o in others: o.terminate()


def _help(call, parent):
    "Another process's part of the work."
    def follow():
        while os.getppid() == parent: time.sleep(.3)
        os._exit(1)
    threading.Thread(target=follow, daemon=True).start()
    if not sys.stderr.isatty(): os.environ['TQDM_DISABLE'] = '1'
    try: tune_listings(**call, echo=lambda o: print(o, flush=True) if o.startswith('trial') else None)
    except (InputError, ImportError) as e:
        print(f'fastmatch: a process of the study ended: {e}', file=sys.stderr, flush=True)
        sys.exit(2)


def worth(
    study,  # Of `tune_listings`
) -> tuple[str, Paired | None]:  # (lines of text, the gain; None without a default, or where it is the best)
    "What tuning was worth: the best trial against the first, which is the kit as it comes, on the listings put aside."
    monitor, best, lines = study.user_attrs['kept']['monitor'], study.best_trial, []
    lines.append(f'best, {said(best, monitor)}')
    first = next((t for t in study.get_trials(deepcopy=False) if t.user_attrs.get('default') and t.state.name == 'COMPLETE'), None)
    if first is None: return '\n'.join([*lines, 'the default was not among the trials that came to their end: nothing to compare with']), None
    if first.number == best.number: return '\n'.join([*lines, 'that is the default: no trial was better']), None
    lines.append(f'default, {said(first, monitor)}')
    a, b = tested(study), tested(study, 'default')
    gain = paired(a, b)
    lines.append(f'{len(a.row_f1)} listings put aside: row F1 {a.mean:.3f}, default {b.mean:.3f}; '
                 f'gain {gain.diff:+.3f}, 95% interval {gain.low:+.3f} to {gain.high:+.3f}')
    return '\n'.join(lines), gain


def study_page(
    study,  # Of `tune_listings`
) -> str:  # html
    "The study as one page: what it was worth, its pictures, its best trials."
    from ..study.draw import study_figures
    text, _ = worth(study)
    trials = [t for t in study.get_trials(deepcopy=False) if t.state.name == 'COMPLETE']
    trials = sorted(trials, key=lambda t: t.value, reverse=direction_of(study.user_attrs['kept']['monitor']) != 'minimize')[:20]
    names = list(dict.fromkeys(k for t in trials for k in t.params))
    rows = [[str(t.number), f'{t.value:.4f}', f'{t.user_attrs["test_row_f1"]:.3f}', *(esc(f'{v:.3g}' if isinstance(v := t.params.get(k, ''), float) else v) for k in names)]
            for t in trials]
    top = ''.join(f'<p>{esc(o)}</p>' for o in text.splitlines())
    head = ['trial', esc(study.user_attrs['kept']['monitor']), 'row F1 put aside', *map(esc, names)]
    return page(f'Study {study.study_name}', top, [*((esc(title), _picture(fig, title)) for title, fig in study_figures(study)), ('Best trials', table(rows, head))])


def _picture(fig, alt):
    out = io.BytesIO()
    fig.savefig(out, format='png', dpi=130)
    return f'<img style="max-width:100%;background:#fff" alt="{esc(alt)}" src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'
