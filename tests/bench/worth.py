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
from functools import partial
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
from fastmatch.study.engine.space import search_space
from fastmatch.study.head import as_frozen, fit_head, judge_head, tune_head
from fastmatch.study.maker import learner_maker
from fastmatch.study.rule import heldout_rules, tune_rule
from fastmatch.study.tune import describe_trial, tune_learner

TEST, INNER = 0, 1


def listings(): return pd.read_csv(demo_path()/'listings.csv', keep_default_na=False)


def loaders(df, size, valid=INNER, seed=0):
    "Batches of the sample: fold `valid` is looked at, the rest is trained on."
    seed_everything(seed)
    return MatchDataLoaders.from_df(
        df,
        demo_path()/'images',
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


def row(study, data, what, comparison, **more):
    "A row of the table from a `Comparison`."
    print(f'{study}, {data}, {what}: {comparison.sentence}', flush=True)
    return {'study': study, 'data': data, 'compared': what, **comparison.to_dict(), **more}


def head(options):
    "The study of a head on frozen embeddings: rows of its best against the default, and that against none."
    df = listings()
    embeddings = match_learner(loaders(df, options.size)).embeddings(df)
    vectors, groups = as_frozen(embeddings, None)
    test, valid = ((df.fold == fold).to_numpy() for fold in (TEST, INNER))
    study = tune_head(
        embeddings,
        n_trials=options.n_trials,
        valid=valid,
        test=test,
        epochs=options.epochs,
        echo=lambda trial: print(describe_trial(trial), flush=True),
    )
    train = ~test & ~valid
    codes = np.unique(groups[train], return_inverse=True)[1]
    seeds = range(1, options.seeds + 1)

    def judged(fitted): return judge_head(fitted, vectors[test], groups[test], 0)

    def runs(parameters):
        def run(seed):
            return judged(fit_head(vectors[train], codes, parameters, options.epochs, seed=seed))
        return repeat(run, seeds)

    best, default = runs(study.best_params), runs({})
    frozen = repeat(lambda seed: judged(None), seeds)
    info = dict(trials=options.n_trials, chosen=json.dumps(study.best_params))
    for what, ours, other in (
        ('best over default', best, default),
        ('default over no head', default, frozen),
    ):
        yield row('head', 'fold 0', what, compare(ours, other), a=ours.mean, b=other.mean, **info)


def rule(options):
    "The study of a rule: rows of what was tuned against plain fusion, on trained and untrained embeddings."
    df = listings()
    untrained = match_learner(loaders(df, options.size, TEST)).embeddings(df)
    rules, scores = {}, {}
    for seed in range(options.seeds):
        learn = match_learner(loaders(df, options.size, TEST, seed))
        with learn.no_bar(): learn.fit_flat_cos(options.epochs, 2e-3)
        for data, embeddings in (
            ('fold 0, trained', learn.embeddings()),
            ('all folds, untrained', untrained),
        ):
            best, study = tune_rule(embeddings, options.n_trials, halvings=options.halvings, seed=seed)
            rules.setdefault(data, best.to_dict())
            for name, heldout in heldout_rules(study).items():
                scores.setdefault((data, name), []).append(heldout)

    def mean(runs): return float(np.mean([run.mean for run in runs]))
    for data, best in rules.items():
        told = ('how', 'weights', 'threshold', 'steps', 'options')
        chosen = json.dumps({name: value for name, value in best.items() if name in told})
        for name in ('fused', 'plain'):
            ours, other = scores[data, 'tuned'], scores[data, name]
            yield row(
                'rule',
                data,
                f'tuned over {name}',
                compare(ours, other),
                a=mean(ours),
                b=mean(other),
                trials=options.n_trials,
                chosen=chosen,
            )


def training(options):
    "The study of the whole training: a row of its best against the default."
    df = listings()
    test, rest = df[df.fold == TEST].reset_index(drop=True), df[df.fold != TEST]
    begun = time.process_time()
    study = tune_learner(
        learner_maker(lambda trial: loaders(rest, options.size)),
        search_space('margin', 'scale', 'lr'),
        options.n_trials,
        epochs=options.epochs,
        test=test,
        storage=options.storage,
        study_name=f'training {options.size} px, {options.epochs} epochs',
        pruner='hyperband',
        echo=lambda line: print(line, flush=True),
    )
    # a study that was broken off has had its minutes before
    earlier = study.user_attrs.get('cpu_minutes', 0.)
    study.set_user_attr('cpu_minutes', earlier + (time.process_time() - begun) / 60)

    def trained(parameters, seed):
        loss_func = ArcFace(parameters.get('margin', .3), parameters.get('scale', 20.))
        learn = match_learner(loaders(rest, options.size, seed=seed), loss_func=loss_func)
        with learn.no_bar(), learn.no_logging():
            learn.fit_flat_cos(options.epochs, parameters.get('lr', 2e-3))
        embeddings = learn.embeddings(test)
        return heldout_fused(candidates(embeddings.spaces(), k=50), embeddings.groups)

    complete = [trial for trial in study.trials if trial.state.name == 'COMPLETE']
    complete.sort(key=lambda trial: -trial.value)
    # where the default itself came out best, what is said is what the next one is worth
    default_is_best = bool(complete[0].user_attrs.get('default'))
    found = next(trial for trial in complete if not trial.user_attrs.get('default'))
    seeds = range(1, options.seeds + 1)
    best, default = (repeat(partial(trained, parameters), seeds) for parameters in (found.params, {}))
    yield row(
        'training',
        'fold 0',
        'second best over default' if default_is_best else 'best over default',
        compare(best, default),
        a=best.mean,
        b=default.mean,
        trials=options.n_trials,
        chosen=json.dumps(found.params),
        earlier=earlier,
        pruned=sum(trial.state.name == 'PRUNED' for trial in study.trials),
    )


def main(arguments=None):
    "Run one study and put its rows into the table, in the place of earlier ones of the same study."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', choices=('head', 'rule', 'training'))
    parser.add_argument('--n-trials', type=int, default=40)
    parser.add_argument('--epochs', type=int, default=4)
    parser.add_argument('--size', type=int, default=64, help='side of the pictures')
    parser.add_argument('--seeds', type=int, default=3,
                        help='of the last comparison; of `rule`: of training and study')
    parser.add_argument('--halvings', type=int, default=5, help='of `rule`')
    parser.add_argument('--storage', default='worth.db', help='of `training`')
    parser.add_argument('--out', type=Path)
    options = parser.parse_args(arguments)
    start = time.process_time()
    rows = list({'head': head, 'rule': rule, 'training': training}[options.study](options))
    command = 'python tests/bench/worth.py ' + ' '.join(
        word for word in (sys.argv[1:] if arguments is None else arguments) if not str(word).startswith('/')
    )
    earlier = sum(row.pop('earlier', 0.) for row in rows)
    table = pd.DataFrame(rows).assign(
        cpu_minutes=round((time.process_time() - start) / 60 + earlier, 2),
        command=command.split(' --out')[0].split(' --storage')[0],
    )
    for side in ('a', 'b'): table[side] = table[side].round(4)
    if options.out:
        before = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame(columns=['study'])
        others = before[before.study != options.study]
        table = pd.concat([part for part in (others, table) if len(part)])
        table.to_csv(options.out, index=False)
    print(table.drop(columns=['command', 'chosen']).to_string(index=False))


if __name__ == '__main__': main()
