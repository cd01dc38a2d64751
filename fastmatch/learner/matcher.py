"From a Learner to what is handed to others: a matcher without fastai or pickle in it."
import copy
import warnings

import torch
from fastai.data.transforms import IntToFloatTensor, Normalize, ToTensor
from fastai.vision.augment import Resize
from fastai.vision.core import TensorImage
from fastcore.basics import patch

from ..core import InputError, preview
from ..data.block import Tokenize
from ..learner import MatchLearner
from ..match.rule import Rule
from ..matcher import Encoder, Matcher, Picture

PAD = {'zeros': 'constant', 'border': 'edge', 'reflection': 'reflect'}  # fastai's names -> torchvision's


def _valid(tfms): return [o for o in tfms.fs if getattr(o, 'split_idx', None) != 0]


def picture_of(
    dls,  # `MatchDataLoaders` with images
) -> Picture:
    "How validation images are resized and normalised; raises `InputError` for a transform that a matcher can't repeat."
    resize = norm = None
    for tfm in _valid(dls.valid.after_item):
        if isinstance(tfm, Resize): resize = tfm
        elif not isinstance(tfm, ToTensor): raise InputError(f'item_tfms: a matcher repeats a Resize, not {type(tfm).__name__}')
    if resize is None: raise InputError('item_tfms: a matcher needs a Resize to know the size of images')
    others = []
    for tfm in _valid(dls.valid.after_batch):
        if isinstance(tfm, Normalize): norm = tfm
        elif not isinstance(tfm, IntToFloatTensor): others.append(type(tfm).__name__)
    mean, std = ((norm.mean, norm.std) if norm is not None else ([0.] * 3, [1.] * 3))
    flat = [[float(v) for v in (o.flatten().tolist() if hasattr(o, 'flatten') else o)] for o in (mean, std)]
    res = Picture(tuple(resize.size), str(resize.method), PAD[str(resize.pad_mode)], int(resize.mode), *flat)
    # many augmentations run in validation too and do nothing there; whether that is so, a picture tells
    probe = torch.randint(0, 256, (2, *res.size[::-1], 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dls.valid.before_iter()  # tells the transforms that they are in validation
    theirs = dls.valid.after_batch((TensorImage(probe.permute(0, 3, 1, 2)).to(dls.device),))[0].as_subclass(torch.Tensor).cpu()
    ours = res.normalize(probe)
    if ours.shape != theirs.shape or (ours - theirs).abs().max() > 1e-2:
        raise InputError(f'batch_tfms: {" or ".join(others) or "Normalize"} changes validation images, which a matcher does not repeat')
    return res


@patch
def encoder(
    self: MatchLearner,
    tta: bool = False,  # Average each picture's embedding with its mirror image's
    device: str | None = None,  # Where it runs; default where the Learner does
) -> Encoder:
    "A copy of the trained encoders that embeds listings without fastai."
    model = copy.deepcopy(self.model).cpu()
    model.heads.clear()
    tokenize = next((o for o in self.dls.valid.before_batch.fs if isinstance(o, Tokenize)), None)
    return Encoder(model, picture_of(self.dls) if 'image' in model.encoders else None, tokenize and tokenize.tokenizer,
                   tokenize.max_len if tokenize else 64, tta, str(device or self.dls.device))


@patch
def matcher(
    self: MatchLearner,
    df=None,  # The catalogue: listings with the columns `dls` was made with; default all listings of `dls`
    rule: Rule | None = None,  # As `choose_rule` or `tune_rule` give it
    path=None,  # Folder of the images; default that of `dls`
    tta: bool = False,  # As in the `learn.embeddings` that the rule was chosen on
    device: str | None = None,  # Where the encoders run; default where the Learner does
    on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
    info: dict | None = None,  # Kept with it: how it was trained, what it scored
) -> Matcher:
    "Encoders, rule and catalogue as one thing that saves without pickle and matches new listings without fastai."
    if not isinstance(rule, Rule): raise InputError(f'rule={rule!r}: give a Rule, e.g. choose_rule(candidates(emb.spaces()), emb.groups)')
    res, skipped = Matcher.from_df(self.dls.df if df is None else df, self.dls.image_folder if path is None else path, rule, self.encoder(tta, device),
                             self.dls.columns, info, on_error=on_error, trained_on=self.trained_on.ids)
    if len(skipped):
        res.info['skipped'] = skipped.astype(str).to_dict('records')
        warnings.warn(f'{len(skipped)} listings are not in the catalogue: {preview(skipped.id)} (all with their reasons in `info`)', stacklevel=2)
    return res
