"A fastai Learner for matching: encoders and heads from names, scores on unseen groups, embeddings, pictures."
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner, Recorder
from fastcore.basics import noop
from fastcore.foundation import L
from fastcore.meta import delegates

from ..callback.heads import HeadLabels
from ..callback.scoring import CheckedTrackers, MatchRecorder, ValidScores
from ..callback.trained_on import TrainedOn
from ..core import IMAGE_ARCH, TEXT_ARCH, InputError, refuse_unknown_options
from ..data.block import MatchDataLoaders
from ..data.features import warm_pictures
from ..data.kinds import cells_of
from ..data.pictures import in_folder, one_a_picture
from ..data.read import check_listings, join_titles
from ..data.split import usable_hashes
from ..layers.heads import CosineHead
from ..losses import ArcFace, SumLoss
from ..losses.pair import PairLoss
from ..match.decide import decide
from ..match.embeddings import Embeddings
from ..match.judge.score import row_f1
from ..match.spaces.dense import Dense
from ..match.thresholds.sweep import best_threshold
from ..matcher.batches import Batch, batches_by_length, by_listing, embed_batches, tokenize_titles
from ..matcher.encode import embedding_settings
from ..metrics import RecallAt, RowF1
from ..models import MatchNet, Views
from ..optim import adamw
from ..pretrain import WithObjectives
from .base import (
    ENCODER_OPTIONS,
    ListingLearner,
    frame_width_of,
    group_callbacks,
    groups_splitter,
    make_encoders,
    make_fusion_of,
    take_options,
)
from .matcher import MatcherExport, check_exportable
from .pretrain import keep_objectives, stream_options
from .reading import refuse_views_of_features, tokenize_of
from .resizing import resizing_of
from .show import MISSED, RIGHT, WRONG, draw_rows
from .trial import check_loss, try_loss, try_metrics

SHOWN_NEIGHBORS = 51  # nearest listings that pictures are chosen from, the listing itself included


