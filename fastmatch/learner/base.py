"What Learners over listings share: encoders from names, parameter groups and their rates, validation."
import warnings
from functools import partial

import torch

# these imports give fastai's Learner to_fp16, summary, progress bars, lr_find and its schedules
from fastai.callback import fp16, hook, progress, schedule  # noqa: F401
from fastai.callback.core import CancelFitException, GatherPredsCallback
from fastai.callback.tracker import TerminateOnNaNCallback, TrackerCallback
from fastai.learner import Learner
from fastcore.meta import delegates
from fastcore.xtras import ContextManagers
from torch import nn

from ..callback.base import in_lr_find, leave_autocast
from ..callback.half import CPUMixedPrecision
from ..callback.learner_methods import CallbackMethods
from ..callback.scoring import GroupRates
from ..core import InputError, preview
from ..data.loader import short_titles_first
from ..layers.padding import most_tokens
from ..losses.base import NotANumber
from ..models.checkpointing import checkpoint_layers
from ..models.compiling import check_compiler, compile_encoder, set_channels_last
from ..models.frozen_encoder import FrozenEncoder
from ..models.fusion import MAX_FRAMES, make_fusion
from ..models.layered import parameters_by_layer
from ..models.parts import make_part_encoder
from ..models.registry import make_encoder, make_tokenizer
from ..optim.prepare import prepare_optimizer
from ..schedule.patch import ScheduledFits
from ..schedule.rates import ALIASES, check_rates, named_rates, rate_factors
from .fits import FastaiFits, device_type
from .processes import SharedFits
from .reading import EncoderInputs, fingerprint_of, tokenize_of
from .show import draw_attention, item_row
from .trial import check_words, long_titles, places_hint, read_trial, share_cut_off, try_encoder

# Factors on one learning rate. With the same rate everywhere, a pretrained transformer is ruined or new class
# centers hardly move. Measured on the emoji and luma data: an ImageNet encoder wants a quarter of the rate,
# MiniLM a twentieth (1e-4 at 2e-3), new centers five times as much.
LR_MULT = {'image': .25, 'title': .05, 'fusion': .25, 'head': 5.}

# options of learners that `make_encoders` takes
ENCODER_OPTIONS = ('pretrained', 'normalize', 'pool', 'image_pool', 'checkpointing', 'compile',
                   'channels_last')
SAMPLED_TITLES = 1000  # titles whose tokens are counted before the training
MANY = .1  # share of titles that are not read to their end from which on it is said


def checked_factors(
    model,  # With a method `param_groups`
    lr_mult: dict | None,  # Factor on one learning rate by group; None: `LR_MULT`
) -> dict[str, float]:
    """`lr_mult` by the model's own names of its groups, or those of `LR_MULT` that the model has groups for;
    `InputError` for a name that no group has."""
    groups = model.param_groups()
    if lr_mult is None: return {name: LR_MULT[name] for name in groups if name in LR_MULT}
    return {name: factor for name, factor in zip(groups, rate_factors(model, lr_mult)) if factor != 1}


def group_callbacks(
    model,  # With a method `param_groups`
    splitter,  # As a learner was given it: the user's own groups, or None
    lr_mult: dict | None,  # As a learner was given it
    layer_decay: float | None,  # As a learner was given it; the model's encoders are split into layers for it
) -> list[GroupRates]:
    "The callback that gives each parameter group its rate; the deeper a layer, the lower."
    if splitter is not None:
        if not lr_mult and layer_decay is None: return []
        raise InputError('splitter: lr_mult and layer_decay are for the groups that the model has; give '
                         'rates for your own groups as a list or a slice')
    factors = checked_factors(model, lr_mult)
    if layer_decay is None: return [GroupRates(factors)]
    if not 0 < layer_decay <= 1: raise InputError(f'layer_decay={layer_decay}: above 0, at most 1')
    model.by_layer = True
    for modality, encoder in model.encoders.items():
        n_layers = len(parameters_by_layer(encoder))
        encoder_factor = factors.pop(modality, 1.)
        for layer in range(n_layers):
            depth = n_layers - 1 - layer
            factors[f'{modality}.{layer}'] = encoder_factor * layer_decay**depth
    return [GroupRates(factors)]


def groups_splitter(
    model,  # With a method `param_groups`
) -> list[list]:
    "The model's parameter groups in their order (image, title, head): a `splitter` for fastai's Learner."
    return list(model.param_groups().values())


