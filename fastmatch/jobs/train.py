"The main job: a table of listings in; matches, a decision rule and figures on groups nobody saw out."
import json
import math
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from fastai.callback.core import Callback
from fastai.vision.augment import Resize, ResizeMethod
from fastcore.meta import delegates
from tqdm.auto import tqdm

from ..core import InputError, atomic_folder, check_device, check_new_folder, package_version, seed_everything
from ..data.augment import augs
from ..data.block import MatchDataLoaders
from ..data.columns import Columns
from ..learner import MatchLearner, match_learner
from ..match.candidates import candidates
from ..match.embeddings import Embeddings
from ..match.judge.heldout import alone_heldout, choose_rule, heldout, heldout_fused, paired
from ..match.matches import Matches
from ..match.rule import Rule
from ..matcher import Matcher, check_blanks
from ..matcher.folder import CONTENT
from ..metrics import MAPAtR, RecallAt, RowF1
from ..report import write_report

UNTRAINABLE = ('tfidf', 'phash')  # modalities without an encoder: training can't change them
PACKAGES = ('fastmatch', 'fastai', 'torch', 'timm', 'transformers', 'faiss-cpu', 'scikit-learn', 'numpy')


class Stages:
    "Says which stage runs and keeps the seconds each took."
    def __init__(
        self,
        echo,  # Called with a line of text
        seconds=None,  # Where to keep them; default a new dict
    ):
        self.echo, self.seconds = echo, {} if seconds is None else seconds

    @contextmanager
    def __call__(
        self,
        name: str,  # Key in `seconds`
        what: str,  # What is said
    ):
        self.echo(f'{what} ...')
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def judge(
    emb,  # `Embeddings` with groups of listings no encoder was trained on
    seed: int = 0,  # Of the halvings
    k: int = 50,  # Candidates of each modality
) -> tuple[dict, object, dict]:
    "Each modality alone and all fused, under the held-out protocol: ({row: `HeldOut`}, the candidates, the spaces)."
    emb.refuse_trained_on('judging a rule')
    if emb.groups is None: raise InputError('the listings have no groups: a rule is judged against the true ones')
    spaces = emb.spaces()
    rows = {name: heldout(o.search(min(k, len(emb))), emb.groups, seed=seed) for name, o in spaces.items()}
    cand = candidates(spaces, k=min(k, len(emb)))
    return {**rows, 'fused': heldout_fused(cand, emb.groups, seed=seed)}, cand, spaces


@dataclass
class Outcome:
    "What training and judging on one held-out fold gave."
    learn: MatchLearner  # The trained Learner
    emb: Embeddings  # Of the held-out listings
    table: dict  # Row -> `HeldOut`: 'alone', each modality, 'fused', and the untrained twins
    rule: Rule  # Chosen on all held-out listings
    matches: Matches  # Of the held-out listings
    seconds: dict  # Stage -> seconds
    seed: int  # Of the run
    settings: dict  # What the run was called with

    @property
    def gain(self):
        "Row F1 of the trained fusion over the untrained one, paired."
        return paired(self.table['fused'], self.table['untrained_fused'])

    def summary(self) -> dict:
        "What `summary.json` holds."
        dls = self.learn.dls
        return {'heldout': {k: v.summary() for k, v in self.table.items()}, 'gain': {'fused over untrained_fused': self.gain.to_dict()},
                'rule': self.rule.to_dict(), 'seconds': self.seconds, 'seed': self.seed, 'settings': self.settings,
                'listings': {'train': len(dls.train_df), 'heldout': len(self.emb), 'skipped': dls.skipped.to_dict('records'), 'moved': len(dls.moved)},
                'versions': {o: package_version(o) for o in PACKAGES}}


