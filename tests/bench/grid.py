"""What a loss, an optimizer or a callback is worth: a grid's rows, each trained on the sample's pictures and
judged on products it never saw.

`python tests/bench/grid.py losses|optimizers|callbacks|parts [--seeds 0 1 2] [--only NAME ...] --out
nbs/losses.csv`

The regime is small on purpose, so that a run takes half a minute on one thread: pictures alone at the files'
own 64 px, two epochs (102 steps of 32 listings)
through ImageNet's EfficientNet-Lite0 whose shallow blocks stay still, the default optimizer and schedule; a
row says what it changes. Fold 0 is held out, the
rule is chosen on half of its products and scored on the other half, over ten halvings. With `--tune` fold 0
is left out altogether and fold 1 judged:
rates were chosen so. A row that the csv holds already is not run again.

`parts` are the callbacks again, on the 12 categories of electronic parts (fritzing) by title and description:
MiniLM trained for three epochs (about 60 steps of
32, 32 tokens each), macro-F1 of a fold held out; seed 0 holds out fold 0, and so on.
"""
# ruff: noqa: F403, F405
import argparse
import csv
import gc
import sys
import time
import warnings
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import FunctionType

# a script: its own checkout is what is measured
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import pandas as pd
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.schedule import SchedLin
from fastai.vision.augment import Resize, ResizeMethod
from scipy.stats import ttest_rel

from fastmatch.callback.adversarial import FGM, PGD
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.heads import MarginSchedule
from fastmatch.callback.mining import HardMining
from fastmatch.callback.saf import SAF
from fastmatch.callback.sharpness import ASAM, ESAM, SAM, LookSAM
from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.jobs.judge import judge_modalities
from fastmatch.layers.heads import CenterHead, CosineHead, TrackedHead
from fastmatch.learner import match_learner
from fastmatch.losses import *
from fastmatch.match import among_themselves
from fastmatch.optim import opt_func
from fastmatch.schedule import Still

ARCH = 'tf_efficientnet_lite0'
SIZE, BS, EPOCHS, LR = 64, 32, 2, 4e-3  # the rate: the best of 2e-3, 4e-3, 8e-3 on fold 1
STILL = ('conv_stem', 'bn1', 'blocks.0', 'blocks.1', 'blocks.2')  # a third of a step's cost
PARTS_EPOCHS = 3


class Way:
    "How a row differs from the default."
    def __init__(
        self,
        lr: float = LR,  # Rate, spread over the parameter groups as ever
        fit: str | None = 'fit_flat_cos',  # The Learner's method that trains; None: the encoder as it comes
        sampler: str | None = None,  # 'pk' for losses over pairs: 16 products x 2 listings a batch
        **learner,  # For `match_learner`; a function as `loss_func` is called with the dataloaders
    ):
        self.lr, self.fit, self.sampler, self.learner = lr, fit, sampler, learner


def pairs(loss, **kwargs): return Way(sampler='pk', loss_func=loss, **kwargs)
def optimizer(name, lr, fit='fit_flat_cos', **kwargs): return Way(lr, fit, opt_func=opt_func(name, **kwargs))


