"What Learners over listings share: encoders from names, parameter groups and their rates, a validation that trackers don't break."
from fastai.callback import fp16, progress, schedule  # noqa: F401  they give Learner its to_fp16, bars, lr_find and fit_flat_cos
from fastai.callback.core import CancelFitException
from fastai.callback.tracker import TrackerCallback
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastcore.xtras import ContextManagers

from ..core import InputError
from ..data.block import Tokenize
from ..losses.base import NotANumber
from ..models import ImageEncoder, TitleEncoder, load_tokenizer
from ..optim.prepare import prepare_optimizer
from ..schedule import fit as _fit  # noqa: F401  it gives Learner its schedules in place of fastai's

# One rate for everything ruins a pretrained transformer or leaves new class centres behind. Against the rate given, from runs on emoji and
# luma: an ImageNet encoder wants a quarter, MiniLM a twentieth (1e-4 at 2e-3), fresh centres five times as much.
LR_MULT = {'image': .25, 'title': .05, 'head': 5.}


def groups_splitter(model) -> list[list]:
    "Parameter groups of a model with `param_groups`, in their order: image, title, head."
    return list(model.param_groups().values())


class ListingLearner(Learner):
    "A `Learner` that can be validated on its own with a tracker attached, and says where a loss was lost."
    def create_opt(self):
        super().create_opt()
        prepare_optimizer(self)

    def validation_context(self, cbs=None, inner=False):
        cm = super().validation_context(cbs, inner)
        trackers = self._grab_cbs(TrackerCallback)
        # a tracker looks for a row of training figures that a lone validation has not written
        return cm if inner or not trackers else ContextManagers([self.removed_cbs(trackers), cm])

    def _do_one_batch(self):
        try: super()._do_one_batch()
        except NotANumber as e:
            # lr_find raises the rate until the loss is lost: that is its end, and it puts the weights back
            if not hasattr(self, 'lr_finder'): raise NotANumber(f'epoch {self.epoch + 1}, batch {self.iter + 1}: {e}') from None
            raise CancelFitException from None


def _set_tokenizer(dls, tokenizer):
    for dl in dls.loaders:
        for tfm in dl.before_batch.fs:
            if isinstance(tfm, Tokenize): tfm.tokenizer = tokenizer


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