class MatchLearner(MatcherExport, ListingLearner):
    "A `Learner` that is validated on groups it never saw in training; made by `match_learner`."
    train_groups = None  # the groups of the heads' centers, in their order

    def check_dls(self, dls):
        if not isinstance(dls, MatchDataLoaders):
            raise InputError('dls: make them with MatchDataLoaders.from_df')

    def check_trainable(self, dls):
        super().check_trainable(dls)
        if self.train_groups is None or not _reads_centers(self.loss_func): return
        groups = _train_groups(dls)
        if groups == self.train_groups: return
        raise InputError(f'dls: {len(groups)} groups to train on, and the heads of this learner hold centers '
                         f'of {len(self.train_groups)} others or more: make a learner for these dls with '
                         'match_learner, or take a loss over pairs')

    @property
    def modalities(self) -> list[str]:
        "What the model embeds in evaluation: 'image', 'title', 'joint'."
        return list(self.model.widths)

    def embeddings(
        self,
        df=None,  # Listings with the columns of `dls`, the group may be missing; default validation listings
        bs: int | None = None,  # Listings a batch; default the validation batch size
        # Average each picture's embedding with its mirror image's, or with further `Views`
        tta: bool | Views = False,
        on_error: str = 'raise',  # 'raise', or 'skip' unreadable listings (they are missing in `ids` then)
        path=None,  # Folder of the images of `df`; default that of `dls`
    ) -> Embeddings:
        """The embeddings of n listings by modality, in their order; those that were trained on are flagged.

        Of listings with several pictures each one is embedded, see `Embeddings.pictures`.
        """
        columns = self.dls.columns
        if df is None:
            if path is not None: raise InputError('path is the folder of a table: give df too')
            df = self.dls.valid_df
        else:
            wanted_columns = replace(self.dls.table_columns, group=None, fold=None)
            df, wanted_columns = join_titles(df, wanted_columns)
            folder = self.dls.image_folder if path is None else Path(path)
            df = check_listings(df, folder, wanted_columns, on_error=on_error, min_rows=1).df
            if path is not None and columns.image is not None: df = in_folder(df, [columns.image], folder)
        if len(df) == 0: raise InputError('no listings to embed: the dataloaders hold none for validation')
        pictures, listings = df, np.arange(len(df))
        refuse_views_of_features(self.dls, tta)
        # a fusion reads the pictures of a listing together
        if self.dls.frame_reading is not None:
            pictures = self.dls.frame_reading.widen(df)
            self.dls.frame_reading.warm(pictures)
        elif columns.image is not None:
            pictures, listings = one_a_picture(df, columns.image, self.dls.image_folder)
            features = self.dls.picture_features
            if features is not None: warm_pictures(features, columns.image, self.dls.image_folder, pictures)
        vectors = by_listing(self._embed(pictures, bs or self.dls.valid.bs, tta), listings)
        ids = df[columns.id].to_numpy()
        return Embeddings(vectors, ids, titles=None if columns.title is None else df[columns.title],
                          groups=df[columns.group].to_numpy() if columns.group in df else None,
                          trained_on=self.trained_on.flags(ids),
                          phash=usable_hashes(df[columns.phash]) if columns.phash in df else None,
                          made_with=self._settings(tta), fields=cells_of(df, columns.fields),
                          source=None if columns.source is None else df[columns.source].to_numpy(object))

    def _embed(self, df, bs, tta):
        "Modality -> float32 (n,d). `dls` reads the listings, with transforms that a matcher may not have."
        token_ids = None
        if self.dls.columns.title is not None:
            tokenize = tokenize_of(self.dls)
            titles = df[self.dls.columns.title].tolist()
            token_ids = tokenize_titles(tokenize.tokenizer, titles, tokenize.max_len)
        planned_batches = batches_by_length(len(df), bs, token_ids)
        loader = self.dls.test_dl(df.iloc[np.concatenate(planned_batches)].reset_index(drop=True), bs=bs)
        batches = (Batch(rows, [model_input.as_subclass(torch.Tensor) for model_input in inputs], len(rows))
                   for rows, inputs in zip(planned_batches, loader, strict=True))
        return embed_batches(self.model, batches, len(df), tta)

    def _settings(self, tta):
        tokenize = tokenize_of(self.dls)
        max_len = None if tokenize is None else tokenize.max_len
        picture = resizing_of(self.dls) if 'image' in self.model.encoders else None
        return embedding_settings(self.model.encoders, tta, picture, max_len)

    @delegates(ListingLearner.get_preds)
    def get_preds(self, ds_idx=1, dl=None, with_loss=False, with_decoded=False, act=None, cbs=None, **kwargs):
        """fastai's `get_preds`: the embeddings as a dict by modality, and the groups' numbers in `dls.vocab`.

        Raises `InputError` for a loss, which listings of unseen groups don't have. `embeddings` gives the
        same with ids and titles.
        """
        if with_loss:
            raise InputError('listings of unseen groups have no loss: learn.show_mistakes() and '
                             'learn.embeddings() tell what is matched wrongly')
        if with_decoded or act is not None:
            raise InputError('embeddings are not decoded: learn.matcher(...) decides on matches')
        names = self.modalities
        callbacks = [*L(cbs), _AsTuple()]
        inputs_too = int(bool(kwargs.get('with_input')))
        found = list(super().get_preds(ds_idx, dl, act=noop, cbs=callbacks, **kwargs))
        embeddings = found[inputs_too]
        if embeddings is not None:
            embeddings = embeddings if isinstance(embeddings, tuple) else (embeddings,)
            found[inputs_too] = dict(zip(names, embeddings, strict=True))
        return tuple(found)

    def predict(self, *args, **kwargs):
        "Not for matching: a listing has matches and no class."
        raise InputError('a match_learner predicts no class: learn.embeddings(df) embeds listings, '
                         'learn.matcher(...).match(df) finds their matches')

    def tta(self, *args, **kwargs):
        "Not for matching: see `embeddings`."
        raise InputError('call learn.embeddings(tta=True): it averages each picture with its mirror image')

    def show_results(self, *args, **kwargs):
        "Not for matching: see `show_matches`."
        raise InputError('call learn.show_matches() or learn.show_mistakes(): a match_learner has no classes '
                         'to show')

    def _judged(self, modality):
        "Of the validation listings: neighbors, groups, matches at the best threshold, F1 of each (n,)."
        embeddings = self.embeddings()
        if not modality and 'joint' in embeddings: modality = 'joint'
        if not modality and len(embeddings.keys()) == 1: [modality] = embeddings.keys()
        # of several pictures each one counts
        if modality: space = embeddings.spaces(only=(modality,))[modality]
        else: space = Dense(np.concatenate(list(embeddings.values()), 1))
        neighbors = space.search(min(SHOWN_NEIGHBORS, len(embeddings)))
        matches = decide(neighbors, best_threshold(neighbors, embeddings.groups)[0])
        return neighbors, embeddings.groups, matches, row_f1(matches, embeddings.groups)

    def show_matches(
        self,
        n: int = 4,  # Listings to show
        k: int = 5,  # Nearest others of each
        modality: str | None = None,  # 'image', 'title' or 'joint'; default the joint embedding
        seed: int = 0,  # Of the random choice of listings
    ):
        "Show validation listings with their nearest others: green are of the same group, red are not."
        neighbors, groups, *_ = self._judged(modality)
        picked_listings = np.random.default_rng(seed).choice(len(groups), min(n, len(groups)), replace=False)
        drawn_rows = []
        for listing in picked_listings:
            shown_neighbors = []
            for neighbor, score in zip(neighbors.ids[listing, 1:k + 1], neighbors.scores[listing, 1:k + 1]):
                if neighbor < 0: break
                color = RIGHT if groups[neighbor] == groups[listing] else WRONG
                shown_neighbors.append((neighbor, f'{score:.2f}', color))
            drawn_rows.append((listing, shown_neighbors))
        draw_rows(self.dls, drawn_rows)

    def show_mistakes(
        self,
        n: int = 4,  # Listings to show
        k: int = 5,  # Wrong and missed matches of each
        modality: str | None = None,  # 'image', 'title' or 'joint'; default the joint embedding
    ):
        "Show the listings matched worst at the best threshold: red were matched wrongly, orange missed."
        neighbors, groups, matches, f1 = self._judged(modality)
        drawn_rows, seen_groups = [], set()
        for listing in np.argsort(f1, kind='stable'):
            if f1[listing] == 1 or len(drawn_rows) == n: break
            # one listing a group: the others of a bad group make the same mistake
            if groups[listing] in seen_groups: continue
            seen_groups.add(groups[listing])
            scores = dict(zip(neighbors.ids[listing], neighbors.scores[listing]))
            drawn_rows.append((listing, _mistakes(listing, matches[listing], scores, groups, k)))
        if drawn_rows: draw_rows(self.dls, drawn_rows)