SCALE = 20  # the default's, for groups of two or three
LOSSES = {
    'default': Way(),  # ArcFace, m=.3, s=20
    'untrained': Way(fit=None),
    'softmax (NormFace)': Way(loss_func=NormSoftmax(SCALE)),
    'ArcFace m=.5': Way(loss_func=ArcFace(0.5, SCALE)),
    'CosFace': Way(loss_func=CosFace(0.2, SCALE)),
    'SphereFace': Way(loss_func=SphereFace(1.35, SCALE)),
    'combined': Way(loss_func=CombinedMargin(1.0, 0.2, 0.1, SCALE)),
    'AdaCos': Way(loss_func=AdaCos(), head_func=TrackedHead),
    'CurricularFace': Way(loss_func=CurricularFace(0.3, SCALE), head_func=TrackedHead),
    'sub-centers k=3': Way(head_func=partial(CosineHead, k=3)),
    'class-size margin': Way(
        loss_func=lambda dls: ArcFace(class_margins(class_counts(dls), 0.4, 0.2), SCALE)
    ),
    'margin ramp': Way(cbs=MarginSchedule(SchedLin(0.1, 0.5))),
    'ArcFace + triplet': pairs(SumLoss({'softmax': ArcFace(0.3, SCALE), 'triplet': Triplet(0.2)})),
    'triplet': pairs(Triplet(0.2)),
    'SupCon': pairs(SupCon(0.1)),
    'multi-similarity': pairs(MultiSimilarity(base=0.3)),  # on fold 1 better than the paper's .5
    'contrastive': pairs(Contrastive(1.3)),  # on fold 1 better than .8 and 1
    'ArcFace + center': Way(
        loss_func=SumLoss({'softmax': ArcFace(0.3, SCALE), 'center': CenterLoss()}, {'center': 1e-3}),
        head_func=CenterHead,
    ),
}
# rates by mAP@R on fold 1, of three to five a factor of three apart; where fold 1 was not asked, the
# sibling's
RANGER_LR = 3.6e-2  # ranger's and its kin's
OPTIMIZERS = {
    'default': Way(),  # adamw
    'ranger': optimizer('ranger', RANGER_LR),
    'ranger, one cycle': optimizer('ranger', RANGER_LR, 'fit_one_cycle'),
    'ranger_nogc': optimizer('ranger_nogc', RANGER_LR),
    'rangeradabelief': optimizer('rangeradabelief', RANGER_LR),
    'rangeradabelief_nogc': optimizer('rangeradabelief_nogc', RANGER_LR),
    'radam': optimizer('radam', RANGER_LR),
    'adabelief': optimizer('adabelief', 4e-3),
    'sgd_momentum': optimizer('sgd_momentum', .1),
    'sgd_nesterov': optimizer('sgd_nesterov', .1),
    'rmsprop': optimizer('rmsprop', 4e-3),
    # the default is 1e-6
    **{f'ranger eps={eps:g}': optimizer('ranger', RANGER_LR, eps=eps) for eps in (1, .1, .01, 1e-4)},
}


def callbacks(*names):
    "Each callback with its defaults; `names`: of the weights that FGM and PGD move."
    rows = {
        'SAM': SAM(),
        'ASAM': ASAM(scale_all=True),
        'LookSAM': LookSAM(),
        'ESAM': ESAM(),
        'SAF (experimental)': SAF(back=1),
        'FGM': FGM(names=names),
        'PGD': PGD(names=names),
        'EMA': EMA(),
        'SWA, last half': SWA(0.5),
        'hard half': HardMining(0.5),
    }
    return {'default': Way(), **{name: Way(cbs=callback) for name, callback in rows.items()}}


GRIDS = {
    'losses': LOSSES,
    'optimizers': OPTIMIZERS,
    'callbacks': callbacks('blocks.3.0.'),
    'parts': callbacks('word_embeddings'),
}


class TrainOnly(Callback):
    "Leaves validation out: a row is scored once, after its last step."
    order = -100
    def before_validate(self): raise CancelValidException


def listings(tune: bool = False, df=None):
    "The sample's table (or `df`) and the fold to judge on."
    if df is None: df = pd.read_csv(demo_path()/'listings.csv')
    return (df[df.fold != 0], 1) if tune else (df, 0)


def measure(
    way: Way,
    seed: int,  # Of weights, batches and halvings
    tune: bool = False,  # Judge on fold 1, without fold 0
    size: int = SIZE,
    epochs: int = EPOCHS,
    arch: str = ARCH,
    df=None,  # Listings; default the sample's
    **kwargs,  # For `match_learner`
) -> dict:
    """Train one row with one seed: its figures on the held-out fold, and the minutes of CPU that training
    took."""
    seed_everything(seed)
    # callbacks remember: each run gets its own
    way, (df, fold) = deepcopy(way), listings(tune, df)
    dls = MatchDataLoaders.from_df(
        df,
        demo_path()/'images',
        text_col=None,
        fold_col='fold',
        valid_fold=fold,
        seed=seed,
        sampler=way.sampler,
        item_tfms=Resize(size, method=ResizeMethod.Squish),
        batch_tfms=augs('colour'),
        bs=BS,
        num_workers=0,
        phash=False,
    )  # the sample's folds keep equal pictures together
    if isinstance(way.learner.get('loss_func'), FunctionType):
        way.learner['loss_func'] = way.learner['loss_func'](dls)
    learn = match_learner(dls, arch, metrics=[], **way.learner, **kwargs)
    still = [Still(*(f'encoders.image.body.{block}' for block in STILL))] if arch == ARCH else []
    start = time.process_time()
    if way.fit:
        with learn.no_bar(), learn.no_logging():
            getattr(learn, way.fit)(epochs, way.lr, cbs=[TrainOnly(), *still])
    minutes = (time.process_time() - start) / 60
    summary = judge_modalities(among_themselves(learn.embeddings()), seed)['image'].summary()
    scores = {score: summary[score] for score in ('recall_at_1', 'row_f1', 'map_at_r')}
    return {**scores, 'minutes': round(minutes, 4)}


