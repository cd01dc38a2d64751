"From a trained Learner to what is handed to others: an encoder or a matcher, without fastai or pickle in it."
import copy
import warnings
from dataclasses import replace

import numpy as np
from fastai.data.transforms import Normalize, ToTensor

from ..core import InputError, preview
from ..data.picture_store import store_of
from ..data.pictures import first_picture
from ..match.rule import Rule
from ..matcher import Encoder, Matcher, Picture
from ..matcher.known import check_ids
from ..matcher.parts import draw_parts
from ..models import Views
from ..models.frozen_encoder import FrozenEncoder
from .reading import tokenize_of
from .resizing import ITEM_RESIZERS, picture_of_features, resizing_of, unlike, validation_transforms


def picture_of(
    dls,  # `MatchDataLoaders` with images
) -> Picture:
    """How validation images are resized and normalized.

    Raises `InputError` for a transform that a matcher can't repeat: anything but a `Resize` or
    `RandomResizedCrop`, batch transforms with a `size`, a `Normalize`, and augmentations that leave
    validation images as they are. Of features it says how the pictures were read that they are of.
    """
    if dls.picture_features is not None: return picture_of_features(dls.picture_features)
    item_transforms = [transform for transform in validation_transforms(dls.valid.after_item)
                       if not isinstance(transform, ToTensor)]
    for transform in item_transforms:
        if not isinstance(transform, ITEM_RESIZERS):
            raise InputError('item_tfms: a matcher repeats a Resize or a RandomResizedCrop, not '
                             f'{type(transform).__name__}')
    if len(item_transforms) != 1:
        given = ' and '.join(type(transform).__name__ for transform in item_transforms) or 'there is none'
        raise InputError(f'item_tfms: a matcher needs one Resize to know the size of images ({given})')
    picture = resizing_of(dls)
    for transform in validation_transforms(dls.valid.after_batch):
        if isinstance(transform, Normalize):
            picture = replace(picture, mean=_plain(transform.mean), std=_plain(transform.std))
    culprit = unlike(dls, picture)
    if culprit:
        raise InputError(f'batch_tfms: {culprit} changes validation images, which a matcher does not repeat')
    return picture


def _plain(values):
    "A channel's figures, of a tensor or a list, as plain numbers."
    values = values.flatten().tolist() if hasattr(values, 'flatten') else values
    return [float(value) for value in values]


def check_exportable(
    dls,  # `MatchDataLoaders`, as a Learner has them before its training
):
    "Raise `InputError` for pictures or ids that train, and that no matcher can take."
    try:
        if dls.picture_features is not None: FrozenEncoder(dls.picture_features).thawed()
        if dls.columns.image is not None: picture_of(dls)
        check_ids(dls.df[dls.columns.id], dls.columns.id)
        if tokenize_of_parts(dls):
            raise InputError('max_len by column: a matcher reads one text; give one number for all columns')
    except InputError as error:
        raise InputError(f'{error}. This Learner would train, and no matcher could be made of it: '
                         'check_matcher=False trains all the same') from None


def tokenize_of_parts(dls):
    "Whether the texts of a listing are tokenized apart."
    tokenize = tokenize_of(dls)
    return tokenize is not None and getattr(tokenize, 'limits', None) is not None


class MatcherExport:
    "Methods of `MatchLearner` that give what it trained in a form that needs no fastai."
    def encoder(
        self,
        # Average each picture's embedding with its mirror image's, or with further `Views`
        tta: bool | Views = False,
        device: str | None = None,  # Where it runs; default where the Learner does
    ) -> Encoder:
        "A copy of the trained encoders that embeds listings; raises `InputError` as `picture_of` does."
        if self.model.fusion is not None or tokenize_of_parts(self.dls):
            raise InputError('a matcher reads one picture at a time and one text: it can not hold a fusion, '
                             'or texts with limits of their own (max_len by column); learn.embeddings(df) '
                             'embeds listings')
        model = copy.deepcopy(self.model).cpu()
        model.heads.clear()
        for modality, encoder in model.encoders.items():
            if isinstance(encoder, FrozenEncoder): model.encoders[modality] = encoder.thawed()
        picture = picture_of(self.dls) if 'image' in model.encoders else None
        tokenize = tokenize_of(self.dls)
        device = str(device or self.dls.device)
        read_titles = () if tokenize is None else (tokenize.tokenizer, tokenize.max_len)
        encoder = Encoder(model, picture, *read_titles, tta=tta, device=device)
        # an exported Learner has no options
        if self.dls.options is not None: encoder.picture_store = store_of(self.dls.options.store)
        return encoder

    def show_parts(
        self,
        first,  # Id of a listing of `dls`
        second,  # Id of another
    ):  # matplotlib figure
        "Show two listings and how similar each stripe or cell of them is; for a model with `parts`."
        table, columns = self.dls.all_df, self.dls.columns
        files = []
        for listing in (first, second):
            rows = table[table[columns.id].astype(str) == str(listing)]
            if not len(rows): raise InputError(f'{listing!r}: no listing of these dls')
            if columns.image is not None:
                files.append(first_picture(rows[columns.image].iloc[0], self.dls.image_folder)[0])
        if not files: raise InputError('these dls hold titles alone: there are no parts of pictures')
        return draw_parts(self.encoder(), *files)

    def matcher(
        self,
        # The catalogue: listings with the columns of `dls`; default all of `dls`, those without a group too
        df=None,
        rule: Rule | None = None,  # As `choose_rule` or `tune_rule` give it
        path=None,  # Folder of the images; default that of `dls`
        tta: bool | Views = False,  # As in the `learn.embeddings` that the rule was chosen on
        device: str | None = None,  # Where the encoders run; default where the Learner does
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used, with a warning
        info: dict | None = None,  # Kept with it: how it was trained, what it scored
    ) -> Matcher:
        """Encoders, rule and catalogue as one object that saves to a folder and matches new listings.

        Raises `InputError` where the rule was chosen on embeddings with another `tta` or other sizes.
        """
        if self.model.fusion is not None: self.encoder()
        if not isinstance(rule, Rule):
            raise InputError(f'rule={rule!r}: give a Rule, '
                             'e.g. choose_rule(candidates(emb.spaces()), emb.groups)')
        if df is None: df = self.dls.all_df
        ids = df[self.dls.columns.id].to_numpy() if self.dls.columns.id in df else np.array([])
        new_matcher, skipped = Matcher.from_df(
            df, self.dls.image_folder if path is None else path, rule,
            self.encoder(tta, device), self.dls.table_columns, info, on_error=on_error,
            trained_on=ids[self.trained_on.flags(ids)])
        if len(skipped):
            new_matcher.info['skipped'] = skipped.astype(str).to_dict('records')
            warnings.warn(f'{len(skipped)} listings are not in the catalogue: {preview(skipped.id)} '
                          '(all with their reasons in `info`)', stacklevel=2)
        return new_matcher
