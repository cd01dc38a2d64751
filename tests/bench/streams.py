"""What streams and pretraining are worth on clips: macro-F1 of items with frames and three noisy texts.

Every way is trained on four folds and judged on the fifth, five times over; figures are of all 687 labelled
items together, each predicted by a model that never saw its label. Pretraining reads all 1,640 items, without
labels, once for each seed. Differences are to late fusion whose pictures are trained at 64 pixels (the size
of the drawings), to late fusion of the same stored features, and to the way named in `compared_with`: of a
pretrained one the same without pretraining, of a trick or of an objective left out the pretrained one; paired
by item, with a 95% interval by resampling items.

`python tests/bench/streams.py --out nbs/streams.csv` (hours). What was done already is read from --work; the
class that each way and seed gave to each item is kept in `streams_predictions.csv` beside the table, and is
not found again.
"""
import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline, make_union

from fastmatch.callback.adversarial import FGM, PGD
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.half import has_matrix_units
from fastmatch.core import seed_everything
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.learner import classify_learner, pretrain_learner
from fastmatch.losses import CrossEntropy
from fastmatch.models import FrameFeatures
from fastmatch.models.fusion import DoubleStream

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'
CLIPS = DATA/'clips'
TEXTS = ['title', 'asr', 'ocr']
LIMITS = {'title': 24, 'asr': 24, 'ocr': 24}  # tokens; the longest texts have eleven words
EPOCHS, RATE = 10, 1e-3
PRETRAIN_EPOCHS, PRETRAIN_RATE = 8, 1e-3
ALL = {'mlm': .8, 'mfm': .33, 'itm': 1., 'itc': 1.}
BASE, TODAY = 'late fusion', 'late fusion, pictures trained'
# what a fine-tuning may have beside the plain one
TRICKS = {'FGM': dict(cbs=lambda: [FGM(.5)]), 'PGD': dict(cbs=lambda: [PGD()]),
          'EMA': dict(cbs=lambda: [EMA()]),
          # of the last epochs, not of the best ones: those would be chosen on the items that judge
          'SWA': dict(cbs=lambda: [SWA(.5)]), 'contrast kept': dict(objectives={'itc': .1}),
          'smoothing': dict(loss_func=lambda: CrossEntropy(label_smoothing=.1))}
# further ways to pretrain: longer, on more items, faster, with more masked
PRETRAININGS = {'three times as long': dict(epochs=24), 'with emoji listings': dict(extra=True),
                'new parts faster': dict(lr_mult={'image': .05, 'title': .05, 'fusion': 1., 'head': 1.}),
                '30% masked': dict(options={'mlm': {'rate': .3}, 'mfm': {'rate': .3}})}


def items() -> pd.DataFrame:
    "All items; `category` is missing for those without a label."
    return pd.read_csv(CLIPS/'items.csv')


def with_emoji_listings() -> pd.DataFrame:
    "All items and 2,100 listings of other drawings with one picture and a title each; files with folders."
    clips = items().assign(images=lambda df: [
        None if files != files else ' '.join(f'clips/images/{file}' for file in files.split())
        for files in df.images])
    listings = pd.read_csv(DATA/'emoji'/'listings.csv')
    return pd.concat([clips, pd.DataFrame({
        'item_id': listings.posting_id, 'images': 'emoji/images/' + listings.image, 'title': listings.title,
        'fold': 1})], ignore_index=True)


def features(folder) -> FrameFeatures:
    "Of frames: an EfficientNet-Lite0 that stands still, at 224 pixels."
    return FrameFeatures('tf_efficientnet_lite0', size=224, method='pad', folder=folder)


def loaders(fold, frame_features=None, bs=32, table=None, folder=CLIPS/'images', **options):
    columns = dict(id_col='item_id', image_col='images', title_col=TEXTS, label_col='category',
                   fold_col='fold')
    return ClassifyDataLoaders.from_df(
        items() if table is None else table, folder, valid_fold=fold, bs=bs, phash=False, num_workers=0,
        **{**columns, 'frames': 5, 'frame_features': frame_features, 'max_len': LIMITS, **options})