def measure_parts(
    way: Way,
    seed: int,  # Of weights and batches, and the fold held out
    epochs: int = PARTS_EPOCHS,
    df=None,  # Parts with a category; default all
    lr: float = 2e-3,  # In place of the way's: `labels.py`'s
    **kwargs,  # For `labels.learner`
) -> dict:
    """Train one row with one seed on parts' texts: macro-F1 on the fold held out, and the minutes of CPU that
    training took."""
    from tests.bench.labels import learner, parts, score
    way, df = deepcopy(way), parts() if df is None else df
    learn = learner(df, seed, fn_col=None, seed=seed, metrics=[], **way.learner, **{'max_len': 32, **kwargs})
    start = time.process_time()
    with learn.no_bar(), learn.no_logging(): getattr(learn, way.fit)(epochs, lr, cbs=TrainOnly())
    minutes, names = (time.process_time() - start) / 60, sorted(df.category.unique())
    probabilities = learn.predictions()[names].to_numpy()
    macro_f1 = score(df[df.fold == seed], probabilities, names)
    return {'macro_f1': round(macro_f1, 5), 'minutes': round(minutes, 4)}


def done(out: Path) -> set:
    "The (name, seed) that the csv holds."
    if not out.exists(): return set()
    return {(row['name'], int(row['seed'])) for row in csv.DictReader(out.open(encoding='utf-8'))}


def add(out: Path, row: dict):
    "Append a row; the first writes the heading."
    is_new = not out.exists()
    with out.open('a', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(row))
        if is_new: writer.writeheader()
        writer.writerow(row)


SHORT = {'recall_at_1': 'recall@1', 'row_f1': 'row F1', 'map_at_r': 'mAP@R', 'macro_f1': 'macro-F1'}


def worth(
    path,  # A grid's csv
    level: float = .95,  # Of the intervals
):  # DataFrame, a row a name in the csv's order
    """Mean and standard error over the seeds, what a row gains over the default with the same seeds
    (Student's interval of pairs), and its time against it."""
    df, rows = pd.read_csv(path), {}
    scores = {score: SHORT.get(score, score) for score in df.columns.drop(['name', 'seed', 'minutes'])}
    pivots = {value: df.pivot(index='seed', columns='name', values=value) for value in (*scores, 'minutes')}
    minutes = pivots['minutes']
    for name in df.name.unique():
        row = {'seeds': int(minutes[name].count())}
        for score, short in scores.items():
            by_seed = pivots[score]
            row |= {short: by_seed[name].mean(), f'{short} s.e.': by_seed[name].sem()}
            if name == 'default': continue
            ours, default = by_seed[[name, 'default']].dropna().to_numpy().T
            low = high = float('nan')
            if len(ours) > 1: low, high = ttest_rel(ours, default).confidence_interval(level)
            row |= {f'{short} gain': (ours - default).mean(), f'{short} low': low, f'{short} high': high}
        rows[name] = {**row, 'time': (minutes[name] / minutes['default']).median()}
    return pd.DataFrame(rows).T.infer_objects()


def main(arguments=None):
    "Run what the csv lacks, all rows of a seed before the next seed."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('grid', choices=GRIDS)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--only', nargs='+', metavar='NAME', help='rows by name; default all')
    parser.add_argument('--lr', type=float, nargs='+',
                        help='with --tune: rates to try in place of the rows\' own')
    parser.add_argument('--tune', action='store_true', help='judge on fold 1, without fold 0')
    parser.add_argument('--out', type=Path, required=True)
    options = parser.parse_args(arguments)
    grid = GRIDS[options.grid]
    if unknown := set(options.only or []) - set(grid):
        parser.error(f'no rows {sorted(unknown)}: there are {", ".join(grid)}')
    if options.tune and options.grid == 'parts': parser.error('--tune is of the sample')
    if options.lr and not options.tune:
        parser.error('--lr goes with --tune: no rate is chosen on the fold that is reported')
    rows = {}
    for name in options.only or grid:
        for lr in options.lr or [None]:
            rows[name if lr is None else f'{name} lr={lr:g}'] = way = deepcopy(grid[name])
            if lr is not None: way.lr = lr
    for seed in options.seeds:
        for name, way in rows.items():
            if (name, seed) in done(options.out): continue
            of_parts = options.grid == 'parts'
            figures = measure_parts(way, seed) if of_parts else measure(way, seed, options.tune)
            row = {'name': name, 'seed': seed, **figures}
            add(options.out, row)
            print(row, flush=True)
            # a Learner and its callbacks point at each other: without this every model stays until the
            # collector happens to run
            gc.collect()


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    main()
