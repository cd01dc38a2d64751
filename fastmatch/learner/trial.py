"""A new Learner tried on two listings: what would fail in the first batch is told before the training.

Nothing of it stays: random numbers go on as if none had been drawn, weights and running statistics are as
they were.
"""
import copy
from dataclasses import dataclass, field

import torch
from fastai.learner import AvgMetric
from torch import nn

from ..callback.base import give_labels_to_heads
from ..callback.state import ModelBuffers, preserved_randomness
from ..core import InputError
from ..data.features import TensorFeatures
from ..data.frames import TensorCount, TensorFrames
from ..layers.padding import most_tokens, pad_token_ids
from ..losses.base import Loss
from ..losses.distill import SoftTarget
from ..matcher.batches import tokenize_titles
from ..models.compiling import not_compiled


@dataclass
class Trial:
    "Two training listings of different groups: what a model reads of them, on the CPU, and their targets."
    # Tensors (2,3,h,w), one for each picture of a listing, or one of their features (2,f,d) or (2,d)
    pictures: list
    targets: list  # Tensors of two rows
    # Of items with frames one int64 (2,): how many each has
    counts: list = field(default_factory=list)
    titles: list = field(default_factory=list)  # Token ids (2,l), once there is a tokenizer

    @property
    def inputs(self) -> list:
        "In the order in which a model takes them."
        return [*self.pictures, *self.counts, *self.titles]

    @property
    def size(self) -> tuple | None:
        "(height, width) of the pictures; None where there are none."
        if not self.pictures or self.pictures[0].ndim != 4: return None
        return tuple(self.pictures[0].shape[-2:])


def read_trial(
    dls,  # `ListingDataLoaders`
) -> Trial:
    "Two training listings, read as in validation."
    listings = dls.train_df
    other = len(listings) - 1
    if dls.columns.group is not None:
        other_group = listings[dls.columns.group] != listings[dls.columns.group].iloc[0]
        other = int(other_group.to_numpy().argmax()) or other
    rows = listings.iloc[[0, other]]
    with preserved_randomness():
        batch = dls.test_dl(rows, bs=len(rows), with_labels=True, num_workers=0).one_batch()
    inputs, targets = batch[:dls.n_inp], batch[dls.n_inp:]
    pictures = [part for part in inputs if isinstance(part, (TensorFrames, TensorFeatures)) or (
        isinstance(part, torch.Tensor) and part.ndim == 4)]
    counts = [part for part in inputs if isinstance(part, TensorCount)]
    return Trial(*([part.as_subclass(torch.Tensor).cpu() for part in parts]
                   for parts in (pictures, targets, counts)))


def long_titles(
    tokenizer,  # Of the title encoder
    max_len: int,  # Tokens after which titles are truncated
) -> torch.Tensor:  # int64 (2,l)
    "Token ids of two titles, one of them as long as titles may be."
    # a word has a token at least
    titles = [' '.join(['listing'] * most_tokens(tokenizer, max_len)), 'a listing']
    return pad_token_ids(tokenize_titles(tokenizer, titles, max_len), tokenizer.pad_token_id)


def share_cut_off(
    tokenizer,  # Of the title encoder
    titles,  # Strings
    limit: int,  # Tokens after which titles are truncated
) -> float:
    "The share of titles that have more tokens than are read."
    titles = [str(title) for title in titles]
    token_ids = tokenizer(titles, truncation=True, max_length=limit + 1)['input_ids']
    # a tokenizer of the user's own may pad all of them to that length
    lengths = [sum(token != tokenizer.pad_token_id for token in title_ids) for title_ids in token_ids]
    return sum(length > limit for length in lengths) / max(1, len(lengths))


def try_encoder(
    option: str,  # 'image_arch' or 'text_arch', for messages
    name,  # What was given for it
    encoder: nn.Module,  # The encoder
    batch: torch.Tensor,  # Two rows of what it reads
    hint: str = '',  # What to do where it fails
):
    "Raise `InputError` unless the encoder makes features (2, n_out) of two rows."
    parameter = next(encoder.parameters(), batch)
    shown = name if isinstance(name, str) else type(encoder).__name__
    training_modes = {module: module.training for module in encoder.modules()}
    try:
        with preserved_randomness(), torch.no_grad(): features = encoder.eval()(batch.to(parameter.device))
    except InputError: raise
    # each library has its own errors for what it can't read
    except Exception as error:
        raise InputError(f'{option}={shown!r} can not read a batch {tuple(batch.shape)} of these listings '
                         f'({type(error).__name__}: {_first_line(error)}){hint}') from error
    finally:
        for module, training in training_modes.items(): module.training = training
    shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
    if shape != (len(batch), encoder.n_out):
        raise InputError(f'{option}={shown!r}: of {len(batch)} rows it makes {shape} and not features '
                         f'({len(batch)}, {encoder.n_out})')