def fitted(learn, epochs=EPOCHS):
    "A learner after its training, in bfloat16 where the processor has it."
    if has_matrix_units(): learn.to_bf16()
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(epochs, RATE)
    return learn


def words_and_characters(fold):
    "TF-IDF of words and characters of all three texts, and logistic regression."
    df = items()
    texts = df[TEXTS].fillna('').agg(' '.join, axis=1)
    is_train = (df.fold != fold) & df.category.notna()
    vectors = make_union(TfidfVectorizer(), TfidfVectorizer(analyzer='char_wb', ngram_range=(3, 5)))
    model = make_pipeline(vectors, LogisticRegression(C=30, class_weight='balanced', max_iter=1000))
    model.fit(texts[is_train], df.category[is_train])
    is_valid = df.fold == fold
    probabilities = model.predict_proba(texts[is_valid])
    return df.item_id[is_valid].to_numpy(), np.log(probabilities + 1e-9), model.classes_


def predicted(learn):
    "(ids, log-probabilities (n,c), classes) of the validation items."
    table = learn.predictions()
    classes = list(learn.dls.vocab)
    return table['item_id'].to_numpy(), np.log(table[classes].to_numpy() + 1e-9), np.array(classes)


def pretrained_state(seed, fusion, objectives, work: Path, how=None):
    "The weights of a fusion after pretraining on all items; trained once, then read."
    name = '-'.join([fusion, *(f'{key}{weight:g}' for key, weight in objectives.items())])
    if how is not None: name += f' {how}'
    file = work/f'pretrained {name} {seed}.pt'
    if not file.exists():
        seed_everything(seed)
        options = {'epochs': PRETRAIN_EPOCHS, 'extra': False, **PRETRAININGS.get(how, {})}
        data = dict(table=with_emoji_listings(), folder=DATA) if options.pop('extra') else {}
        epochs = options.pop('epochs')
        dls = loaders(0, features(work/'features'), bs=64, **data)
        learn = pretrain_learner(dls, fusion=fusion_of(fusion), objectives=objectives, **options)
        if has_matrix_units(): learn.to_bf16()
        start = time.time()
        with learn.no_bar(): learn.fit_one_cycle(epochs, PRETRAIN_RATE)
        print(f'pretrained {name}, seed {seed}: {time.time() - start:.0f} s', flush=True)
        torch.save(learn.encoder_state(), file)
    return torch.load(file)


def fusion_of(name): return partial(DoubleStream, queries='text') if name == 'double by words' else name


def stream(seed, fold, work, fusion, objectives=None, trick=None, how=None):
    "A stream, bare or pretrained, fine-tuned with or without a trick."
    state = None if objectives is None else pretrained_state(seed, fusion, objectives, work, how)
    seed_everything(seed)
    options = {name: option() if callable(option) else option
               for name, option in TRICKS.get(trick, {}).items()}
    dls = loaders(fold, features(work/'features'), seed=seed)
    learn = classify_learner(dls, fusion=fusion_of(fusion), **options)
    if state is not None: learn.load_encoder_state(state)
    return predicted(fitted(learn))


def by_learner(seed, fold, work, **options):
    "A learner without a fusion."
    seed_everything(seed)
    given = dict(frame_features=features(work/'features'), seed=seed)
    return predicted(fitted(classify_learner(loaders(fold, **{**given, **options}))))


def trained_pictures(seed, fold, work):
    "Late fusion with pictures trained beside the text, at 64 pixels, the size of the drawings."
    from fastai.vision.augment import Resize
    seed_everything(seed)
    dls = loaders(fold, frames=4, item_tfms=Resize(64), max_len=64, seed=seed)
    return predicted(fitted(classify_learner(dls), 8))


def without(objective): return {name: weight for name, weight in ALL.items() if name != objective}