def _check_opt_func(opt_func):
    "Raise `InputError` for a name, or an optimizer of torch's, in the place of a fastai optimizer function."
    if isinstance(opt_func, str):
        raise InputError(f'opt_func={opt_func!r}: give the function, opt_func({opt_func!r})')
    if isinstance(opt_func, type) and issubclass(opt_func, torch.optim.Optimizer):
        raise InputError(f'opt_func={opt_func.__name__}: fastai wraps an optimizer of torch, '
                         f'partial(OptimWrapper, opt={opt_func.__name__})')
    if not callable(opt_func):
        raise InputError(f'opt_func={opt_func!r}: give a fastai optimizer function, e.g. adamw')


def check_one_batch(
    dls,  # `ListingDataLoaders`
):
    "Raise `InputError` where the listings fill no batch: fastai leaves an incomplete one out of an epoch."
    if len(dls.train): return
    raise InputError(f'bs={dls.train.bs}: only {dls.train.n} listings to train on, not one batch; '
                     'give a smaller one')


class ListingLearner(SharedFits, FastaiFits, ScheduledFits, CallbackMethods, Learner):
    """A `Learner` for listings, the base of `MatchLearner` and `ClassifyLearner`.

    `validate` works with a tracker (`SaveModelCallback`, `EarlyStoppingCallback`) among the callbacks, and a
    loss that becomes NaN raises `NotANumber` with epoch and batch.

    `dls` is a copy of the dataloaders it was given, with the tokenizer and the normalizing of its own
    encoders; what is set as `learn.dls` later is copied in the same way.
    """
    encoder_inputs = None  # a Learner exported by an earlier version has them in its `dls` already
    needs_two_rows = nn.BatchNorm1d  # layers that can't be trained on a batch of one row

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
        _check_opt_func(self.opt_func)
        if isinstance(self.lr, dict): self.lr = named_rates(model, self.lr)
        check_rates(self.lr)

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
        self._check_single_rows(dls.train)

    def _check_single_rows(self, loader):
        "Raise `InputError` for a batch of one row where BatchNorm would have to find its spread."
        n_rows = loader.n if getattr(loader, 'sampler', None) is None else len(loader.sampler)
        rest = 0 if loader.drop_last else n_rows % loader.bs
        if 1 not in (loader.bs, rest): return
        if not any(isinstance(module, self.needs_two_rows) for module in self.model.modules()): return
        which = 'a batch' if loader.bs == 1 else f'the last batch of {n_rows} listings'
        raise InputError(f'bs={loader.bs}: {which} has one row, and BatchNorm needs two; give another '
                         'bs, or drop_last=True')

    def encoder_state(self) -> dict:  # Name -> tensor, on the CPU; copies
        """The weights of encoders and fusion, for `load_encoder_state` of another learner: what was learnt in
        pretraining, or on pseudo-labels."""
        net = getattr(self.model, 'net', self.model)
        return {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()
                if name.startswith(('encoders.', 'fusion.'))}

    def load_encoder_state(
        self,
        state: dict,  # From `encoder_state` of another learner
    ):  # This learner
        """Load the weights of encoders and fusion. Raises `InputError` unless they are those of this model,
        all of them; heads and necks stay as they are."""
        if not isinstance(state, dict):
            raise InputError(f'state: {type(state).__name__} given; give encoder_state() of another learner')
        own = {name: tensor for name, tensor in self.model.state_dict().items()
               if name.startswith(('encoders.', 'fusion.'))}
        wrong = sorted(set(own) ^ set(state)) or [name for name in own
                                                  if own[name].shape != state[name].shape]
        if wrong:
            raise InputError(f'state: {preview(wrong)} differ from what this model has: it was made by other '
                             'encoders or another fusion')
        self.model.load_state_dict(state, strict=False)
        return self

    @torch.no_grad()
    def show_attention(
        self,
        item=None,  # Id of an item of `dls`; None: the first held-out one with the most frames
    ):
        "Show the frames of an item and how much each looks at each word; for a model with a fusion."
        net = getattr(self.model, 'net', self.model)
        if getattr(net, 'fusion', None) is None:
            raise InputError("there is no attention of frames to words: give fusion='single' or 'double'")
        row = item_row(self.dls, item)
        loader = self.encoder_inputs.fit_loader(self.dls.test_dl(row, bs=1, num_workers=0))
        inputs = loader.one_batch()[:self.dls.n_inp]
        was_training = self.model.training
        self.model.eval()
        try:
            batch = net.read(*inputs)
            if not (batch.has_frame.any() and batch.is_token.any()):
                raise InputError(f'item={row[self.dls.columns.id].iloc[0]!r}: it lacks frames, or text')
            shares = net.fusion.attention(net.encoders['title'], batch)[0].float().cpu()
        finally: self.model.train(was_training)
        tokenizer = tokenize_of(self.dls).tokenizer
        words = [tokenizer.decode([token]) for token in batch.ids[0, batch.is_token[0]].tolist()]
        draw_attention(self.dls, row.iloc[0], words, shares[batch.has_frame[0].cpu()][:, :len(words)])

    def validate(self, ds_idx=1, dl=None, cbs=None):
        "fastai's `validate`."
        if dl is None and ds_idx == 1 and not len(self.dls.valid):
            raise InputError('the dataloaders hold no listings for validation')
        return super().validate(ds_idx, dl, cbs)

    def _end_cleanup(self):
        super()._end_cleanup()
        # fastai leaves it, with the graph of the last batch, and a Learner with it can't be copied
        self.loss_grad = None

    def to_bf16(self):
        """fastai's `to_bf16`; on a CPU with bfloat16 too, where a text encoder trains nearly three times as
        fast with AMX, and slower without. Raises `InputError` when a fit begins on a CPU that has none."""
        if device_type(self.dls) != 'cpu': return super().to_bf16()
        return self.add_cb(CPUMixedPrecision())

    def lr_find(self, *args, **kwargs):
        "fastai's `lr_find`."
        self.check_trainable(self.dls)
        return super().lr_find(*args, **kwargs)

    def _do_fit(self):
        self.check_trainable(self.dls)
        super()._do_fit()

    @delegates(Learner.get_preds)
    def get_preds(self, ds_idx=1, dl=None, *args, **kwargs):
        "fastai's `get_preds`: titles of like length are read together, and put back in their order."
        if dl is None: dl = self.dls[ds_idx].new(shuffle=False, drop_last=False)
        # the tokenizer that tells how long titles are
        elif self.encoder_inputs is not None: dl = self.encoder_inputs.fit_loader(dl)
        with short_titles_first(dl): return super().get_preds(ds_idx, dl, *args, **kwargs)

    def _do_epoch_validate(self, ds_idx=1, dl=None):
        if dl is None: dl = self.dls[ds_idx]
        # `get_preds(dl=...)` and `validate(dl=...)` may get a loader that knows nothing of this learner
        elif self.encoder_inputs is not None: dl = self.encoder_inputs.fit_loader(dl)
        # `get_preds` knows in which order it asked for rows; gathered otherwise they are in that of the table
        is_gathered = bool(self._grab_cbs(GatherPredsCallback))
        with short_titles_first(dl, is_on=not is_gathered): super()._do_epoch_validate(ds_idx, dl)

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
    # Load weights; False: random ones; or for each: {'image': True, 'title': False}
    pretrained: bool | dict = True,
    normalize: bool = True,  # Normalize images as the image encoder's weights were trained
    # Pooling of the text encoder: 'mean', 'cls', 'max', 'lasttoken', ...; None: as its folder asks
    pool: str | None = None,
    # pooling of the image encoder: 'gem', timm's 'avg', 'max', 'avgmax' or 'catavgmax'; None: the model's own
    image_pool: str | None = None,
    # Keep little of what the encoders compute, and compute it again for the gradients: less memory, a third
    # more time; or for each: {'image': False, 'title': True}
    checkpointing: bool | dict = False,
    # Let torch compile the encoders, for which it needs a C++ compiler and minutes; or for each, as above
    compile: bool | dict = False,
    # How pictures lie in memory; None: channels last for timm's models, which pays, others as they are
    channels_last: bool | None = None,
    # Parts of a picture with an embedding and a head each: 'pcb', 'mgn', `Parts`, or a function from a
    # feature map to a list of maps; None: one embedding of the whole
    parts=None,
):  # (image encoder or None, text encoder or None, `EncoderInputs`, `Trial` of listings that they can read)
    "Make the encoders that the columns of `dls` ask for, say what they read, and try them on two listings."
    image = title = None
    is_pretrained = _by_modality(pretrained)
    is_checkpointed = _by_modality(checkpointing, 'checkpointing')
    is_compiled = _by_modality(compile, 'compile')
    if any(is_compiled.values()): check_compiler(device_type(dls))
    inputs = EncoderInputs(dls.columns.image is not None)
    trial = read_trial(dls)
    inputs.features = fingerprint_of(dls)
    if getattr(dls, 'picture_features', None) is not None:
        if parts is not None: raise InputError('parts: frame_features are of whole pictures; choose one')
        image = FrozenEncoder(dls.picture_features)
    elif dls.columns.image is not None and frame_width_of(dls) is None:
        if image_arch is None:
            raise InputError('image_arch=None, but dls has images: '
                             'make dls with image_col=None, or name an encoder')
        make = make_encoder if parts is None else partial(make_part_encoder, parts=parts)
        arguments = ('image', image_arch) if parts is None else (image_arch,)
        image = make(*arguments, pretrained=is_pretrained['image'], pool=image_pool, img_size=trial.size)
        if is_checkpointed['image']: checkpoint_layers(image)
        if channels_last is not None: set_channels_last(image, channels_last)
        try_encoder('image_arch', image_arch, image, trial.pictures[0])
        if normalize: inputs.mean, inputs.std = image.mean, image.std
        if is_compiled['image']: compile_encoder(image, any_length=False)
    if dls.columns.title is not None:
        if text_arch is None:
            raise InputError('text_arch=None, but dls has titles: '
                             'make dls with title_col=None, or name an encoder')
        inputs.tokenizer = make_tokenizer(text_arch)
        title = make_encoder('text', text_arch, is_pretrained['title'], pool, inputs.tokenizer.pad_token_id)
        if is_checkpointed['title']: checkpoint_layers(title)
        trial.titles = [_tried_titles(dls, text_arch, title, inputs.tokenizer)]
        if is_compiled['title']: compile_encoder(title, any_length=True)
    return image, title, inputs, trial


