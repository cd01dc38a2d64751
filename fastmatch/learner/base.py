"What Learners over listings share: encoders from names, parameter groups and their rates, validation."
# these imports give fastai's Learner to_fp16, progress bars, lr_find and its schedules
from fastai.callback import fp16, progress, schedule  # noqa: F401
from fastai.callback.core import CancelFitException
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Learner
from fastcore.xtras import ContextManagers

from ..callback.base import in_lr_find
from ..callback.learner_methods import CallbackMethods
from ..core import InputError
from ..losses.base import NotANumber
from ..models.registry import make_encoder, make_tokenizer
from ..optim.prepare import prepare_optimizer
from ..schedule.patch import ScheduledFits
from .reading import EncoderInputs

# Factors on one learning rate. With the same rate everywhere, a pretrained transformer is ruined or new class
# centers hardly move. Measured on the emoji and luma data: an ImageNet encoder wants a quarter of the rate,
# MiniLM a twentieth (1e-4 at 2e-3), new centers five times as much.
LR_MULT = {'image': .25, 'title': .05, 'head': 5.}


def groups_splitter(
    model,  # With a method `param_groups`
) -> list[list]:
    "The model's parameter groups in their order (image, title, head): a `splitter` for fastai's Learner."
    return list(model.param_groups().values())


def check_one_batch(
    dls,  # `ListingDataLoaders`
):
    "Raise `InputError` where the listings fill no batch: fastai leaves an incomplete one out of an epoch."
    if len(dls.train): return
    raise InputError(f'bs={dls.train.bs}: only {dls.train.n} listings to train on, not one batch; '
                     'give a smaller one')


class ListingLearner(ScheduledFits, CallbackMethods, Learner):
    """A `Learner` for listings, the base of `MatchLearner` and `ClassifyLearner`.

    `validate` works with a tracker (`SaveModelCallback`, `EarlyStoppingCallback`) among the callbacks, and a
    loss that becomes NaN raises `NotANumber` with epoch and batch.

    `dls` is a copy of the dataloaders it was given, with the tokenizer and the normalizing of its own
    encoders; what is set as `learn.dls` later is copied in the same way.
    """
    encoder_inputs = None  # a Learner exported by an earlier version has them in its `dls` already

    def __init__(
        self,
        dls,  # `ListingDataLoaders`; left as they are
        model,  # With a method `param_groups`
        *args,
        encoder_inputs: EncoderInputs | None = None,  # What its encoders read; None: `dls` as they are
        **kwargs,  # For fastai's `Learner`
    ):
        self.encoder_inputs = encoder_inputs
        super().__init__(dls, model, *args, **kwargs)

    @property
    def dls(self):
        "The dataloaders that training and validation read from."
        return self.__dict__['dls']

    @dls.setter
    def dls(self, dls):
        self.check_dls(dls)
        self.__dict__['dls'] = dls if self.encoder_inputs is None else self.encoder_inputs.fit(dls)

    def check_dls(self, dls):
        "Raise `InputError` for dataloaders that the model can't be used with; here none."

    def check_trainable(self, dls):
        "Raise `InputError` for dataloaders that the model can't be trained on."
        check_one_batch(dls)

    def lr_find(self, *args, **kwargs):
        "fastai's `lr_find`."
        self.check_trainable(self.dls)
        return super().lr_find(*args, **kwargs)

    def _do_fit(self):
        self.check_trainable(self.dls)
        super()._do_fit()

    def _do_epoch_validate(self, ds_idx=1, dl=None):
        # `get_preds(dl=...)` and `validate(dl=...)` may get a loader that knows nothing of this learner
        if dl is not None and self.encoder_inputs is not None: dl = self.encoder_inputs.fit_loader(dl)
        super()._do_epoch_validate(ds_idx, dl)

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
            # lr_find raises the rate until the loss is lost: that is its end, and it puts the weights back
            if in_lr_find(self): raise CancelFitException from None
            raise NotANumber(f'epoch {self.epoch + 1}, batch {self.iter + 1}: {error}') from None


def take_options(
    keywords: dict,  # Of a call; what is taken is removed from them
    *names: str,  # Options to take
) -> dict:
    "The options among `keywords` that have one of these names."
    return {option: keywords.pop(option) for option in names if option in keywords}


def make_encoders(
    dls,  # `ListingDataLoaders`; left as they are
    image_arch,  # Name, folder or file of the image encoder, as `make_encoder` takes it
    text_arch,  # Name or folder of the text encoder, as `make_encoder` takes it
    pretrained: bool = True,  # Load weights; False: random ones
    normalize: bool = True,  # Normalize images as the image encoder's weights were trained
    pool: str = 'mean',  # Pooling of the text encoder: 'mean' or 'cls'
    # pooling of the image encoder: 'gem', timm's 'avg', 'max', 'avgmax' or 'catavgmax'; None: the model's own
    image_pool: str | None = None,
):  # (image encoder or None, text encoder or None, `EncoderInputs`)
    "Make the encoders that the columns of `dls` ask for, and say what they read."
    image = title = None
    inputs = EncoderInputs(dls.columns.image is not None)
    if dls.columns.image is not None:
        if image_arch is None:
            raise InputError('image_arch=None, but dls has images: '
                             'make dls with image_col=None, or name an encoder')
        image = make_encoder('image', image_arch, pretrained=pretrained, pool=image_pool)
        if normalize: inputs.mean, inputs.std = image.mean, image.std
    if dls.columns.title is not None:
        if text_arch is None:
            raise InputError('text_arch=None, but dls has titles: '
                             'make dls with title_col=None, or name an encoder')
        inputs.tokenizer = make_tokenizer(text_arch)
        title = make_encoder('text', text_arch, pretrained=pretrained, pool=pool,
                             pad_id=inputs.tokenizer.pad_token_id)
    return image, title, inputs
