"""What tuning is worth on the sample: three studies, each against the kit as it comes, on listings that
neither training nor the study saw.

`python tests/bench/worth.py head|rule|training [--n-trials N] [--epochs N] [--size PX] [--seeds N] [--out
nbs/studies.csv] [--storage worth.db]`

Folds 2 to 4 are trained on, fold 1 is what a study looks at, fold 0 is what is reported. Rows of the table
that is written, each with its command:
`head` searches margin and scale of a head on the embeddings of untrained encoders; `training` searches
margin, scale and rate of the whole training, pruned by
Hyperband; both train what they found and the default anew with further seeds and compare over seeds and
listings. `rule` tunes the rule: on the embeddings of
fold 0 by encoders that were trained on the others, and on all listings' by untrained ones; half of the
products is scored by what the other half chose;
training and study are done with several seeds.
Rows are replaced by study and compared pair; a training study goes on where it was (`--storage`).
"""
import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastai.vision.augment import Resize

from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import match_learner
from fastmatch.losses import ArcFace
from fastmatch.match import heldout_fused
from fastmatch.match.candidates import candidates
from fastmatch.match.judge.compare import compare
from fastmatch.match.judge.repeat import repeat
from fastmatch.study.engine.space import spaces
from fastmatch.study.head import as_frozen, fit_head, judge_head, tune_head
from fastmatch.study.maker import learner_maker
from fastmatch.study.rule import heldout_rules, tune_rule
from fastmatch.study.tune import describe_trial, tune

TEST, INNER = 0, 1


def listings(): return pd.read_csv(demo_path()/'listings.csv', keep_default_na=False)


def loaders(df, size, valid=INNER, seed=0):
    "Batches of the sample: fold `valid` is looked at, the rest is trained on."
    seed_everything(seed)
    return MatchDataLoaders.from_df(
        df,
        demo_path() / 'images',
        fn_col='image',
        text_col='title',
        label_col='label_group',
        fold_col='fold',
        valid_fold=valid,
        item_tfms=Resize(size),
        batch_tfms=augs('colour'),
        bs=64,
        num_workers=0,
    )


def row(study, data, what, c, **more):
    "A row of the table from a `Comparison`."
    print(f'{study}, {data}, {what}: {c.sentence}', flush=True)
    return {'study': study, 'data': data, 'compared': what, **c.to_dict(), **more}


def head(a):
    df = listings()
    embeddings = match_learner(loaders(df, a.size)).embeddings(df)
    x, y = as_frozen(embeddings, None)
    test, valid = ((df.fold == item).to_numpy() for item in (TEST, INNER))
    study = tune_head(
        embeddings,
        n_trials=a.n_trials,
        valid=valid,
        test=test,
        epochs=a.epochs,
        echo=lambda t: print(describe_trial(t), flush=True),
    )
    train, codes = ~test & ~valid, np.unique(y[~test & ~valid], return_inverse=True)[1]
    def runs(params):
        return repeat(
            lambda seed: judge_head(
                fit_head(x[train], codes, params, a.epochs, seed=seed), x[test], y[test], 0
            ),
            range(1, a.seeds + 1),
        )

    best, default, frozen = (
        runs(study.best_params),
        runs({}),
        repeat(lambda seed: judge_head(None, x[test], y[test], 0), range(1, a.seeds + 1)),
    )
    info = dict(trials=a.n_trials, chosen=json.dumps(study.best_params))
    yield row(
        'head', 'fold 0', 'best over default', compare(best, default), a=best.mean, b=default.mean, **info
    )
    yield row(
        'head',
        'fold 0',
        'default over no head',
        compare(default, frozen),
        a=default.mean,
        b=frozen.mean,
        **info,
    )


