"""What blending, boosting small classes and stacking are worth on clips: macro-F1 with 6 to 92 items a class.

Read are the predictions of held-out items that `streams.py` leaves (`WAY SEED FOLD.npz`), and those of cheap
ways that are made here: TF-IDF, and logistic regression on features of frozen encoders. All that is chosen
(weights, strengths, second models) is chosen on other folds than it is judged on. Differences in macro-F1 are
means over seeds, paired by item, with a 95% interval by resampling items.

'best alone' is, in each fold, the way that was best on the others. Without `--pairs` all ways together are
measured, and each alone.

`python tests/bench/few_labels.py --work streams-work [--out x.csv] [--ways 'late fusion' single]`
"""
import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.semi.blend import blend_probabilities, find_blend
from fastmatch.semi.boost import ClassBoost, find_boost
from fastmatch.semi.out_of_fold import OutOfFold, cross_fitted, normalized
from fastmatch.semi.stacking import MODELS, stack_models
from tests.bench import streams

WORDS, TEXT, FRAMES = 'words and characters', 'frozen text', 'frozen frames'
CHEAP = WORDS, TEXT, FRAMES
FOLDS = range(5)


def frozen_features(kind, work):
    "Features (n,d) of all items by an encoder that stands still: of texts, or the mean of frames."
    df = streams.items()
    if kind == TEXT:
        from fastmatch.matcher import Encoder
        from fastmatch.models import MatchNet, TitleEncoder, load_tokenizer
        tokenizer = load_tokenizer('all-MiniLM-L6-v2')
        net = MatchNet(None, None, TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id))
        texts = df[streams.TEXTS].fillna('').agg(' '.join, axis=1).tolist()
        return Encoder(net, None, tokenizer).embed(None, texts)[0]['title']
    from fastmatch.matcher import Encoder, Picture
    from fastmatch.models import ImageEncoder, MatchNet
    image = ImageEncoder('tf_efficientnet_lite0')
    encoder = Encoder(MatchNet(None, image), Picture((128, 128), 'pad', mean=image.mean, std=image.std))
    names = [cell.split() for cell in df.images.fillna('')]
    vectors = encoder.embed([streams.CLIPS/'images'/name for row in names for name in row])[0]['image']
    rows = np.repeat(np.arange(len(df)), [len(row) for row in names])
    means = np.zeros((len(df), vectors.shape[1]), np.float32)
    np.add.at(means, rows, vectors)
    return means / np.maximum(np.bincount(rows, minlength=len(df)), 1)[:, None]


def make_cheap(work: Path):
    "The cheap ways' predictions, unless they are there."
    df = streams.items()
    for way in CHEAP:
        if all((work/f'{way} 0 {fold}.npz').exists() for fold in FOLDS): continue
        features = None if way == WORDS else frozen_features(way, work)
        for fold in FOLDS:
            if way == WORDS: ids, logits, classes = streams.words_and_characters(fold)
            else:
                is_train, is_valid = ((df.fold != fold) & df.category.notna()).to_numpy(), df.fold == fold
                model = make_pipeline(StandardScaler(), LogisticRegression(C=.003, max_iter=2000,
                                                                           class_weight='balanced'))
                model.fit(features[is_train], df.category[is_train])
                ids, classes = df.item_id[is_valid].to_numpy(), model.classes_
                logits = np.log(model.predict_proba(features[is_valid]) + 1e-9)
            np.savez(work/f'{way} 0 {fold}.npz', ids=ids.astype(str), logits=logits,
                     classes=classes.astype(str))


def held_out(way, seed, folders) -> OutOfFold | None:
    "The predictions of a way (without randomness: of its one seed); None where a fold is missing."
    df = streams.items().dropna(subset='category')
    classes = sorted(df.category.unique())
    for folder in folders:
        logits = streams.read(way, 0 if way in CHEAP else seed, folder)
        if logits is None: continue
        trained_on = {fold: set(df.item_id[df.fold != fold].astype(str)) for fold in FOLDS}
        targets = pd.Categorical(df.category, classes).codes.astype(int)
        return OutOfFold(df.item_id.to_numpy(), normalized(logits), classes, targets, df.fold.to_numpy(),
                         trained_on)
    return None


def fixed_boost(part, form, strength):
    "A boost of given strength; the classes are counted on the other folds."
    def choose_and_apply(rows, held):
        counts = np.bincount(part.targets[rows], minlength=len(part.classes))
        return ClassBoost(form, strength, counts)(part.probabilities[held])
    return part.with_probabilities(cross_fitted(part.folds, choose_and_apply))


