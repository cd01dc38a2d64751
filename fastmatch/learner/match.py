"A fastai Learner for matching: encoders and heads from names, scores on unseen groups, embeddings, pictures."
from dataclasses import replace

import numpy as np
import torch
from fastai.learner import Recorder
from fastcore.basics import patch
from tqdm.auto import tqdm

from ..callback.heads import HeadLabels
from ..callback.scoring import GroupRates, MatchRecorder, TrainedOn, ValidScores
from ..core import InputError
from ..data.block import MatchDataLoaders
from ..data.read import check_listings, read_image
from ..data.show import draw_listing, grid
from ..data.split import usable_hashes
from ..layers.heads import CosineHead
from ..losses import ArcFace
from ..match.decide import decide
from ..match.embeddings import Embeddings
from ..match.judge.score import row_f1
from ..match.spaces.dense import Dense
from ..match.thresholds.sweep import best_threshold
from ..metrics import RecallAt, RowF1
from ..models import MatchNet
from ..optim import adamw
from .base import LR_MULT, ListingLearner, groups_splitter, make_encoders


class MatchLearner(ListingLearner):
    "A `Learner` whose validation is on unseen groups; made by `match_learner`."
    @property
    def modalities(self) -> list[str]:
        "What the model embeds in evaluation: 'image', 'title', 'joint'."
        return list(self.model.widths)


def match_learner(
    dls,  # `MatchDataLoaders`
    image_arch: str | None = 'tf_efficientnet_lite0',  # timm name, folder or file; used where `dls` has images
    text_arch: str | None = 'all-MiniLM-L6-v2',  # Hub name, folder, or name with a weights package; used where `dls` has titles
    loss_func=None,  # Default `ArcFace(m=.3, s=20)`: groups of two or three listings can't bear the paper's margin
    opt_func=adamw,  # fastai optimizer function; the default is fastai's Adam on torch's fused kernel
    metrics=None,  # Default `[RecallAt(1), RowF1()]`
    cbs=None,  # More callbacks
    pretrained: bool = True,  # Load pretrained weights
    normalize: bool = True,  # Normalise images as the image encoder's weights were trained
    pool: str = 'mean',  # Pooling of the title encoder: 'mean' or 'cls'
    image_pool: str | None = None,  # Pooling of the image encoder: 'gem', timm's 'avg', 'max', 'avgmax', 'catavgmax'; None: the model's own
    heads: tuple | None = None,  # Which of 'image', 'title', 'joint' are trained; default all there are
    neck: bool | str = True,  # BatchNorm neck before each head; 'raw': pair losses read the feature before it
    head_func=CosineHead,  # (width, groups) -> head of class centres: `SampledHead`, `TrackedHead`, `CenterHead`, `partial(CosineHead, k=3)`
    lr_mult: dict | None = None,  # Factor on a single learning rate by group; default `LR_MULT`, `{}` for none
    wd: float | None = .01,  # Weight decay
    **kwargs,  # For `Learner`
) -> MatchLearner:
    "A Learner that trains image and title encoders under class centres, and is judged on groups it never saw."
    if not isinstance(dls, MatchDataLoaders): raise InputError('dls: make them with MatchDataLoaders.from_df')
    image, title = make_encoders(dls, image_arch, text_arch, pretrained, normalize, pool, image_pool)
    model = MatchNet(dls.n_groups, image, title, heads, neck, head_func)
    learn = MatchLearner(dls, model, ArcFace(m=.3, s=20) if loss_func is None else loss_func, opt_func=opt_func, splitter=groups_splitter,
                         metrics=[RecallAt(1), RowF1()] if metrics is None else metrics, wd=wd, **kwargs)
    learn.remove_cb(Recorder)
    learn.add_cbs([MatchRecorder(), ValidScores(), TrainedOn(), HeadLabels(), GroupRates(LR_MULT if lr_mult is None else lr_mult)])
    learn.add_cbs(cbs)
    learn.model.to(dls.device)
    return learn