class _AsTuple(Callback):
    "Makes a tuple of the embeddings, which fastai can put together batch by batch."
    order = ValidScores.order + 1

    def after_pred(self): self.learn.pred = tuple(self.pred.values())
def _train_groups(dls): return list(dls.vocab[:dls.n_groups])


def _reads_centers(loss):
    "Whether a loss reads the class centers of the heads, which only losses over pairs don't."
    if isinstance(loss, SumLoss): return any(map(_reads_centers, loss.parts.values()))
    if isinstance(loss, WithObjectives): return _reads_centers(loss.loss)
    return not isinstance(loss, PairLoss)


def _mistakes(listing, matched_ids, scores, groups, n_shown):
    "At most `n_shown` wrong and missed matches of a listing as (row, note, color)."
    same_group = np.flatnonzero(groups == groups[listing])
    wrong_matches = [(other, f'wrong {scores[other]:.2f}', WRONG)
                     for other in matched_ids if other not in same_group]
    missed_matches = []
    for other in same_group:
        if other in matched_ids: continue
        missed_matches.append((other, f'missed {scores[other]:.2f}' if other in scores else 'missed', MISSED))
    # half the cells for each kind, so that many wrong ones don't hide what was missed
    n_wrong = max(n_shown - len(missed_matches), (n_shown + 1) // 2)
    return [*wrong_matches[:n_wrong], *missed_matches][:n_shown]


@delegates(make_encoders, keep=True)
@delegates(stream_options, keep=True)
def match_learner(
    dls,  # `MatchDataLoaders`
    image_arch=IMAGE_ARCH,  # timm name, folder, file, module, or function that makes one; None without images
    text_arch=TEXT_ARCH,  # Hub name, folder, name with a weights package, or module; None without titles
    # Default `ArcFace(m=.3, s=20)`: the paper's margin, which is `ArcFace()`'s, is too much for small groups
    loss_func=None,
    opt_func=adamw,  # fastai optimizer function; the default is fastai's Adam on torch's fused kernel
    metrics=None,  # Default `[RecallAt(1), RowF1()]`
    cbs=None,  # More callbacks
    heads: tuple | None = None,  # Which of 'image', 'title', 'joint' are trained; default all there are
    # BatchNorm neck before each head; 'raw': pair losses read the feature before it; or a function from a
    # width to a neck: `partial(ProjectNeck, n_out=256)`
    neck=True,
    head_func=CosineHead,  # (width, groups) -> head of class centers: `partial(CosineHead, k=3)`, ...
    lr_mult: dict | None = None,  # Factor on one learning rate by group; default `LR_MULT`, `{}` for none
    # Factor on the rate from each layer of an encoder to the one below it, e.g. .75; None: one rate for all
    layer_decay: float | None = None,
    splitter=None,  # Model -> parameter groups of your own, which have no `lr_mult` and `layer_decay`
    wd: float | None = .01,  # Weight decay
    # Raise `InputError` now for images and ids that a matcher can't take; False: train all the same,
    # `learn.encoder` and `learn.matcher` will raise it, as they do for every Learner with a fusion
    check_matcher: bool = True,
    # fusion, objectives for `stream_options`; `ENCODER_OPTIONS` and parts for `make_encoders`;
    # the rest for fastai's `Learner`
    **kwargs,
) -> MatchLearner:
    """A Learner that trains image and title encoders with a center for each training group.

    It is validated on groups it never saw: there is no validation loss, but recall@1 and F1 of the validation
    listings among themselves. Raises `InputError` where `dls` and encoders don't fit together.
    """
    refuse_unknown_options(kwargs, match_learner, Learner)
    if not isinstance(dls, MatchDataLoaders): raise InputError('dls: make them with MatchDataLoaders.from_df')
    if loss_func is not None: check_loss(loss_func)
    fusion, objectives = stream_options(**take_options(kwargs, 'fusion', 'objectives'))
    encoder_options = take_options(kwargs, *ENCODER_OPTIONS, 'parts')
    image, title, inputs, trial = make_encoders(dls, image_arch, text_arch, **encoder_options)
    if fusion is not None and encoder_options.get('parts') is not None:
        raise InputError(f'parts and fusion={fusion!r}: a fusion joins whole pictures with the text; choose '
                         'one')
    if dls.frame_reading is not None and fusion is None:
        raise InputError("frames: without a fusion one picture of a listing is drawn; give fusion='double', "
                         'or make dls with frames=1')
    model = MatchNet(dls.n_groups, image, title, heads, neck, head_func,
                     make_fusion_of(dls, fusion, image, title), frame_width_of(dls))
    if loss_func is None: loss_func = ArcFace(m=.3, s=20)
    if metrics is None: metrics = [RecallAt(1), RowF1()]
    loss_func, kept = keep_objectives(model, loss_func, objectives, inputs.tokenizer, len(dls.train_df))
    rates = group_callbacks(model, splitter, lr_mult, layer_decay)
    learn = MatchLearner(dls, model, loss_func, opt_func=opt_func, splitter=splitter or groups_splitter,
                         metrics=metrics, wd=wd, encoder_inputs=inputs, **kwargs)
    if check_matcher and fusion is None: check_exportable(learn.dls)
    learn.remove_cb(Recorder)
    learn.add_cbs([MatchRecorder(), CheckedTrackers(), ValidScores(), TrainedOn(model), HeadLabels(), *rates,
                   *kept])
    learn.add_cbs(cbs)
    learn.train_groups = _train_groups(dls)
    learn.model.to(dls.device)
    try_loss(learn, trial)
    try_metrics(learn, trial)
    return learn
