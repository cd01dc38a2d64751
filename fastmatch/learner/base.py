"What Learners over listings share: encoders from names, parameter groups and their rates, validation."
# these imports give fastai's Learner to_fp16, progress bars, lr_find and its schedules
from fastai.callback import fp16, progress, schedule  # noqa: F401
from fastai.callback.core import CancelFitException
from fastai.callback.tracker import TrackerCallback
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastcore.xtras import ContextManagers

from ..core import InputError
from ..data.block import Tokenize
from ..losses.base import NotANumber
from ..models import ImageEncoder, TitleEncoder, load_tokenizer
from ..schedule import fit as _fit  # noqa: F401  it gives Learner its schedules in place of fastai's

# Factors on one learning rate. With the same rate everywhere, a pretrained transformer is ruined or new class
# centers hardly move. Measured on the emoji and luma data: an ImageNet encoder wants a quarter of the rate,
# MiniLM a twentieth (1e-4 at 2e-3), new centers five times as much.
LR_MULT = {'image': .25, 'title': .05, 'head': 5.}


def groups_splitter(
    model,  # With a method `param_groups`
) -> list[list]:
    "The model's parameter groups in their order (image, title, head): a `splitter` for fastai's Learner."
    return list(model.param_groups().values())


class ListingLearner(Learner):
    """A `Learner` for listings, the base of `MatchLearner` and `ClassifyLearner`.

    `validate` works with a tracker (`SaveModelCallback`, `EarlyStoppingCallback`) among the callbacks, and a
    loss that becomes NaN raises `NotANumber` with epoch and batch.
    """
    def validation_context(self, cbs=None, inner=False):
        context = super().validation_context(cbs, inner)
        trackers = self._grab_cbs(TrackerCallback)
        # a tracker looks for a row of training figures that a validation by itself has not written
        return context if inner or not trackers else ContextManagers([self.removed_cbs(trackers), context])

    def _do_one_batch(self):
        try: super()._do_one_batch()
        except NotANumber as error:
            # lr_find raises the rate until the loss is lost: that is its end, and it puts the weights back
            if hasattr(self, 'lr_finder'): raise CancelFitException from None
            raise NotANumber(f'epoch {self.epoch + 1}, batch {self.iter + 1}: {error}') from None


def _set_tokenizer(dls, tokenizer):
    for loader in dls.loaders:
        for transform in loader.before_batch.fs:
            if isinstance(transform, Tokenize): transform.tokenizer = tokenizer


def make_encoders(
    dls,  # `ListingDataLoaders`; it is given the title encoder's tokenizer, and the image encoder's `Normalize`
    image_arch,  # As for `match_learner`, and so the rest
    text_arch,
    pretrained: bool,
    normalize: bool,
    pool: str,
    image_pool: str | None,
):  # (image encoder or None, title encoder or None)
    "The encoders that the columns of `dls` ask for."
    image = title = None
    if dls.columns.image is not None:
        if image_arch is None: raise InputError('image_arch=None, but dls has images: make dls with image_col=None, or name an encoder')
        image = ImageEncoder(image_arch, pretrained, image_pool)
        if normalize and not any(isinstance(o, Normalize) for o in dls.after_batch.fs):
            dls.add_tfms([Normalize.from_stats(image.mean, image.std, cuda=False)], 'after_batch')
    if dls.columns.title is not None:
        if text_arch is None: raise InputError('text_arch=None, but dls has titles: make dls with title_col=None, or name an encoder')
        tokenizer = load_tokenizer(text_arch)
        title = TitleEncoder(text_arch, pretrained, pool, tokenizer.pad_token_id)
        _set_tokenizer(dls, tokenizer)
    return image, title