WAYS = {
    'words and characters': lambda seed, fold, work: words_and_characters(fold),
    TODAY: trained_pictures,
    'text': partial(by_learner, image_col=None, frames=1, frame_features=None),
    'frames': partial(by_learner, title_col=None, max_len=64),
    BASE: by_learner,
    **{fusion: partial(stream, fusion=fusion) for fusion in ('single', 'double', 'double by words')},
    **{f'{fusion}, pretrained': partial(stream, fusion=fusion, objectives=ALL)
       for fusion in ('single', 'double')},
    **{f'single, pretrained without {name}': partial(stream, fusion='single', objectives=without(name))
       for name in ALL},
    **{f'single, pretrained, {trick}': partial(stream, fusion='single', objectives=ALL, trick=trick)
       for trick in TRICKS},
    'double, pretrained, EMA': partial(stream, fusion='double', objectives=ALL, trick='EMA'),
    **{f'double, pretrained, {how}': partial(stream, fusion='double', objectives=ALL, how=how)
       for how in PRETRAININGS}}
# made of the ways above: (ways, whether probabilities are averaged, in place of their logarithms)
BLENDS = {
    'single + double, probabilities': (['single, pretrained', 'double, pretrained'], True),
    'single + double, logits': (['single, pretrained', 'double, pretrained'], False),
    'single + double, bare, logits': (['single', 'double'], False),
    'single + double, EMA, logits': (['single, pretrained, EMA', 'double, pretrained, EMA'], False),
    'single + double + late fusion, EMA': (
        ['single, pretrained, EMA', 'double, pretrained, EMA', BASE], False),
    'single + double + late fusion': (['single, pretrained', 'double, pretrained', BASE], False),
    'single + double + late fusion + words': (
        ['single, pretrained', 'double, pretrained', BASE, 'words and characters'], False),
    'late fusion + words': ([BASE, 'words and characters'], False)}
# what a way is compared with, beside late fusion
COMPARED_WITH = {
    'single, pretrained': 'single', 'double, pretrained': 'double',
    'single + double, logits': 'single + double, bare, logits',
    **{way: 'single, pretrained' for way in WAYS if way.startswith('single, pretrained')
       and way != 'single, pretrained'},
    'double, pretrained, EMA': 'double, pretrained',
    'single + double, EMA, logits': 'single + double, logits',
    **{f'double, pretrained, {how}': 'double' for how in PRETRAININGS}}


def run(way, seed, fold, work: Path):
    "Train and predict one fold, unless that was done."
    file = work/f'{way} {seed} {fold}.npz'
    if file.exists(): return
    start = time.time()
    ids, logits, classes = WAYS[way](seed, fold, work)
    np.savez(file, ids=ids.astype(str), logits=logits, classes=classes.astype(str))
    print(f'{way}, seed {seed}, fold {fold}: {time.time() - start:.0f} s', flush=True)


def read(way, seed, work: Path):
    "Log-probabilities (687, 47) of all labelled items by way and seed; None where a fold is missing."
    df = items().dropna(subset='category')
    classes = sorted(df.category.unique())
    rows = []
    for fold in range(5):
        file = work/f'{way} {seed} {fold}.npz'
        if not file.exists(): return None
        saved = np.load(file)
        table = pd.DataFrame(saved['logits'], saved['ids'], saved['classes'])
        rows.append(table.reindex(columns=classes, fill_value=np.log(1e-9)))
    return pd.concat(rows).loc[df.item_id].to_numpy()


def logits_of(way, seed, work):
    "Of a way or a blend."
    if way not in BLENDS: return read(way, seed, work)
    ways, by_probabilities = BLENDS[way]
    parts = [read(each, 0 if each == 'words and characters' else seed, work) for each in ways]
    if any(part is None for part in parts): return None
    return np.log(np.mean(np.exp(parts), 0)) if by_probabilities else np.mean(parts, 0)


def macro_f1(truth, predictions): return f1_score(truth, predictions, average='macro', zero_division=0)


def macro_f1_of(targets, predicted, times, n_classes):
    "Macro-F1 of items that are each counted so many times, as scikit-learn has it for repeated rows."
    is_hit = targets == predicted
    hits = np.bincount(targets[is_hit], times[is_hit], n_classes)
    sizes = np.bincount(targets, times, n_classes) + np.bincount(predicted, times, n_classes)
    return float(np.sum(2 * hits / np.maximum(sizes, 1)) / np.sum(sizes > 0))


