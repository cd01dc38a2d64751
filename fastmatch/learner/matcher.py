"From a trained Learner to what is handed to others: an encoder or a matcher, without fastai or pickle in it."
import copy
import warnings

import numpy as np
import torch
from fastai.data.transforms import IntToFloatTensor, Normalize, ToTensor
from fastai.vision.augment import AffineCoordTfm, Resize
from fastai.vision.core import TensorImage

from ..callback.state import preserved_randomness
from ..core import InputError, preview
from ..data.title import Tokenize
from ..match.rule import Rule
from ..matcher import Encoder, Matcher, Picture

PAD = {'zeros': 'constant', 'border': 'edge', 'reflection': 'reflect'}  # fastai's names -> torchvision's


def _validation_transforms(pipeline):
    return [transform for transform in pipeline.fs if getattr(transform, 'split_idx', None) != 0]


def resize_of(
    dls,  # `MatchDataLoaders`
) -> Resize | None:
    "The item transform that resizes validation images, the last of several; None where there is none."
    transforms = reversed(_validation_transforms(dls.valid.after_item))
    return next((transform for transform in transforms if isinstance(transform, Resize)), None)


def presizing_of(
    dls,  # `MatchDataLoaders`
) -> AffineCoordTfm | None:
    "The batch transform that gives validation images another size than `resize_of`; None where none does."
    transforms = reversed(_validation_transforms(dls.valid.after_batch))
    return next((transform for transform in transforms
                 if isinstance(transform, AffineCoordTfm) and transform.size is not None), None)


def input_size_of(
    dls,  # `MatchDataLoaders`
) -> tuple | None:  # (width, height); None where nothing says it
    "The size of validation images as the encoder reads them."
    presizing, resize = presizing_of(dls), resize_of(dls)
    if presizing is not None: return _width_height(presizing)
    return None if resize is None else tuple(resize.size)


def _width_height(presizing):
    height, width = presizing.cp_size
    return width, height


def tokenize_of(
    dls,  # `MatchDataLoaders`
) -> Tokenize | None:
    "The transform that makes token ids of a batch's titles, None where there are no titles."
    transforms = dls.valid.before_batch.fs
    return next((transform for transform in transforms if isinstance(transform, Tokenize)), None)


def picture_of(
    dls,  # `MatchDataLoaders` with images
) -> Picture:
    """How validation images are resized and normalized.

    Raises `InputError` for a transform that a matcher can't repeat: anything but a `Resize`, a second size
    in the transforms of batches (`aug_transforms(size=...)`), a `Normalize`, and augmentations that leave
    validation images as they are.
    """
    for transform in _validation_transforms(dls.valid.after_item):
        if not isinstance(transform, (Resize, ToTensor)):
            raise InputError(f'item_tfms: a matcher repeats a Resize, not {type(transform).__name__}; '
                             'for random crops take batch_tfms=aug_transforms(max_zoom=...)')
    resize = resize_of(dls)
    if resize is None: raise InputError('item_tfms: a matcher needs a Resize to know the size of images')
    mean, std = [0.] * 3, [1.] * 3
    other_transforms = []
    for transform in _validation_transforms(dls.valid.after_batch):
        if isinstance(transform, Normalize): mean, std = _plain(transform.mean), _plain(transform.std)
        elif not isinstance(transform, IntToFloatTensor): other_transforms.append(type(transform).__name__)
    presizing = presizing_of(dls)
    second = {} if presizing is None else {'final_size': _width_height(presizing),
                                           'align_corners': presizing.align_corners}
    picture = Picture(tuple(resize.size), str(resize.method), PAD[str(resize.pad_mode)], int(resize.mode),
                      mean, std, **second)
    # augmentations draw whether they do something, also where they then do nothing
    with preserved_randomness():
        _check_repeats(dls, picture, ' or '.join(other_transforms) or 'Normalize')
    return picture


def _plain(values):
    "A channel's figures, of a tensor or a list, as plain numbers."
    values = values.flatten().tolist() if hasattr(values, 'flatten') else values
    return [float(value) for value in values]


def _check_repeats(dls, picture, suspects):
    """Raise `InputError` unless `picture.normalize` does to a probe what `dls` does to a validation batch.

    Many augmentations run in validation too and do nothing there, so their names don't tell.
    """
    width, height = picture.size
    generator = torch.Generator().manual_seed(0)
    probe = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator)
    dls.valid.before_iter()  # tells the transforms that they are in validation
    batch = dls.valid.after_batch((TensorImage(probe.permute(0, 3, 1, 2)).to(dls.device),))
    from_dls = batch[0].as_subclass(torch.Tensor).cpu()
    from_picture = picture.normalize(probe)
    if from_picture.shape[2:] != from_dls.shape[2:]:
        before, after = (f'{width} x {height}' for height, width in (probe.shape[1:3], from_dls.shape[2:]))
        raise InputError(f'batch_tfms: {suspects} changes the size of validation images from {before} to '
                         f'{after}, which a matcher does not repeat; aug_transforms(size=...) does')
    if (from_picture - from_dls).abs().max() > 1e-2:
        raise InputError(f'batch_tfms: {suspects} changes validation images, which a matcher does not repeat')


class MatcherExport:
    "Methods of `MatchLearner` that give what it trained in a form that needs no fastai."
    def encoder(
        self,
        tta: bool = False,  # Average each picture's embedding with its mirror image's
        device: str | None = None,  # Where it runs; default where the Learner does
    ) -> Encoder:
        "A copy of the trained encoders that embeds listings; raises `InputError` as `picture_of` does."
        model = copy.deepcopy(self.model).cpu()
        model.heads.clear()
        picture = picture_of(self.dls) if 'image' in model.encoders else None
        tokenize = tokenize_of(self.dls)
        device = str(device or self.dls.device)
        if tokenize is None: return Encoder(model, picture, tta=tta, device=device)
        return Encoder(model, picture, tokenize.tokenizer, tokenize.max_len, tta, device)

    def matcher(
        self,
        df=None,  # The catalogue: listings with the columns of `dls`; default all listings of `dls`
        rule: Rule | None = None,  # As `choose_rule` or `tune_rule` give it
        path=None,  # Folder of the images; default that of `dls`
        tta: bool = False,  # As in the `learn.embeddings` that the rule was chosen on
        device: str | None = None,  # Where the encoders run; default where the Learner does
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used, with a warning
        info: dict | None = None,  # Kept with it: how it was trained, what it scored
    ) -> Matcher:
        """Encoders, rule and catalogue as one object that saves to a folder and matches new listings.

        Raises `InputError` where the rule was chosen on embeddings with another `tta` or other sizes.
        """
        if not isinstance(rule, Rule):
            raise InputError(f'rule={rule!r}: give a Rule, '
                             'e.g. choose_rule(candidates(emb.spaces()), emb.groups)')
        if df is None: df = self.dls.df
        ids = df[self.dls.columns.id].to_numpy() if self.dls.columns.id in df else np.array([])
        new_matcher, skipped = Matcher.from_df(
            df, self.dls.image_folder if path is None else path, rule,
            self.encoder(tta, device), self.dls.columns, info, on_error=on_error,
            trained_on=ids[self.trained_on.flags(ids)])
        if len(skipped):
            new_matcher.info['skipped'] = skipped.astype(str).to_dict('records')
            warnings.warn(f'{len(skipped)} listings are not in the catalogue: {preview(skipped.id)} '
                          '(all with their reasons in `info`)', stacklevel=2)
        return new_matcher