def best_alone(parts):
    "Each fold by the way that was best on the others."
    def choose_and_apply(rows, held):
        best = max(parts, key=lambda part: part.take(rows).macro_f1)
        return best.probabilities[held]
    return parts[0].with_probabilities(cross_fitted(parts[0].folds, choose_and_apply))


def boosts(part):
    "Each boost of one way's (or blend's) predictions: name -> `OutOfFold`."
    return {'boost inverse, strength 1': fixed_boost(part, 'inverse', 1.),
            'boost inverse, strength found': find_boost(part, 'inverse').heldout,
            'boost power, strength found': find_boost(part, 'power').heldout}


def blends(parts):
    "Each way to blend: name -> `OutOfFold`."
    def equal(how):
        probabilities = blend_probabilities([part.probabilities for part in parts], how=how)
        return parts[0].with_probabilities(probabilities)
    found = {f'equal, {how}': equal(how) for how in ('probabilities', 'logits')}
    for how in ('probabilities', 'logits'):
        for metric in ('log_loss', 'macro_f1'):
            found[f'found for {metric}, {how}'] = find_blend(parts, metric, how).heldout
    return found


def interval(ours: list, theirs: list, draws=2000):
    "The mean difference in macro-F1 over seeds, and its 95% interval by resampling items."
    return streams.interval(ours[0].targets, [each.predicted for each in ours],
                            [each.predicted for each in theirs], draws)


def measure(ways, seeds, folders, models, pairs=False) -> pd.DataFrame:
    "All comparisons of the ways that are there."
    rows, by_case = [], {}

    def note(case, base, seed, found, other): by_case.setdefault((case, base), {})[seed] = found, other
    for seed in seeds:
        parts = {way: held_out(way, seed, folders) for way in ways}
        parts = {way: part for way, part in parts.items() if part is not None}
        if len(parts) < 2 or (seed and set(parts) <= set(CHEAP)): continue
        for way, part in parts.items():
            if way in CHEAP and seed: continue
            for name, found in boosts(part).items(): note(f'{way}: {name}', way, seed, found, part)
        today = held_out(streams.TODAY, seed, folders)
        sets = [*(combinations(parts, 2) if pairs else ()), *([tuple(parts)] if len(parts) > 2 else [])]
        for names in sets:
            if set(names) <= set(CHEAP) and seed: continue
            chosen, label = [parts[name] for name in names], ' + '.join(names)
            alone, mixed = best_alone(chosen), blends(chosen)
            for name, found in mixed.items():
                note(f'{label}: {name}', 'best alone', seed, found, alone)
                if not name.startswith('equal, l'):
                    note(f'{label}: {name}', 'equal, logits', seed, found, mixed['equal, logits'])
            for name, found in boosts(mixed['equal, logits']).items():
                bases = {'equal, logits': mixed['equal, logits'], 'best alone': alone, streams.TODAY: today}
                for base, other in bases.items():
                    if other is not None: note(f'{label}: equal, logits: {name}', base, seed, found, other)
            for model in models if len(names) == len(parts) else ():
                found = stack_models(chosen, model).heldout
                note(f'{label}: stacked by {model}', 'equal, logits', seed, found, mixed['equal, logits'])
        print(f'seed {seed}: {len(parts)} ways', flush=True)
    for (case, base), of_seed in by_case.items():
        ours, theirs = ([pair[side] for pair in of_seed.values()] for side in (0, 1))
        difference, low, high = interval(ours, theirs)
        rows.append({'case': case, 'compared with': base, 'seeds': len(ours),
                     'macro_f1': np.mean([each.macro_f1 for each in ours]),
                     'of base': np.mean([each.macro_f1 for each in theirs]),
                     'difference': difference, 'low': low, 'high': high})
    return pd.DataFrame(rows).round(4)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work', type=Path, nargs='+', default=[Path('streams-work')],
                        help='folders of predictions; the cheap ways are written to the last')
    parser.add_argument('--ways', nargs='*', default=[*CHEAP, *(way for way in streams.WAYS if way != WORDS)])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--pairs', action='store_true', help='also each two ways together')
    parser.add_argument('--models', nargs='*', default=['logistic'], choices=list(MODELS))
    parser.add_argument('--out', type=Path, help='CSV to write')
    args = parser.parse_args()
    args.work[-1].mkdir(exist_ok=True, parents=True)
    make_cheap(args.work[-1])
    table = measure(args.ways, range(args.seeds), args.work, args.models, args.pairs)
    print(table.to_string(index=False))
    if args.out: table.assign(command='python tests/bench/few_labels.py').to_csv(args.out, index=False)


if __name__ == '__main__': main()
