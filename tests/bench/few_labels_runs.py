"""What unlabelled items are worth on clips: macro-F1 of a model with pseudo-labels, a mean teacher or a
teacher's outputs, over the same model trained on the labels alone.

The protocol is that of `streams.py`: every way is trained on four folds and judged on the fifth, five times
over, and figures are of all 687 labelled items together. The 953 unlabelled items are predicted by the base
model of the same fold and seed, which never saw the labels of the fifth. `precision` is the estimate that the
validation items give: the share of right predictions among those that the same rule would have kept, over all
folds; `precision_low` and `precision_high` are its 95% interval. Differences are paired by item, with a 95%
interval by resampling items.

A teacher of a student is a model of the same folds, too: what it says of the training items, whose labels it
knows, and of the unlabelled ones.

Two base models: 'frames' reads stored features of frames and trains a head (seconds a fold), 'late fusion'
reads them beside the texts, whose encoder is trained (a minute or more a fold).

`python tests/bench/few_labels_runs.py --out nbs/few_labels_runs.csv` (what was done already is read from
--work)
"""
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score

from fastmatch.callback.averaging import EMA
from fastmatch.callback.mean_teacher import MeanTeacher
from fastmatch.callback.stored_teacher import StoredTeacher
from fastmatch.core import seed_everything
from fastmatch.learner import classify_learner
from fastmatch.losses import Distill
from fastmatch.semi import (
    Confidence,
    Everything,
    HeldOut,
    Margin,
    Quota,
    mean_outputs,
    outputs_of_predictions,
    with_pseudo_labels,
)
from fastmatch.semi.keep import margins
from fastmatch.semi.pseudo import soft_labelled
from fastmatch.semi.share import wilson
from tests.bench.streams import (
    EPOCHS,
    RATE,
    arguments,
    features,
    fitted,
    interval,
    items,
    loaders,
    macro_f1,
)

FRAMES = dict(title_col=None, max_len=64)
BASES = {'frames': FRAMES, 'late fusion': {}}
# teachers beside them
STREAMS = 'single', 'double'


def loaders_of(base, seed, fold, work):
    return loaders(fold, features(work/'features'), seed=seed, **BASES.get(base, {}))


def train(dls, seed, epochs=EPOCHS, cbs=None, **kwargs):
    seed_everything(seed)
    return fitted(classify_learner(dls, cbs=cbs, **kwargs), epochs)


def predictions_of_all(base, seed, fold, work: Path):
    "(table with `part`, classes): what the base model says of all items; trained once, then read."
    file = work/f'all {base} {seed} {fold}.npz'
    if not file.exists():
        fusion = {'fusion': base} if base in STREAMS else {}
        learn = train(loaders_of(base, seed, fold, work), seed, **fusion)
        tables = [learn.predictions(), learn.predictions(learn.dls.train_df),
                  learn.predictions(learn.dls.unlabelled)]
        table, classes = pd.concat(tables), list(learn.dls.vocab)
        part = np.repeat(['valid', 'train', 'unlabelled'], [len(each) for each in tables])
        np.savez(file, ids=table['item_id'].to_numpy().astype(str), part=part,
                 logits=np.log(table[classes].to_numpy() + 1e-9), classes=np.array(classes).astype(str))
    saved = np.load(file)
    classes = saved['classes'].tolist()
    return pd.DataFrame(np.exp(saved['logits']), columns=classes).assign(
        item_id=saved['ids'], part=saved['part']), classes


def base_only(seed, fold, work, base):
    "The base model's own predictions of the validation items."
    table, classes = predictions_of_all(base, seed, fold, work)
    valid = table[table.part == 'valid']
    return valid.item_id.to_numpy(), np.log(valid[classes].to_numpy() + 1e-9), np.array(classes), {}


def longer(seed, fold, work, base, epochs):
    "The base model with as many steps as one with pseudo-labels has."
    return predicted(train(loaders_of(base, seed, fold, work), seed, epochs))


def predicted(learn, report=None):
    "(ids, log-probabilities (n,c), classes, figures) of the validation items."
    table, classes = learn.predictions(), list(learn.dls.vocab)
    return (table['item_id'].to_numpy(), np.log(table[classes].to_numpy() + 1e-9), np.array(classes),
            report or {})