@patch
def embeddings(
    self: MatchLearner,
    df=None,  # Listings with the columns `dls` was made with (the group may be missing); default the validation listings
    bs: int | None = None,  # Listings a batch; default the validation batch size
    tta: bool = False,  # Average each picture's embedding with its mirror image's
    on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be read (their ids are then missing in `ids`)
) -> Embeddings:
    "Embeddings of listings by modality; rows the encoders were trained on are flagged."
    columns = self.dls.columns
    if df is None: df = self.dls.valid_df
    else: df = check_listings(df, self.dls.image_folder, replace(columns, group=None, fold=None), on_error=on_error, min_rows=1).df
    if len(df) == 0: raise InputError('no listings to embed: the dataloaders hold none for validation')
    dl = self.dls.test_dl(df, bs=bs or self.dls.valid.bs)
    parts = []
    for batch in tqdm(dl, delay=2, desc='embedding', leave=False):
        out = self.model.embed(*(o.as_subclass(torch.Tensor) for o in batch), tta=tta)
        parts.append({k: v.cpu().numpy() for k, v in out.items()})
    ids = df[columns.id].to_numpy()
    return Embeddings({k: np.concatenate([p[k] for p in parts]) for k in parts[0]}, ids,
                      titles=None if columns.title is None else df[columns.title], groups=df[columns.group].to_numpy() if columns.group in df else None,
                      trained_on=np.isin(ids, list(self.trained_on.ids)) if self.trained_on.ids else None,
                      phash=usable_hashes(df[columns.phash]) if columns.phash in df else None)


def _listing(dls, row):
    fn, text = dls.columns.image, dls.columns.title
    return dict(image=None if fn is None else read_image(dls.image_folder/str(row[fn])), title='' if text is None else row[text])


def _judged(self, modality):
    "Neighbours of the validation listings, their groups, the matches at the best cut, and the row F1 of each."
    emb = self.embeddings()
    v = emb[modality] if modality else emb.get('joint', np.concatenate(list(emb.values()), 1))
    nb = Dense(v).search(min(51, len(v)))
    matches = decide(nb, best_threshold(nb, emb.groups)[0])
    return nb, emb.groups, matches, row_f1(matches, emb.groups)


def _draw_rows(dls, rows):
    "Draw (query, [(listing, note, colour), ...]) pairs, a row each."
    cols = max(1 + len(o) for _, o in rows)
    axes = grid(len(rows), cols)
    for line, (q, others) in zip(axes, rows):
        for ax, (i, note, color) in zip(line, [(q, 'listing', 'black'), *others]):
            ax.axis('on')
            draw_listing(ax, **_listing(dls, dls.valid_df.iloc[i]), note=note, color=color)


RIGHT, WRONG, MISSED = 'tab:green', 'tab:red', 'tab:orange'


@patch
def show_matches(
    self: MatchLearner,
    n: int = 4,  # Listings to show
    k: int = 5,  # Nearest others of each
    modality: str | None = None,  # 'image', 'title' or 'joint'; default the joint embedding
    seed: int = 0,  # Which listings
):
    "Show validation listings with their nearest others: green are the same product, red are not."
    nb, y, *_ = _judged(self, modality)
    picked = np.random.default_rng(seed).choice(len(y), min(n, len(y)), replace=False)
    _draw_rows(self.dls, [(i, [(j, f'{s:.2f}', RIGHT if y[j] == y[i] else WRONG) for j, s in zip(nb.ids[i, 1:k + 1], nb.scores[i, 1:k + 1]) if j >= 0])
                          for i in picked])


@patch
def show_mistakes(
    self: MatchLearner,
    n: int = 4,  # Listings to show
    k: int = 5,  # False and missed matches of each
    modality: str | None = None,  # 'image', 'title' or 'joint'; default the joint embedding
):
    "Show the validation listings matched worst at the best cut: red were matched wrongly, orange were missed."
    nb, y, matches, f1 = _judged(self, modality)
    sets = list(matches)
    # one listing a group: the others of a bad group make the same mistake
    order, seen, rows = np.argsort(f1, kind='stable'), set(), []
    for i in order:
        if f1[i] == 1 or len(rows) == n: break
        if y[i] in seen: continue
        seen.add(y[i])
        score = dict(zip(nb.ids[i], nb.scores[i]))
        wrong = [(j, f'wrong {score[j]:.2f}', WRONG) for j in sets[i] if y[j] != y[i]]
        missed = [(j, f'missed {score[j]:.2f}' if j in score else 'missed', MISSED) for j in np.flatnonzero(y == y[i]) if j not in sets[i]]
        # half the cells for each kind, so that many wrong ones don't hide what was missed
        cut = max(k - len(missed), (k + 1) // 2)
        rows.append((i, [*wrong[:cut], *missed][:k]))
    if rows: _draw_rows(self.dls, rows)