def frame_width_of(
    dls,  # `ListingDataLoaders`
) -> int | None:
    "The length of the features that dataloaders read in place of pictures; None where they read none."
    reading = getattr(dls, 'frame_reading', None)
    return None if reading is None or reading.features is None else reading.features.n_out


def make_fusion_of(
    dls,  # `ListingDataLoaders`
    fusion,  # 'single', 'double', a function that makes it; None: no fusion
    image: nn.Module | None,  # Image encoder
    title: nn.Module | None,  # Text encoder
) -> nn.Module | None:
    "The fusion of a learner's encoders; `InputError` unless `dls` holds frames and text."
    if fusion is None: return None
    if dls.frame_reading is None or title is None:
        raise InputError(f'fusion={fusion!r} joins frames and text: make dls with image_col, title_col and '
                         'frames=2 or more, the most pictures of an item')
    if dls.frame_reading.n > MAX_FRAMES:
        raise InputError(f'frames={dls.frame_reading.n}: a fusion has positions for {MAX_FRAMES}')
    return make_fusion(fusion, title, frame_width_of(dls) or image.n_out)


def _by_modality(given, option='pretrained'):
    "What an option says of each encoder, by modality."
    if isinstance(given, bool): return {'image': given, 'title': given}
    if not isinstance(given, dict):
        raise InputError(f"{option}={given!r}: True, False, or e.g. {{'image': True, 'title': False}}")
    by_modality = {ALIASES.get(modality, modality): value for modality, value in given.items()}
    unknown = set(by_modality) - {'image', 'title'}
    if unknown: raise InputError(f"{option} names {sorted(unknown)}: there are 'image' and 'title'")
    default = option == 'pretrained'
    return {'image': default, 'title': default, **by_modality}