def train_and_judge(
    df,  # Listings with groups: DataFrame
    path,  # Folder of the images
    columns: Columns | None = None,  # Of the table, as for `MatchDataLoaders.from_df`
    valid_fold: int = 0,  # Fold held out: neither trained on nor looked at before the rule is chosen
    n_folds: int = 5,  # Folds to make where none are given
    image_arch: str = 'tf_efficientnet_lite0',  # Image encoder
    text_arch: str = 'all-MiniLM-L6-v2',  # Title encoder
    size: int = 104,  # Side of the images in pixels (larger is better and slower; here four GB and five minutes on two cores are enough)
    aug: str = 'colour',  # Augmentation preset
    epochs: int = 8,  # Rounds over the training listings
    lr: float | str = 2e-3,  # Learning rate, spread over the parameter groups by `LR_MULT`; 'auto' takes lr_find's valley
    bs: int = 64,  # Listings a batch
    sampler: str | None = None,  # As for `MatchDataLoaders.from_df`
    loss_func=None,  # Default `match_learner`'s
    seed: int = 0,  # Of weights, batches and halvings
    on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
    num_workers: int = 0,  # Processes that read images
    device: str | None = None,  # 'cpu', 'cuda', ...; default fastai's choice
    echo=print,  # Called with each line that tells how far it is
    **column_names,  # Single columns by keyword: `image_col`, `title_col`, ...
) -> Outcome:
    "Train on the other folds, search the held-out one, choose the rule and decide."
    if lr != 'auto' and not (isinstance(lr, (int, float)) and 0 < lr < math.inf): raise InputError(f"lr={lr!r}: give a number above 0, or 'auto'")
    for name, o, least in (('epochs', epochs, 1), ('size', size, 8), ('bs', bs, 2), ('n_folds', n_folds, 2), ('num_workers', num_workers, 0)):
        if o < least: raise InputError(f'{name}={o}: give {least} or more')
    if device is not None: check_device(device)
    columns = Columns.resolve(columns, column_names)
    stages = Stages(echo)
    seed_everything(seed)
    settings = dict(columns=columns.by_keyword(), image_arch=image_arch, text_arch=text_arch, size=size, aug=aug, epochs=epochs, lr=lr, bs=bs,
                    sampler=sampler, loss=repr(loss_func) if loss_func is not None else 'default', n_folds=n_folds,
                    valid_fold=valid_fold, num_workers=num_workers, device=device)
    with stages('data', f'reading {len(df)} listings'):
        dls = MatchDataLoaders.from_df(df, path, columns, valid_fold, seed=seed, bs=bs, on_error=on_error,
                                       sampler=sampler, item_tfms=Resize(size, method=ResizeMethod.Squish), batch_tfms=augs(aug),
                                       num_workers=num_workers, n_folds=n_folds, device=device)
        learn = match_learner(dls, image_arch, text_arch, loss_func, metrics=[RecallAt(1), MAPAtR(), RowF1()])
    # fastai leaves an incomplete batch out of an epoch
    if not len(dls.train): raise InputError(f'bs={bs}: only {len(dls.train_df)} listings to train on, not one batch; give a smaller one')
    echo(f'  {len(dls.train_df)} to train on, {len(dls.valid_df)} held out; {len(dls.skipped)} skipped, {len(dls.moved)} moved to keep groups together')
    with stages('untrained', 'embedding the held-out listings with untrained encoders'):
        untrained, *_ = judge(learn.embeddings(tta=True), seed)
    with stages('train', f'training {epochs} epochs'), learn.no_bar(), learn.no_mbar():
        learn.logger = _table_logger(learn, echo)
        if lr == 'auto': settings['lr'] = lr = _find_lr(learn, echo)
        learn.fit_flat_cos(epochs, lr, cbs=StepBar(lr))
    with stages('embed', 'embedding the held-out listings'): emb = learn.embeddings(tta=True)
    with stages('rule', 'choosing the rule'):
        rows, cand, spaces = judge(emb, seed)
        rule = choose_rule(cand, emb.groups)
        matches = rule.apply(spaces)
    twins = {f'untrained_{k}': v for k, v in untrained.items() if k not in UNTRAINABLE}
    return Outcome(learn, emb, {'alone': alone_heldout(emb.groups), **rows, **twins}, rule, matches, stages.seconds, seed, settings)


