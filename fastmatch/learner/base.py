"What Learners over listings share: encoders from names, parameter groups and their rates, validation."
# these imports give fastai's Learner to_fp16, progress bars, lr_find and its schedules
from fastai.callback import fp16, progress, schedule  # noqa: F401
from fastai.callback.core import CancelFitException
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import TerminateOnNaNCallback, TrackerCallback
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastcore.foundation import L
from fastcore.xtras import ContextManagers

from ..callback.base import in_lr_find, leave_autocast
from ..callback.learner_methods import CallbackMethods
from ..core import InputError
from ..data.title import Tokenize
from ..losses.base import NotANumber
from ..models.registry import make_encoder, make_tokenizer
from ..optim.prepare import prepare_optimizer
from ..schedule.patch import ScheduledFits
from ..schedule.rates import for_optimizer, rate_factors, rates_as_given

# Factors on one learning rate. With the same rate everywhere, a pretrained transformer is ruined or new class
# centers hardly move. Measured on the emoji and luma data: an ImageNet encoder wants a quarter of the rate,
# MiniLM a twentieth (1e-4 at 2e-3), new centers five times as much.
LR_MULT = {'image': .25, 'title': .05, 'head': 5.}


def checked_factors(
    model,  # With a method `param_groups`
    lr_mult: dict | None,  # Factor on one learning rate by group; None: `LR_MULT`
) -> dict[str, float]:
    """`lr_mult`, or those of `LR_MULT` that the model has groups for; `InputError` for a name that no group
    has."""
    if lr_mult is None: return {name: LR_MULT[name] for name in model.param_groups() if name in LR_MULT}
    rate_factors(model, lr_mult)
    return lr_mult


def groups_splitter(
    model,  # With a method `param_groups`
) -> list[list]:
    "The model's parameter groups in their order (image, title, head): a `splitter` for fastai's Learner."
    return list(model.param_groups().values())


class ListingLearner(ScheduledFits, CallbackMethods, Learner):
    """A `Learner` for listings, the base of `MatchLearner` and `ClassifyLearner`.

    `validate` works with a tracker (`SaveModelCallback`, `EarlyStoppingCallback`) among the callbacks, and a
    loss that becomes NaN raises `NotANumber` with epoch and batch.
    """
    def fit(self, n_epoch, lr=None, wd=None, cbs=None, reset_opt=False, start_epoch=0):
        "fastai's `fit`; `lr` may also be a dict by name of parameter group."
        if self.opt is None: self.create_opt()
        given_rates = lr
        for scheduler in [*L(cbs), *self.cbs] if lr is None else []:
            if not isinstance(scheduler, ParamScheduler): continue
            # a schedule of one's own may be of one rate or of one for each group
            if callable(scheduler.scheds.get('lr')): given_rates = scheduler.scheds['lr'](0.)
        loss_func = self.loss_func
        try:
            with rates_as_given(self, given_rates):
                super().fit(n_epoch, for_optimizer(self, lr), wd, cbs, reset_opt, start_epoch)
        except BaseException:
            # mixing and others put a loss of their own in its place, and put it back only where a fit ends
            self.loss_func = loss_func
            raise

    def fit_one_cycle(self, n_epoch, lr_max=None, *args, **kwargs):
        "fastai's `fit_one_cycle`; `lr_max` may also be a dict by name of parameter group."
        with rates_as_given(self, lr_max):
            super().fit_one_cycle(n_epoch, for_optimizer(self, lr_max), *args, **kwargs)

    def fit_sgdr(self, n_cycles, cycle_len, lr_max=None, *args, **kwargs):
        "fastai's `fit_sgdr`; `lr_max` may also be a dict by name of parameter group."
        with rates_as_given(self, lr_max):
            super().fit_sgdr(n_cycles, cycle_len, for_optimizer(self, lr_max), *args, **kwargs)

    def create_opt(self):
        "Make the optimizer, and tell it which weights not to decay and which gradients not to centralize."
        super().create_opt()
        prepare_optimizer(self)

    def validation_context(self, cbs=None, inner=False):
        context = super().validation_context(cbs, inner)
        trackers = self._grab_cbs(TrackerCallback)
        # a tracker looks for a row of training figures that a validation by itself has not written
        return context if inner or not trackers else ContextManagers([self.removed_cbs(trackers), context])

    def _do_one_batch(self):
        try: super()._do_one_batch()
        except NotANumber as error:
            leave_autocast(self)
            # lr_find raises the rate until the loss is lost: that is its end, and it puts the weights back;
            # fastai's callback ends the training quietly
            if in_lr_find(self) or self._grab_cbs(TerminateOnNaNCallback): raise CancelFitException from None
            raise NotANumber(f'epoch {self.epoch + 1}, batch {self.iter + 1}: {error}') from None


def _set_tokenizer(dls, tokenizer):
    for loader in dls.loaders:
        for transform in loader.before_batch.fs:
            if isinstance(transform, Tokenize): transform.tokenizer = tokenizer


def take_options(
    keywords: dict,  # Of a call; what is taken is removed from them
    *names: str,  # Options to take
) -> dict:
    "The options among `keywords` that have one of these names."
    return {option: keywords.pop(option) for option in names if option in keywords}


def make_encoders(
    # `ListingDataLoaders`; they are given the text encoder's tokenizer and the image encoder's `Normalize`
    dls,
    image_arch,  # Name, folder or file of the image encoder, as `make_encoder` takes it
    text_arch,  # Name or folder of the text encoder, as `make_encoder` takes it
    pretrained: bool = True,  # Load weights; False: random ones
    normalize: bool = True,  # Normalize images as the image encoder's weights were trained
    pool: str = 'mean',  # Pooling of the text encoder: 'mean' or 'cls'
    # pooling of the image encoder: 'gem', timm's 'avg', 'max', 'avgmax' or 'catavgmax'; None: the model's own
    image_pool: str | None = None,
):  # (image encoder or None, text encoder or None)
    "Make the encoders that the columns of `dls` ask for, and fit `dls` to them."
    image = title = None
    if dls.columns.image is not None:
        if image_arch is None:
            raise InputError('image_arch=None, but dls has images: '
                             'make dls with image_col=None, or name an encoder')
        image = make_encoder('image', image_arch, pretrained=pretrained, pool=image_pool)
        if normalize and not any(isinstance(transform, Normalize) for transform in dls.after_batch.fs):
            dls.add_tfms([Normalize.from_stats(image.mean, image.std, cuda=False)], 'after_batch')
    if dls.columns.title is not None:
        if text_arch is None:
            raise InputError('text_arch=None, but dls has titles: '
                             'make dls with title_col=None, or name an encoder')
        tokenizer = make_tokenizer(text_arch)
        title = make_encoder('text', text_arch, pretrained=pretrained, pool=pool,
                             pad_id=tokenizer.pad_token_id)
        _set_tokenizer(dls, tokenizer)
    return image, title
