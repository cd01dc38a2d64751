"""How a learner's encoders read batches: their tokenizer and normalizing, put into a copy of the dataloaders.

The dataloaders that a learner is given are left as they are, so that any number of learners can use them.
"""
import copy
from dataclasses import dataclass

from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import Normalize
from fasttransform import Pipeline

from ..callback.state import preserved_randomness
from ..core import InputError
from ..data.loaders import ListingDataLoaders
from ..data.title import Tokenize
from ..models.views import Views, views_of


def tokenize_of(
    dls,  # `ListingDataLoaders`
) -> Tokenize | None:
    "The transform that makes token ids of a batch's titles, None where there are no titles."
    transforms = dls.valid.before_batch.fs
    return next((transform for transform in transforms if isinstance(transform, Tokenize)), None)


def fingerprint_of(
    dls,  # `ListingDataLoaders`
) -> str | None:
    "What tells features of pictures from those of other encoders; None where pictures are read, or nothing."
    reading = getattr(dls, 'frame_reading', None)
    features = getattr(dls, 'picture_features', None) if reading is None else reading.features
    return None if features is None else getattr(features, 'fingerprint', 'unknown')


def refuse_views_of_features(
    dls,  # `ListingDataLoaders`
    tta: bool | Views,  # As a user gave it
):
    "Raise `InputError` where pictures are to be seen in several views, and only their features are read."
    if views_of(tta).spec() and fingerprint_of(dls) is not None:
        raise InputError(f'tta={tta}: features of pictures have no mirror image; make them with '
                         'FrameFeatures(..., mirror=True)')


class EncoderNormalize(Normalize):
    "The `Normalize` of a learner's image encoder; another learner that gets these loaders puts in its own."


@dataclass
class EncoderInputs:
    "What the encoders of one learner read, and how."
    image: bool  # Whether there is an encoder of images
    tokenizer: object = None  # Of the text encoder; None: there is none
    mean: list | None = None  # Of each color channel, as the image encoder knows them; None: not normalized
    std: list | None = None  # Of each color channel
    features: str | None = None  # Fingerprint of the features that it reads; None: pictures

    def fit(
        self,
        dls: DataLoaders,  # Left as they are
    ) -> DataLoaders:  # The same where they fit already
        "A copy of `dls` that makes what the encoders read; `InputError` where it lacks pictures or titles."
        if isinstance(dls, ListingDataLoaders):
            self._check_columns(dls.columns)
            self._check_features(dls)
        loaders = [self.fit_loader(loader) for loader in dls.loaders]
        if all(fitted is loader for fitted, loader in zip(loaders, dls.loaders)): return dls
        fitted_dls = copy.copy(dls)
        fitted_dls.loaders = loaders
        return fitted_dls

    def fit_loader(
        self,
        loader,  # A `TfmdDL`, left as it is; anything else is passed through
    ):
        "A copy of a loader with this tokenizer and mean; a `Normalize` of the user's own stays."
        if not isinstance(loader, TfmdDL) or self._fits(loader): return loader
        before_batch = [self._own_tokenize(transform) for transform in loader.before_batch.fs]
        after_batch = [transform for transform in loader.after_batch.fs
                       if not isinstance(transform, EncoderNormalize)]
        if self.mean is not None and not any(isinstance(transform, Normalize) for transform in after_batch):
            after_batch.append(EncoderNormalize.from_stats(self.mean, self.std, cuda=False))
        # a new loader draws the seed of its shuffling; this one goes on where the given one stands
        with preserved_randomness():
            fitted = loader.new(before_batch=Pipeline(before_batch), after_batch=Pipeline(after_batch),
                                persistent_workers=loader.fake_l.persistent_workers)
        fitted.rng = copy.deepcopy(loader.rng)
        if getattr(loader, 'sampler', None) is not None: fitted.sampler = copy.copy(loader.sampler)
        if loader.device is not None: fitted.to(loader.device)
        return fitted

    def _own_tokenize(self, transform):
        if not isinstance(transform, Tokenize): return transform
        return Tokenize(self.tokenizer, getattr(transform, 'limits', None) or transform.max_len)

    def _fits(self, loader):
        "Whether a loader makes what the encoders read already."
        tokenizers = [transform.tokenizer for transform in loader.before_batch.fs
                      if isinstance(transform, Tokenize)]
        if any(tokenizer is not self.tokenizer for tokenizer in tokenizers): return False
        normalizers = [transform for transform in loader.after_batch.fs if isinstance(transform, Normalize)]
        if not normalizers: return self.mean is None
        return all(self._is_own(transform) for transform in normalizers
                   if isinstance(transform, EncoderNormalize))

    def _is_own(self, normalizer):
        if self.mean is None: return False
        wanted = Normalize.from_stats(self.mean, self.std, cuda=False)
        return (normalizer.mean.cpu().equal(wanted.mean) and normalizer.std.cpu().equal(wanted.std))

    def _check_features(self, dls):
        "Raise `InputError` where the features of frames are not those that the model was made for."
        given = fingerprint_of(dls)
        if given == getattr(self, 'features', None): return
        if given is None or getattr(self, 'features', None) is None:
            states = ['features of pictures', 'pictures'][::1 if given else -1]
            raise InputError(f'dls hold {states[0]}, and the model reads {states[1]}: make them with '
                             'frame_features like those that the learner was made with')
        raise InputError('dls: their frame_features are of another encoder, size or method than those that '
                         'the learner was made with')

    def _check_columns(self, columns):
        "Raise `InputError` where the listings don't have what the encoders read, or more than that."
        for what, option, is_there, is_read in (
                ('pictures', 'image_col', columns.image is not None, self.image),
                ('titles', 'title_col', columns.title is not None, self.tokenizer is not None)):
            if is_there == is_read: continue
            states = ('have', "doesn't read them") if is_there else ('lack', 'reads them')
            raise InputError(f'dls {states[0]} {what}, and the model {states[1]}: make them with the same '
                             f'{option} as those that the learner was made with')
