"A fastai Learner that classifies listings by picture, text or both; tables and pictures of its mistakes."
import numpy as np
import pandas as pd
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastcore.meta import delegates
from sklearn.metrics import precision_recall_fscore_support

from ..callback.heads import HeadLabels, PlainValidLoss
from ..callback.scoring import CheckedTrackers
from ..callback.soft import LikeliestTargets
from ..callback.trained_on import TrainedOn
from ..callback.views import AverageViews
from ..core import IMAGE_ARCH, TEXT_ARCH, InputError, preview, refuse_unknown_options
from ..data.classify import ClassifyDataLoaders
from ..data.show import grid
from ..layers.heads import CosineHead
from ..losses import CrossEntropy, SoftTarget
from ..losses.base import Loss
from ..metrics import MacroF1
from ..models import ClassifyNet, Views
from ..optim import adamw
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
from .pretrain import keep_objectives, stream_options
from .reading import refuse_views_of_features
from .show import RIGHT, WRONG, draw_items
from .trial import check_loss, try_loss

CELL = 2.4  # width of a picture in inches


class ClassifyLearner(ListingLearner):
    "A `Learner` for items with a class each; made by `classify_learner`."
    class_names = None  # the classes that the heads tell apart, in their order

    def check_dls(self, dls):
        if not isinstance(dls, ClassifyDataLoaders):
            raise InputError('dls: make them with ClassifyDataLoaders.from_df')
        given = self.__dict__.get('dls')
        if given is not None and given.is_soft != dls.is_soft:
            kinds = [f'{"probabilities" if loaders.is_soft else "one class"} of an item'
                     for loaders in (dls, given)]
            raise InputError(f'dls: they hold {kinds[0]}, and this learner was made for {kinds[1]}')
        if self.class_names is None or list(dls.vocab) == self.class_names: return
        raise InputError(f'dls: its classes {preview(dls.vocab)} are not those that this learner tells '
                         f'apart, {preview(self.class_names)}')

    def predictions(
        self,
        df=None,  # Items with the columns `dls` was made with; default the validation items
        path=None,  # Folder of the images of `df`; default that of `dls`
        # Average the probabilities with those of each picture's mirror image, or of further `Views`
        tta: bool | Views = False,
    ) -> pd.DataFrame:  # The id column, `label`, `prob`, and a column of probabilities for each class
        "The likeliest class of each item with its probability, and the probability of every class."
        refuse_views_of_features(self.dls, tta)
        dls, id_col = self.dls, self.dls.columns.id
        items, loader = dls.valid_df, dls.valid
        if df is None and path is not None: raise InputError('path is the folder of a table: give df too')
        if df is None and not len(items): raise InputError('the dataloaders hold no items for validation')
        if df is not None:
            items = dls.widen(df, path)
            loader = dls.test_dl(items)
        with self.no_bar():
            probabilities = self.get_preds(dl=loader, cbs=AverageViews(tta))[0].float().numpy()
        class_names = list(dls.vocab)
        likeliest = np.array(class_names, dtype=object)[probabilities.argmax(1)]
        by_class = dict(zip(class_names, probabilities.T))
        return pd.DataFrame({id_col: items[id_col].to_numpy(), 'label': likeliest,
                             'prob': probabilities.max(1), **by_class})

    def show_results(self, *args, **kwargs):
        "Not for listings: see `show_worst` and `show_confusions`."
        raise InputError('call learn.show_worst(), learn.show_confusions() or learn.predictions()')

    def _validated(self, tta=False):
        """Probabilities (n,c), true classes (n,) and losses (n,) of the validation items; of soft labels the
        likeliest class is the true one."""
        if not len(self.dls.valid_df): raise InputError('the dataloaders hold no items for validation')
        refuse_views_of_features(self.dls, tta)
        with self.no_bar():
            probabilities, targets, losses = self.get_preds(dl=self.dls.valid, with_loss=True,
                                                            cbs=AverageViews(tta))
        if targets.ndim == 2: targets = targets.argmax(1)
        return probabilities.float().numpy(), targets.numpy(), losses.float().numpy()

    def class_table(self) -> pd.DataFrame:  # One row a class and one for 'macro': precision, recall, f1, n
        """Precision, recall and F1 of each class on the validation items, and their plain means ('macro'), as
        `macro_f1` takes them: over the classes that items have or are predicted to have."""
        probabilities, targets, _ = self._validated()
        class_names = list(self.dls.vocab)
        predicted = probabilities.argmax(1)
        precision, recall, f1, counts = precision_recall_fscore_support(
            targets, predicted, labels=range(len(class_names)), zero_division=0)
        table = pd.DataFrame({'precision': precision, 'recall': recall, 'f1': f1, 'n': counts},
                             index=class_names)
        # a class that no item has and none is predicted to have has no score to average
        counted = (counts > 0) | (np.bincount(predicted, minlength=len(counts)) > 0)
        table.loc['macro'] = [*table[counted][['precision', 'recall', 'f1']].mean(), counts.sum()]
        return table.astype({'n': int})

    def show_worst(
        self,
        n: int = 8,  # Items to show
        cols: int = 4,  # Items in a row
    ):
        "Show the validation items with the largest loss: predicted and true class with their probabilities."
        probabilities, targets, losses = self._validated()
        class_names, predicted = self.dls.vocab, probabilities.argmax(1)
        cells = []
        for item in np.argsort(-losses, kind='stable')[:n]:
            guess, truth = predicted[item], targets[item]
            predicted_as = f'{class_names[guess]} {probabilities[item, guess]:.2f}'
            truly = f'is {class_names[truth]} {probabilities[item, truth]:.2f}'
            cells.append((item, f'{predicted_as}\n{truly}', RIGHT if guess == truth else WRONG))
        axes = grid(-(-len(cells) // cols), min(cols, len(cells)), CELL)
        draw_items(self.dls, axes.flat, cells)

    def confusions(self) -> pd.DataFrame:  # `true`, `said`, `n`, `share`; most frequent first
        "Which class (`said`) was predicted for validation items of another (`true`), most frequent first."
        probabilities, targets, _ = self._validated()
        class_names, predicted = np.array(list(self.dls.vocab), dtype=object), probabilities.argmax(1)
        is_wrong = predicted != targets
        confused = pd.DataFrame({'true': class_names[targets[is_wrong]],
                                 'said': class_names[predicted[is_wrong]]})
        confused = confused.value_counts().rename('n').reset_index()
        class_sizes = pd.Series(class_names[targets]).value_counts()
        return confused.assign(share=confused.n / confused.true.map(class_sizes).astype(float))

    def show_confusions(
        self,
        n: int = 3,  # Pairs of classes, the most frequent first
        k: int = 4,  # Items of each, those with the largest probability first
    ):
        "Show items of the most frequent confusions, one pair of true and predicted class a row."
        probabilities, targets, _ = self._validated()
        predicted, class_names = probabilities.argmax(1), self.dls.vocab
        is_wrong = predicted != targets
        mistakes = np.stack([targets[is_wrong], predicted[is_wrong]])
        class_pairs, pair_counts = np.unique(mistakes, axis=1, return_counts=True)
        most_frequent = np.argsort(-pair_counts, kind='stable')[:n]
        if not len(most_frequent): return
        axes = grid(len(most_frequent), min(k, int(pair_counts[most_frequent].max())), CELL)
        for axes_row, (truth, guess) in zip(axes, class_pairs[:, most_frequent].T):
            confused_items = np.flatnonzero((targets == truth) & (predicted == guess))
            surest = confused_items[np.argsort(-probabilities[confused_items, guess], kind='stable')][:k]
            cells = []
            for item in surest:
                note = f'{class_names[guess]} {probabilities[item, guess]:.2f}\nis {class_names[truth]}'
                cells.append((item, note, WRONG))
            draw_items(self.dls, axes_row, cells)


@delegates(ClassifyNet, keep=True, but=['image', 'title', 'frames', 'frame_width', 'fusion'])
@delegates(make_encoders, keep=True, but=['parts'])
@delegates(stream_options, keep=True)
def classify_learner(
    dls,  # `ClassifyDataLoaders`
    image_arch=IMAGE_ARCH,  # timm name, folder, file, module, or function that makes one; None without images
    text_arch=TEXT_ARCH,  # Hub name, folder, name with a weights package, or module; None without text
    # Default `CrossEntropy()`, of soft labels `SoftTarget()`, summed over heads; margin losses want
    # `head_func=CosineHead`
    loss_func=None,
    opt_func=adamw,  # fastai optimizer function
    metrics=None,  # Default `[accuracy, MacroF1()]`
    cbs=None,  # More callbacks
    lr_mult: dict | None = None,  # Factor on one learning rate by group; default `LR_MULT`, `{}` for none
    # Factor on the rate from each layer of an encoder to the one below it, e.g. .75; None: one rate for all
    layer_decay: float | None = None,
    splitter=None,  # Model -> parameter groups of your own, which have no `lr_mult` and `layer_decay`
    wd: float | None = .01,  # Weight decay
    # fusion, objectives for `stream_options`; `ENCODER_OPTIONS` for `make_encoders`; p,
    # head_func, weights for `ClassifyNet`; the rest for fastai's `Learner`
    **kwargs,
) -> ClassifyLearner:
    """A Learner that classifies items by their pictures, their text, or both.

    Of soft labels (`label_col=['cat', 'dog']`) losses read the probabilities, metrics the likeliest class.
    Raises `InputError` where `dls`, encoders and loss don't fit together.
    """
    refuse_unknown_options(kwargs, classify_learner, Learner)
    if not isinstance(dls, ClassifyDataLoaders):
        raise InputError('dls: make them with ClassifyDataLoaders.from_df')
    fusion, objectives = stream_options(**take_options(kwargs, 'fusion', 'objectives'))
    encoder_options = take_options(kwargs, *ENCODER_OPTIONS)
    if loss_func is not None: check_loss(loss_func)
    image, title, inputs, trial = make_encoders(dls, image_arch, text_arch, **encoder_options)
    head_options = take_options(kwargs, 'p', 'head_func', 'weights')
    model = ClassifyNet(len(dls.vocab), image, title, dls.frames, **head_options,
                        frame_width=frame_width_of(dls), fusion=make_fusion_of(dls, fusion, image, title))
    if len(model.heads) > 1 and loss_func is not None and not isinstance(loss_func, Loss):
        raise InputError(f'loss_func={loss_func!r}: picture and text have a head each, and a loss of '
                         'fastmatch.losses sums over them')
    if loss_func is None: loss_func = SoftTarget() if dls.is_soft else CrossEntropy()
    if metrics is None: metrics = [accuracy, MacroF1()]
    loss_func, kept = keep_objectives(model, loss_func, objectives, inputs.tokenizer, len(dls.train_df))
    rates = group_callbacks(model, splitter, lr_mult, layer_decay)
    learn = ClassifyLearner(dls, model, loss_func, opt_func=opt_func, splitter=splitter or groups_splitter,
                            metrics=metrics, wd=wd, encoder_inputs=inputs, **kwargs)
    learn.add_cbs([HeadLabels(), CheckedTrackers(), TrainedOn(model), *rates])
    has_cosines = any(isinstance(head, CosineHead) for head in model.heads.values())
    if has_cosines or getattr(loss_func, 'n_targets', 1) > 1: learn.add_cb(PlainValidLoss())
    learn.add_cbs(kept)
    if dls.is_soft: learn.add_cb(LikeliestTargets())
    learn.add_cbs(cbs)
    learn.class_names = list(dls.vocab)
    learn.model.to(dls.device)
    try_loss(learn, trial)
    return learn