def interval(truth, ours: list, theirs: list, draws=1000):
    "Mean difference in macro-F1 over seeds, and its 95% interval by resampling items."
    rng, n_items = np.random.default_rng(0), len(truth)
    n_classes = 1 + max(array.max() for array in (truth, *ours, *theirs))

    def difference(times):
        return np.mean([macro_f1_of(truth, one, times, n_classes)
                        - macro_f1_of(truth, other, times, n_classes) for one, other in zip(ours, theirs)])
    drawn = [difference(np.bincount(rng.integers(n_items, size=n_items), minlength=n_items))
             for _ in range(draws)]
    return difference(np.ones(n_items)), *np.quantile(drawn, [.025, .975])


def predictions(seeds, work, kept: Path | None = None) -> pd.DataFrame:
    """The class of each labelled item as each way and seed says; rows are items, columns 'way, seed' in the
    order of the ways. What is not in `work` is taken from a file that was kept."""
    df = items().dropna(subset='category')
    classes = np.array(sorted(df.category.unique()))
    known = pd.DataFrame() if kept is None or not kept.exists() else pd.read_csv(kept, index_col=0)
    columns = {}
    for way in [*WAYS, *BLENDS]:
        for seed in seeds:
            name, logits = f'{way}, seed {seed}', logits_of(way, seed, work)
            if logits is not None: columns[name] = classes[logits.argmax(1)]
            elif name in known: columns[name] = known[name].loc[df.item_id].to_numpy()
    return pd.DataFrame(columns, index=df.item_id)


def summary(seeds, table: pd.DataFrame, draws=1000) -> pd.DataFrame:
    "A row for each way of which all folds of a seed are there; `table` is made by `predictions`."
    df = items().dropna(subset='category')
    classes = sorted(df.category.unique())
    truth = pd.Categorical(df.category, classes).codes
    found = {way: {seed: pd.Categorical(table[f'{way}, seed {seed}'], classes).codes for seed in seeds
                   if f'{way}, seed {seed}' in table} for way in [*WAYS, *BLENDS]}
    rows = []
    for way, said in found.items():
        if not said: continue
        differences = {}
        for column, base in (('over_today', TODAY), ('over_late', BASE),
                             ('over_compared', COMPARED_WITH.get(way))):
            if not found.get(base): continue
            # a way without randomness has one seed, which is compared with each of the others
            shared = [seed for seed in found[base] if seed in said] or list(found[base])
            ours = [said.get(seed, next(iter(said.values()))) for seed in shared]
            difference, low, high = interval(truth, ours, [found[base][seed] for seed in shared], draws)
            differences |= {column: difference, f'{column}_low': low, f'{column}_high': high}
        scores = [macro_f1(truth, each) for each in said.values()]
        accuracy = np.mean([accuracy_score(truth, each) for each in said.values()])
        rows.append({'way': way, 'macro_f1': np.mean(scores), 'accuracy': accuracy, 'seeds': len(scores),
                     **differences, 'compared_with': COMPARED_WITH.get(way)})
    return pd.DataFrame(rows).round(4)


def arguments(description, ways, work):
    "Of the command line of a bench over ways, seeds and folds; makes the folder of what was done already."
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('ways', nargs='*', help=f'of {list(ways)}; default all')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--folds', type=int, nargs='*', default=range(5))
    parser.add_argument('--work', type=Path, default=Path(work), help='what was done already')
    parser.add_argument('--out', type=Path, help='CSV to write')
    args = parser.parse_args()
    args.work.mkdir(exist_ok=True, parents=True)
    return args


def main():
    args = arguments(__doc__, WAYS, 'streams-work')
    kept = args.out and args.out.with_name(f'{args.out.stem}_predictions.csv')
    known = predictions(range(args.seeds), args.work, kept)
    for seed in range(args.seeds):
        for way in args.ways or WAYS:
            if way == 'words and characters' and seed or f'{way}, seed {seed}' in known: continue
            for fold in args.folds: run(way, seed, fold, args.work)
    known = predictions(range(args.seeds), args.work, kept)
    table = summary(range(args.seeds), known)
    print(table.to_string())
    if args.out is None: return
    table.assign(command='python tests/bench/streams.py --out nbs/streams.csv').to_csv(args.out, index=False)
    known.to_csv(kept)


if __name__ == '__main__': main()