def labels_of(seed, fold, work, base, keep):
    "(pseudo-labels of the base model, how many there are and how many of the validation would be right)."
    table, classes = predictions_of_all(base, seed, fold, work)
    unlabelled, valid = (table[table.part == part] for part in ('unlabelled', 'valid'))
    probabilities = unlabelled[classes].to_numpy()
    cutoffs = keep.cutoffs(probabilities)
    kept = keep.above(probabilities, cutoffs)
    labels = pd.DataFrame({
        'item_id': unlabelled.item_id, 'label': np.array(classes, object)[probabilities.argmax(1)],
        'prob': probabilities.max(1), 'margin': margins(probabilities),
        **dict(zip(classes, probabilities.T))})[kept]
    truth = items().set_index('item_id').category[valid.item_id].to_numpy()
    valid_kept = keep.above(valid[classes].to_numpy(), cutoffs)
    is_right = np.array(classes)[valid[classes].to_numpy().argmax(1)] == truth
    return labels, {'kept': len(labels), 'kept_prob': labels.prob.mean(), 'classes': labels.label.nunique(),
                    'valid_kept': valid_kept.sum(), 'valid_right': is_right[valid_kept].sum()}


def pseudo(seed, fold, work, base, keep, first=False, **options):
    "A new model trained on labels and pseudo-labels, or on these first and then on the labels."
    dls = loaders_of(base, seed, fold, work)
    labels, report = labels_of(seed, fold, work, base, keep)
    held_out = HeldOut(dls, phash=False)
    # twins of validation items, if there are any
    leaks = held_out.leaks(dls.unlabelled[dls.unlabelled.item_id.isin(labels.item_id)])
    labels = labels[~labels.item_id.isin(leaks['id'])]
    report['twins'] = len(leaks)
    learn = train(with_pseudo_labels(dls, labels, held_out=held_out, labelled=not first, **options), seed)
    if first:
        learn.dls = soft_labelled(dls)
        with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(EPOCHS // 2, RATE / 2)
    return predicted(learn, report)


def mean_teacher(seed, fold, work, base, weight):
    "The base model with the average of its weights as a teacher on all items but those of the fold."
    dls = loaders_of(base, seed, fold, work)
    return predicted(train(dls, seed, cbs=[EMA(.99), MeanTeacher(weight=weight)]))


def averaged(seed, fold, work, base):
    "The base model with the average of its weights alone, which a mean teacher has too."
    return predicted(train(loaders_of(base, seed, fold, work), seed, cbs=EMA(.99)))


def distilled(seed, fold, work, base, teachers, t=2., alpha=.7, unlabelled=True):
    """A model that learns from what teachers of the same folds said, of labelled and unlabelled items; the
    latter have the teachers' likeliest class as a label."""
    dls = loaders_of(base, seed, fold, work)
    tables = [predictions_of_all(each, seed, fold, work) for each in teachers]
    classes = tables[0][1]
    said = mean_outputs([outputs_of_predictions(table[table.part != 'valid'][['item_id', *classes]], classes)
                         for table, _ in tables])
    if unlabelled:
        rows = said.rows_of(dls.unlabelled.item_id)
        labels = pd.DataFrame({'item_id': said.ids[rows], 'label': said.classes[said.logits[rows].argmax(1)]})
        held_out = HeldOut(dls, phash=False)
        leaks = held_out.leaks(dls.unlabelled)
        labels = labels[~labels.item_id.isin(leaks['id'])]
        dls = with_pseudo_labels(dls, labels, target='hard', held_out=held_out)
    return predicted(train(dls, seed, cbs=StoredTeacher(said), loss_func=Distill(t, alpha)))


KEPT = {'confidence .9': Confidence(.9), 'confidence .7': Confidence(.7), 'confidence .5': Confidence(.5),
        'margin .5': Margin(.5), 'quota of half of each class': Quota(share=.5), 'all': Everything()}
WAYS = {base: partial(base_only, base=base) for base in BASES}
WAYS |= {f'{base}, twice the epochs': partial(longer, base=base, epochs=2 * EPOCHS) for base in BASES}
WAYS |= {f'frames, soft labels, {name}': partial(pseudo, base='frames', keep=keep, target='soft')
         for name, keep in KEPT.items()}
WAYS |= {f'{base}, {target} labels, confidence .7': partial(pseudo, base=base, keep=KEPT['confidence .7'],
                                                            target=target)
         for base in BASES for target in ('soft', 'hard', 'both')}
WAYS |= {f'{base}, soft labels, all': partial(pseudo, base=base, keep=Everything(), target='soft')
         for base in BASES}
WAYS |= {'frames, soft labels, all, weight .3': partial(pseudo, base='frames', keep=Everything(),
                                                        target='soft', weight=.3),
         'frames, soft labels, all, first': partial(pseudo, base='frames', keep=Everything(), target='soft',
                                                    first=True)}


WAYS |= {f'{base}, EMA': partial(averaged, base=base) for base in BASES}
WAYS |= {f'{base}, mean teacher, weight {weight:g}': partial(mean_teacher, base=base, weight=weight)
         for base, weights in (('frames', (.3, 1., 3., 10.)), ('late fusion', (1.,))) for weight in weights}
WAYS |= {'frames, taught by late fusion': partial(distilled, base='frames', teachers=['late fusion']),
         'frames, taught by late fusion, labelled items': partial(
             distilled, base='frames', teachers=['late fusion'], unlabelled=False),
         'frames, taught by itself': partial(distilled, base='frames', teachers=['frames']),
         'late fusion, taught by single + double': partial(distilled, base='late fusion',
                                                           teachers=['single', 'double'])}


def base_of(way): return next(base for base in BASES if way.startswith(base))


def run(way, seed, fold, work: Path):
    "Train and predict one fold, unless that was done."
    file = work/f'{way} {seed} {fold}.npz'
    if file.exists(): return
    start = time.time()
    ids, logits, classes, report = WAYS[way](seed, fold, work)
    figures = {f'report {name}': value for name, value in report.items()}
    np.savez(file, ids=ids.astype(str), logits=logits, classes=classes.astype(str), **figures)
    print(f'{way}, seed {seed}, fold {fold}: {time.time() - start:.0f} s', flush=True)


def read(way, seed, work: Path):
    "(log-probabilities (687, 47) by way and seed, figures of each fold); None where a fold is missing."
    df = items().dropna(subset='category')
    classes = sorted(df.category.unique())
    rows, reports = [], []
    for fold in range(5):
        file = work/f'{way} {seed} {fold}.npz'
        if not file.exists(): return None
        saved = np.load(file)
        table = pd.DataFrame(saved['logits'], saved['ids'], saved['classes'])
        rows.append(table.reindex(columns=classes, fill_value=np.log(1e-9)))
        reports.append({name.removeprefix('report '): float(saved[name]) for name in saved
                        if name.startswith('report ')})
    return pd.concat(rows).loc[df.item_id].to_numpy(), reports


def figures_of_labels(reports: list):
    "Means and sums over folds and seeds of what is known of the kept labels."
    table = pd.DataFrame([each for each in reports if each])
    if not len(table): return {}
    if 'kept' not in table: return table.mean().to_dict()
    right, kept = int(table.valid_right.sum()), int(table.valid_kept.sum())
    low, high = wilson(right, kept)
    return {'kept': table.kept.mean(), 'kept_prob': table.kept_prob.mean(), 'classes': table.classes.mean(),
            'twins': table.twins.mean(), 'valid_kept': kept, 'precision': right / max(1, kept),
            'precision_low': low, 'precision_high': high}


def summary(seeds, work) -> pd.DataFrame:
    "A row for each way of which all folds of a seed are there."
    df = items().dropna(subset='category')
    truth = pd.Categorical(df.category, sorted(df.category.unique())).codes
    found = {way: {seed: read(way, seed, work) for seed in seeds} for way in WAYS}
    found = {way: {seed: each for seed, each in by_seed.items() if each is not None}
             for way, by_seed in found.items()}
    rows = []
    for way, by_seed in found.items():
        if not by_seed: continue
        predictions = {seed: logits.argmax(1) for seed, (logits, _) in by_seed.items()}
        of_base = {seed: logits.argmax(1) for seed, (logits, _) in found[base_of(way)].items()}
        shared = [seed for seed in predictions if seed in of_base]
        difference, low, high = interval(truth, [predictions[seed] for seed in shared],
                                         [of_base[seed] for seed in shared])
        scores = [macro_f1(truth, each) for each in predictions.values()]
        rows.append({'way': way, 'macro_f1': np.mean(scores),
                     'accuracy': np.mean([accuracy_score(truth, each) for each in predictions.values()]),
                     'seeds': len(predictions), 'over_base': difference, 'over_base_low': low,
                     'over_base_high': high,
                     **figures_of_labels([each for _, reports in by_seed.values() for each in reports])})
    return pd.DataFrame(rows).round(4)


def main():
    args = arguments(__doc__, WAYS, 'few-labels-work')
    for seed in range(args.seeds):
        for way in args.ways or WAYS:
            for fold in args.folds: run(way, seed, fold, args.work)
    table = summary(range(args.seeds), args.work)
    print(table.to_string())
    if args.out: table.assign(command='python tests/bench/few_labels_runs.py').to_csv(args.out, index=False)


if __name__ == '__main__': main()