def _tried_titles(dls, text_arch, encoder, tokenizer):
    """Token ids of two titles that the encoder has read; warns where it reads fewer tokens than `dls` keeps,
    and where many of the titles have more."""
    tokenize = tokenize_of(dls)
    max_len, limits = tokenize.max_len, getattr(tokenize, 'limits', None)
    check_words(text_arch, encoder, tokenizer)
    token_ids = long_titles(tokenizer, max_len)
    try_encoder('text_arch', text_arch, encoder, token_ids, places_hint(encoder, token_ids.shape[1]))
    limit = most_tokens(tokenizer, max_len)
    if limits is not None:
        if limit == max_len: return token_ids
        raise InputError(f'max_len: {limits} tokens and separators are {max_len}, and text_arch='
                         f'{text_arch!r} reads {limit}')
    if limit < max_len:
        shown = text_arch if isinstance(text_arch, str) else type(encoder).__name__
        warnings.warn(f'text_arch={shown!r} reads {limit} tokens of a title and not max_len={max_len}: '
                      'the rest of longer titles is left out', stacklevel=4)
    titles = dls.df[dls.columns.title]
    every = -(-len(titles) // SAMPLED_TITLES)
    share = share_cut_off(tokenizer, titles.iloc[::every], limit)
    if share >= MANY:
        advice = '' if limit < max_len else f': make dls with max_len={2 * max_len} to have more read'
        warnings.warn(f'{share:.0%} of the titles have more than {limit} tokens, and the rest is left out'
                      + advice, stacklevel=4)
    return token_ids