def rule(a):
    df = listings()
    untrained, found, held = match_learner(loaders(df, a.size, TEST)).embeddings(df), {}, {}
    for seed in range(a.seeds):
        learn = match_learner(loaders(df, a.size, TEST, seed))
        with learn.no_bar(): learn.fit_flat_cos(a.epochs, 2e-3)
        for data, embeddings in (
            ('fold 0, trained', learn.embeddings()),
            ('all folds, untrained', untrained),
        ):
            best, study = tune_rule(embeddings, a.n_trials, halvings=a.halvings, seed=seed)
            found.setdefault(data, best.to_dict())
            for k, value in heldout_rules(study).items(): held.setdefault((data, k), []).append(value)
    def mean(o): return float(np.mean([v.mean for v in o]))
    for data, best in found.items():
        for k in ('fused', 'plain'):
            ours, other = held[data, 'tuned'], held[data, k]
            yield row(
                'rule',
                data,
                f'tuned over {k}',
                compare(ours, other),
                a=mean(ours),
                b=mean(other),
                trials=a.n_trials,
                chosen=json.dumps(
                    {
                        name: value
                        for name, value in best.items()
                        if name in ('how', 'weights', 'threshold', 'steps', 'options')
                    }
                ),
            )


def training(a):
    df = listings()
    test, rest = df[df.fold == TEST].reset_index(drop=True), df[df.fold != TEST]
    begun = time.process_time()
    study = tune(
        learner_maker(lambda trial: loaders(rest, a.size)),
        spaces('margin', 'scale', 'lr'),
        a.n_trials,
        epochs=a.epochs,
        test=test,
        storage=a.storage,
        study_name=f'training {a.size} px, {a.epochs} epochs',
        pruner='hyperband',
        echo=lambda value: print(value, flush=True),
    )
    # a study that was broken off has had its minutes before
    earlier = study.user_attrs.get('cpu_minutes', 0.)
    study.set_user_attr('cpu_minutes', earlier + (time.process_time() - begun) / 60)
    def one(params, seed):
        learn = match_learner(
            loaders(rest, a.size, seed=seed),
            loss_func=ArcFace(params.get('margin', 0.3), params.get('scale', 20.0)),
        )
        with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(a.epochs, params.get('lr', 2e-3))
        embeddings = learn.embeddings(test)
        return heldout_fused(candidates(embeddings.spaces(), k=50), embeddings.groups)
    whole = sorted((t for t in study.trials if t.state.name == 'COMPLETE'), key=lambda t: -t.value)
    # where the default itself came out best, what is said is what the next one is worth
    stood, found = (
        bool(whole[0].user_attrs.get('default')),
        next(t for t in whole if not t.user_attrs.get('default')),
    )
    best, default = (
        repeat(lambda seed, p=p: one(p, seed), range(1, a.seeds + 1)) for p in (found.params, {})
    )
    yield row(
        'training',
        'fold 0',
        'second best over default' if stood else 'best over default',
        compare(best, default),
        a=best.mean,
        b=default.mean,
        trials=a.n_trials,
        chosen=json.dumps(found.params),
        earlier=earlier,
        pruned=sum(t.state.name == 'PRUNED' for t in study.trials),
    )


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('study', choices=('head', 'rule', 'training'))
    p.add_argument('--n-trials', type=int, default=40)
    p.add_argument('--epochs', type=int, default=4)
    p.add_argument('--size', type=int, default=64, help='side of the pictures')
    p.add_argument(
        '--seeds', type=int, default=3, help='of the last comparison; of `rule`: of training and study'
    )
    p.add_argument('--halvings', type=int, default=5, help='of `rule`')
    p.add_argument('--storage', default='worth.db', help='of `training`')
    p.add_argument('--out', type=Path)
    a = p.parse_args(args)
    start, rows = time.process_time(), []
    for item in {'head': head, 'rule': rule, 'training': training}[a.study](a): rows.append(item)
    command = 'python tests/bench/worth.py ' + ' '.join(
        item for item in (sys.argv[1:] if args is None else args) if not str(item).startswith('/')
    )
    earlier = sum(row.pop('earlier', 0.) for row in rows)
    table = pd.DataFrame(rows).assign(
        cpu_minutes=round((time.process_time() - start) / 60 + earlier, 2),
        command=command.split(' --out')[0].split(' --storage')[0],
    )
    for k in ('a', 'b'): table[k] = table[k].round(4)
    if a.out:
        old = pd.read_csv(a.out) if a.out.exists() else pd.DataFrame(columns=['study'])
        table = pd.concat([item for item in (old[old.study != a.study], table) if len(item)])
        table.to_csv(a.out, index=False)
    print(table.drop(columns=['command', 'chosen']).to_string(index=False))


if __name__ == '__main__': main()