def check_words(
    name,  # Text encoder, for messages
    encoder: nn.Module,  # The encoder
    tokenizer,  # Its tokenizer
):
    "Raise `InputError` unless a text encoder of transformers has a vector for each token."
    body = getattr(encoder, 'body', None)
    if not hasattr(body, 'get_input_embeddings') or not hasattr(tokenizer, 'get_vocab'): return
    # CANINE hashes characters into several tables and has no one vector for each
    try: n_words = getattr(body.get_input_embeddings(), 'num_embeddings', None)
    except NotImplementedError: return
    largest = max(tokenizer.get_vocab().values())
    if n_words is not None and largest >= n_words:
        raise InputError(f'text_arch={str(name)!r} has vectors for {n_words} tokens, its tokenizer makes '
                         f'{largest + 1}: they belong to different models')


def places_hint(
    encoder: nn.Module,  # Text encoder
    tokens: int,  # Of the longest title
) -> str:
    "What to do about titles that are longer than an encoder of transformers has places for."
    places = getattr(getattr(getattr(encoder, 'body', None), 'config', None), 'max_position_embeddings', None)
    if not isinstance(places, int) or not 0 < places < tokens: return ''
    return f': it has {places} places for tokens, make dls with max_len={places}'


def check_loss(
    loss_func,  # As a learner was given it
):
    "Raise `InputError` for a class or a text in the place of a loss."
    if isinstance(loss_func, type):
        raise InputError(f'loss_func={loss_func.__name__}: that is the class, give an instance: '
                         f'{loss_func.__name__}()')
    if not callable(loss_func):
        raise InputError(f'loss_func={loss_func!r}: give a loss, e.g. ArcFace(m=.3, s=20)')


def try_loss(
    learner,  # A Learner that is ready to train
    trial: Trial,  # Of its listings
):
    "Raise `InputError` unless the loss reads what the model makes of two rows in training."
    model = learner.model
    device = next(model.parameters()).device
    # each row twice: a loss over pairs wants rows of one group and of two
    inputs = [torch.cat([each, each]).to(device) for each in trial.inputs]
    targets = [torch.cat([each, each]).to(device) for each in trial.targets]
    buffers = ModelBuffers(model)
    copies = buffers.copy()
    training_modes = {module: module.training for module in model.modules()}
    # a copy: a loss may count its calls
    loss = copy.deepcopy(learner.loss_func) if isinstance(learner.loss_func, nn.Module) else learner.loss_func
    hint = _hint_of_probabilities(loss, targets)
    try:
        with preserved_randomness(), torch.no_grad(), not_compiled():
            give_labels_to_heads(model, targets[0])
            output = model.train()(*inputs)
            if getattr(loss, 'n_targets', 1) > len(targets): targets.append(_first_head(output))
            value = loss(output, *targets)
    except InputError as error:
        if not hint: raise
        raise InputError(f'loss_func={_name(loss)}: {error}{hint}') from error
    # whatever a loss that reads something else raises
    except Exception as error:
        raise InputError(f"loss_func={_name(loss)}: it can't read what the model's heads return in training "
                         f'({type(error).__name__}: {_first_line(error)}); a loss of fastmatch.losses does'
                         + hint) from error
    finally:
        give_labels_to_heads(model, None)
        buffers.restore(copies)
        for module, training in training_modes.items(): module.training = training
    if not isinstance(value, torch.Tensor) or (value.numel() != 1 and not isinstance(loss, Loss)):
        given = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(f'loss_func={_name(loss)}: a loss is one number, it returns {given}')


def _first_head(output):
    "What one head returned: it stands in for a teacher's logits, which a callback brings in training only."
    return next(iter(output.values())) if isinstance(output, dict) else output


def _hint_of_probabilities(loss, targets):
    "What to do where a loss can't read targets that are probabilities; '' for others."
    if not targets[0].is_floating_point() or isinstance(loss, SoftTarget): return ''
    return ('. The targets of these dls are a probability for each class: SoftTarget() reads them, for other '
            'losses let label_col name one column of classes')


def try_metrics(
    learner,  # A `MatchLearner` that is ready to train
    trial: Trial,  # Of its listings
):
    "Raise `InputError` for functions as metrics that can't read the embeddings of two rows."
    device = next(learner.model.parameters()).device
    with preserved_randomness(), not_compiled():
        embeddings = learner.model.embed(*(each.to(device) for each in trial.inputs))
    targets = [target.to(device) for target in trial.targets]
    for metric in learner.metrics:
        if not isinstance(metric, AvgMetric): continue
        try: metric.func(embeddings, *targets)
        # whatever a function that reads something else raises
        except Exception as error:
            raise InputError(f"metrics={metric.name}: it can't read embeddings by modality "
                             f'({type(error).__name__}: {_first_line(error)}); RecallAt, MAPAtR, RowF1 do'
                             ) from error


def _name(loss): return getattr(loss, '__name__', type(loss).__name__)


def _first_line(error): return (str(error).strip() or 'no message').splitlines()[0][:200]