@delegates(train_and_judge)
def run(
    df,  # Listings with groups: DataFrame
    path,  # Folder of the images
    out,  # Folder to write: there whole or not at all
    catalogue: str = 'all',  # What the matcher knows: 'all' listings, or the 'heldout' ones
    force: bool = False,  # Replace an earlier result in `out`
    **kwargs,
) -> dict:  # What `summary.json` holds
    "Train, judge and decide on the held-out fold; write the matcher, `matches.csv` (held-out listings), `summary.json` and `report.html`."
    if catalogue not in ('all', 'heldout'): raise InputError(f"catalogue={catalogue!r}: choose 'all' or 'heldout'")
    # before the work: a folder that can't be written should cost no training run
    check_new_folder(out, is_result, force)
    echo, columns = kwargs.get('echo', print), Columns.resolve(kwargs.pop('columns', None), Columns.take_from(kwargs))
    if columns.id in df: check_blanks(df[columns.id].dropna().astype(str), columns.id)
    res = train_and_judge(df, path, columns, **kwargs)
    stages = Stages(echo, res.seconds)
    with stages('matcher', 'making the matcher'):
        info = {k: v for k, v in res.summary().items() if k in ('heldout', 'gain', 'seed', 'settings', 'listings')}
        if catalogue == 'all': m = res.learn.matcher(rule=res.rule, tta=True, info=info)
        else: m = Matcher(res.rule, res.emb, res.learn.encoder(tta=True), res.learn.dls.columns, info)
    summary = res.summary()
    with atomic_folder(out) as tmp:
        m.save(tmp)
        (tmp/'matches.csv').write_text(res.matches.to_frame(res.emb.ids).to_csv(index=False), encoding='utf-8')
        (tmp/'summary.json').write_text(json.dumps(summary, indent=2) + '\n', encoding='utf-8')
        # pictures of the result: should they fail, hours of training are still worth keeping
        try: write_report(res, tmp/'report.html')
        except Exception as e: echo(f'no report.html: {type(e).__name__}: {e}')
    return summary


def is_result(
    name: str,  # In a folder
) -> bool:
    "Whether `run` writes a file or folder of this name."
    return name in ('manifest.json', 'matches.csv', 'summary.json', 'report.html') or bool(CONTENT.fullmatch(name))


def _find_lr(learn, echo):
    "lr_find's suggestion; what it keeps on disk meanwhile goes where nobody trips over it."
    was = learn.path
    with tempfile.TemporaryDirectory() as folder:
        learn.path = Path(folder)
        lr = float(learn.lr_find(show_plot=False).valley)
    learn.path = was
    echo(f'  lr_find: learning rate {lr:.2g}')
    return lr


class StepBar(Callback):
    "One bar over the steps of an epoch, gone when it is done; where nobody looks at a terminal there is none. Ends a training whose loss is lost."
    def __init__(self, lr): self.lr = lr
    def before_train(self): self.bar = tqdm(total=len(self.dls.train), desc=f'epoch {self.epoch + 1}/{self.n_epoch}', leave=False, disable=None)
    def after_batch(self):
        if not self.training: return
        self.bar.update()
        if not torch.isfinite(self.loss): raise InputError(f'lr={self.lr}: the loss is {self.loss.item()} in epoch {self.epoch + 1}, batch {self.iter + 1}; lower the rate')
    def after_train(self): self.bar.close()


def _table_logger(learn, echo):
    "A logger that prints an epoch a line, without the notebook's bar."
    def log(o):
        if learn.epoch == 0: echo('  ' + ' '.join(f'{n:>11}' for n in learn.recorder.metric_names))
        echo('  ' + ' '.join(f'{v:>11}' if not isinstance(v, float) else f'{v:>11.4f}' for v in o))
    return log
