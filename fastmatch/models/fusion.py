"""Frames and text in one model: a single stream or a double stream over encoders that exist.

An item has up to f frames (pictures) and a text. In a *single stream* the frames are put into the text
encoder's own sequence, beside the words, and go through all its layers. In a *double stream* each is encoded
by itself, and a few layers of cross-attention let one look at the other. Both take missing frames and missing
texts: what is not there is masked, and changes nothing.

`Streams` is what a net with a `fusion` can do (`ClassifyNet`, `MatchNet`, and the nets of pretraining).
"""
import inspect
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..core import InputError
from ..layers.padding import never_empty
from .layered import encoder_groups
from .sentence import pooled

MAX_FRAMES = 32  # frames of an item that have a position of their own
KINDS = 'single', 'double'
QUERIES = 'frames', 'text'
SAME = 1e-3  # how far two ways to the same vector may be apart; the values of an encoder are near 1


@dataclass(frozen=True)
class StreamBatch:
    "What a net with a fusion reads of n items: features of f frames each, and l tokens of text."
    frames: torch.Tensor  # float (n,f,d): features of frames; what is at missing ones counts for nothing
    has_frame: torch.Tensor  # bool (n,f): which frames are there
    ids: torch.Tensor  # int64 (n,l): token ids
    is_token: torch.Tensor  # bool (n,l): which are not padding; all False for an item without text

    def __len__(self): return len(self.ids)

    def with_frames_of(
        self,
        rows: torch.Tensor,  # int64 (n,): the item whose frames each item gets
    ) -> 'StreamBatch':
        "The same texts with frames of other items; their masks go with them."
        return replace(self, frames=self.frames[rows], has_frame=self.has_frame[rows])

    def with_texts_of(
        self,
        rows: torch.Tensor,  # int64 (n,): the item whose text each item gets
    ) -> 'StreamBatch':
        "The same frames with texts of other items; their masks go with them."
        return replace(self, ids=self.ids[rows], is_token=self.is_token[rows])

    def of(
        self,
        rows: torch.Tensor,  # int64 (m,) or bool (n,): items to take
    ) -> 'StreamBatch':
        "Some of the items, or some of them several times."
        return StreamBatch(self.frames[rows], self.has_frame[rows], self.ids[rows], self.is_token[rows])


@dataclass(frozen=True)
class Fused:
    "What a fusion makes of a batch; `width` is that of the text encoder."
    frames: torch.Tensor  # (n,f,width): of each frame; meaningless where there is none
    tokens: torch.Tensor  # (n,l,width): of each token; meaningless at padding
    pooled: torch.Tensor  # (n,width): of each item, the mean over what is there


def masked_mean(
    vectors: torch.Tensor,  # (n,k,d)
    is_there: torch.Tensor,  # bool (n,k)
) -> torch.Tensor:  # (n,d), in the precision of `vectors`
    "The mean of the vectors that are there, 0 where there is none; summed in float32."
    weights = is_there.unsqueeze(-1)
    counted = torch.where(weights, vectors.float(), 0.).sum(1)
    return (counted / weights.sum(1).clamp(min=1)).to(vectors.dtype)


class FrameEmbedding(nn.Module):
    "Features of frames (n,f,d) as vectors beside words (n,f,width): a linear layer, a position, a type."
    def __init__(
        self,
        n_in: int,  # d, of the features
        n_out: int,  # width
        std: float = .02,  # Of the positions to start from
    ):
        super().__init__()
        # features of an image encoder have any scale: ReLU's outputs of some are near 0, of others above 10
        self.norm = nn.LayerNorm(n_in)
        self.linear = nn.Linear(n_in, n_out)
        self.position = nn.Parameter(torch.randn(MAX_FRAMES, n_out) * std)
        self.kind = nn.Parameter(torch.zeros(n_out))

    def forward(self, frames):
        n_frames = frames.shape[1]
        if n_frames > MAX_FRAMES: raise InputError(f'{n_frames} frames an item: at most {MAX_FRAMES}')
        return self.linear(self.norm(frames)) + self.position[:n_frames] + self.kind


class SingleStream(nn.Module):
    """Frames in the text encoder's own sequence: its embeddings and all its layers read both.

    Needs a text encoder of BERT's kind: one that takes vectors in place of token ids, with positions by
    number. Raises `InputError` for another, found out by trying.
    """
    def __init__(
        self,
        title: nn.Module,  # `TitleEncoder`; it is not kept here, but handed to each call
        frame_width: int,  # Of the features of frames
    ):
        super().__init__()
        check_single(title)
        self.n_out = title.n_out
        self.frames = FrameEmbedding(frame_width, title.body.get_input_embeddings().embedding_dim)

    def forward(self, title, batch: StreamBatch) -> Fused:
        words = title.body.get_input_embeddings()(batch.ids)
        frames = self.frames(batch.frames).to(words.dtype)
        states = _joint_states(title.body, frames, batch.has_frame, words, batch.is_token)
        n_frames = frames.shape[1]
        mean = masked_mean(states, torch.cat([batch.has_frame, batch.is_token], 1))
        return Fused(states[:, :n_frames], states[:, n_frames:], mean)

    def attention(self, title, batch: StreamBatch) -> torch.Tensor:
        "How much each frame looks at each token (n,f,l) in the last layer, the mean over heads."
        words = title.body.get_input_embeddings()(batch.ids)
        frames = self.frames(batch.frames).to(words.dtype)
        given = title.body.config._attn_implementation
        # other ways to compute attention never have its shares in memory
        title.body.set_attn_implementation('eager')
        try:
            output = _joint(title.body, frames, batch.has_frame, words, batch.is_token,
                            output_attentions=True)
        finally: title.body.set_attn_implementation(given)
        n_frames = batch.frames.shape[1]
        return output.attentions[-1].mean(1)[:, :n_frames, n_frames:]

    def frames_alone(self, title, batch: StreamBatch):
        "A vector (n,width) of the frames of each item, which has seen no text."
        frames = self.frames(batch.frames)
        no_words = frames[:, :0]
        states = _joint_states(title.body, frames, batch.has_frame, no_words, batch.is_token[:, :0])
        return masked_mean(states, batch.has_frame)


class DoubleStream(nn.Module):
    """Frames and text encoded apart, then layers of cross-attention in which one looks at the other.

    `queries='frames'`: frames are the queries, the text is what they look at; the result is the mean over the
    frames. Beside the frames there is always one query more, which is learnt: an item without frames is still
    read. `'text'` is the other direction.
    """
    def __init__(
        self,
        title: nn.Module,  # `TitleEncoder`; it is not kept here, but handed to each call
        frame_width: int,  # Of the features of frames
        layers: int = 3,  # Of cross-attention
        heads: int | None = None,  # None: 12, or the largest number below it that divides the width
        queries: str = 'frames',  # 'frames' or 'text'
        dropout: float = .1,
    ):
        super().__init__()
        check_double(title)
        width = self.n_out = title.n_out
        if queries not in QUERIES: raise InputError(f'queries={queries!r}: choose one of {QUERIES}')
        if layers < 1: raise InputError(f'layers={layers}: give 1 or more')
        if heads is None: heads = max(number for number in range(1, 13) if width % number == 0)
        if heads < 1 or width % heads:
            raise InputError(f'heads={heads}: no divisor of {width}, the width of the text encoder')
        self.queries = queries
        self.frames = FrameEmbedding(frame_width, width)
        self.summary = nn.Parameter(torch.randn(width) * .02)
        layer = nn.TransformerDecoderLayer(width, heads, 4 * width, dropout, 'gelu', batch_first=True,
                                           norm_first=True)
        self.cross = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))

    def forward(self, title, batch: StreamBatch) -> Fused:
        tokens = text_states(title, batch.ids, batch.is_token).to(self.summary.dtype)
        frames = self.frames(batch.frames)
        summary = self.summary.to(frames.dtype).expand(len(frames), 1, -1)
        # the learnt query is never masked, so that no row of an attention is empty
        with_summary = torch.cat([summary, frames], 1)
        has_frame = torch.cat([batch.has_frame.new_ones(len(frames), 1), batch.has_frame], 1)
        sees_token = never_empty(batch.is_token)
        if self.queries == 'frames':
            states = self.cross(with_summary, tokens, tgt_key_padding_mask=~has_frame,
                                memory_key_padding_mask=~sees_token)
            return Fused(states[:, 1:], tokens, masked_mean(states, has_frame))
        states = self.cross(tokens, with_summary, tgt_key_padding_mask=~sees_token,
                            memory_key_padding_mask=~has_frame)
        return Fused(frames, states, masked_mean(states, sees_token))

    def attention(self, title, batch: StreamBatch) -> torch.Tensor:
        """How much each frame looks at each token (n,f,l) in the last layer, the mean over heads; with the
        text as queries, how much each token looks at each frame."""
        shares = []

        def ask(module, given, options): return given, {**options, 'need_weights': True}
        last = self.cross.layers[-1].multihead_attn
        hooks = [last.register_forward_pre_hook(ask, with_kwargs=True),
                 last.register_forward_hook(lambda module, given, output: shares.append(output[1]))]
        try: self(title, batch)
        finally:
            for hook in hooks: hook.remove()
        # the learnt query comes before the frames
        return shares[-1][:, 1:] if self.queries == 'frames' else shares[-1].transpose(1, 2)[:, 1:]

    def frames_alone(self, title, batch: StreamBatch):
        "A vector (n,width) of the frames of each item, which has seen no text."
        return masked_mean(self.frames(batch.frames), batch.has_frame)


class Streams:
    "What a net with `encoders` ('title', and 'image' unless it reads features) and a `fusion` can do."
    def __setstate__(self, state):
        # models that were pickled before there was a fusion
        super().__setstate__({'frame_width': None, 'reads_features': False, **state})
        for part in ('fusion', 'objectives'):
            if part not in self._modules: setattr(self, part, None)

    def read(
        self,
        # A batch: pictures (n,3,h,w), one input for each frame of an item, or features (n,f,d); int64 (n,),
        # how many frames each item has; token ids (n,l)
        *inputs,
    ) -> StreamBatch:
        "The features of the frames that are there, and the token ids, with their masks."
        *frames, ids = inputs
        ids = ids.as_subclass(torch.Tensor)
        return StreamBatch(*self.read_frames(*frames), ids, ids != self.encoders['title'].pad_id)

    def read_frames(
        self,
        *inputs,  # Of a batch without the token ids, as for `read`
    ) -> tuple[torch.Tensor, torch.Tensor]:  # (features (n,f,d), 0 where there is none; bool (n,f))
        "The features of the frames that are there, and which those are."
        *pictures, counts = (each.as_subclass(torch.Tensor) for each in inputs)
        if 'image' not in self.encoders:
            if len(pictures) == 1 and pictures[0].ndim == 3:
                return pictures[0], _first(counts, pictures[0].shape[1])
            shapes = [tuple(each.shape) for each in pictures]
            raise InputError(f'the model reads features of frames (n,f,d); the batch has {shapes}')
        has_frame = _first(counts, len(pictures))
        # missing pictures would have a share in the running statistics of BatchNorm, and cost time
        found = self.encoders['image'](torch.stack(pictures, 1)[has_frame])
        features = found.new_zeros(*has_frame.shape, found.shape[-1])
        features[has_frame] = found
        return features, has_frame

    def fuse(self, batch: StreamBatch) -> Fused:
        "Frames and text together."
        return self.fusion(self.encoders['title'], batch)

    def text_alone(self, batch: StreamBatch):
        "A vector (n,width) of the text of each item, which has seen no frame; 0 where there is no text."
        title = self.encoders['title']
        return pooled(text_states(title, batch.ids, batch.is_token), batch.is_token, title.pool)

    def frames_alone(self, batch: StreamBatch):
        "A vector (n,width) of the frames of each item, which has seen no text; 0 where there is no frame."
        return self.fusion.frames_alone(self.encoders['title'], batch)


class StreamNet(Streams, nn.Module):
    "Encoders and a fusion without any head; `forward` gives a vector (n,width) of each item."
    by_layer = False  # whether each layer of an encoder is a parameter group: 'image.0', 'image.1', ...

    def __init__(
        self,
        fusion: nn.Module,  # As `make_fusion` makes it
        image: nn.Module | None,  # Image encoder; None: features of frames are read
        title: nn.Module,  # `TitleEncoder`
        frame_width: int | None = None,  # Length of the features of frames, where they are read
    ):
        super().__init__()
        encoders = {'image': image, 'title': title}
        self.encoders = nn.ModuleDict({modality: encoder for modality, encoder in encoders.items()
                                       if encoder is not None})
        self.frame_width = image.n_out if image is not None else frame_width
        self.fusion = fusion

    def forward(self, *inputs): return self.fuse(self.read(*inputs)).pooled

    def param_groups(self) -> dict[str, list]:
        "Parameters by name: 'image' where pictures are read, 'title', 'fusion'."
        return {**encoder_groups(self.encoders, self.by_layer), 'fusion': list(self.fusion.parameters())}


def make_fusion(
    fusion,  # 'single', 'double', or a function (text encoder, width of the features of frames) -> module
    title: nn.Module,  # `TitleEncoder`
    frame_width: int,  # Of the features of frames
) -> nn.Module:
    "The module that joins frames and text; raises `InputError` for another name."
    if fusion == 'single': return SingleStream(title, frame_width)
    if fusion == 'double': return DoubleStream(title, frame_width)
    if callable(fusion) and not isinstance(fusion, nn.Module): return fusion(title, frame_width)
    raise InputError(f"fusion={fusion!r}: choose one of {KINDS}, or give a function that makes it, e.g. "
                     "partial(DoubleStream, queries='text')")


def text_states(
    title: nn.Module,  # `TitleEncoder`
    ids: torch.Tensor,  # int64 (n,l)
    is_token: torch.Tensor,  # bool (n,l)
) -> torch.Tensor:  # (n,l,width)
    "What the text encoder makes of each token."
    return title.body(input_ids=ids, attention_mask=never_empty(is_token).long()).last_hidden_state


def check_body(
    title: nn.Module,  # Text encoder
):
    """Raise `InputError` unless a text encoder has a vector for each token and pools them, as those of
    transformers do but for the towers of CLIP and its kin."""
    if isinstance(getattr(title, 'body', None), nn.Module) and hasattr(title, 'pool'): return
    raise InputError(f'fusion: {type(title).__name__} gives one vector a text; frames meet the words of an '
                     "encoder of transformers' BERT kind, named by text_arch (CLIP's image tower is fine)")


def check_double(
    title: nn.Module,  # `TitleEncoder`
):
    """Raise `InputError` unless a text encoder gives a vector for each token that padding doesn't move: it is
    tried."""
    check_body(title)
    wanted = "fusion='double' takes encoders that mask what is padding, as those of BERT's kind do"
    apart = _distances(title, _tried_padded, 'token ids with padding', wanted)
    if apart['more padding'] > SAME:
        raise InputError(f'{_named(title)} reads padding as if it were words (the vectors differ by '
                         f"{apart['more padding']:.2g}). {wanted}")


def check_single(
    title: nn.Module,  # `TitleEncoder`
):
    """Raise `InputError` unless a text encoder can read frames beside words.

    It is tried: without frames it must give what it gives of token ids (to 1e-3), padding and missing frames
    must move nothing further than that, and other words must change what it makes of a frame.
    """
    check_body(title)
    wanted = ("fusion='single' puts frames among the words, which encoders of BERT's kind can read: bert, "
              "roberta, xlm-roberta, electra, albert, distilbert, modernbert; fusion='double' takes any that "
              'pools words')
    needed = {'inputs_embeds', 'position_ids', 'attention_mask'}
    if not needed <= set(inspect.signature(title.body.forward).parameters):
        raise InputError(f'{_named(title)} takes no vectors in place of token ids. {wanted}')
    apart = _distances(title, _tried_single, 'vectors in place of token ids', wanted)
    # frames stand before the words: an encoder that reads from left to right would show them no word
    if apart.pop('other words') == 0:
        raise InputError(f'{_named(title)} reads from left to right, so that no frame would see a word. '
                         f'{wanted}')
    if max(apart.values()) > SAME:
        raise InputError(f'{_named(title)} reads vectors by another rule than token ids (they differ by '
                         f'{max(apart.values()):.2g}). {wanted}')


def _named(title):
    "A text encoder in messages."
    kind = type(title.body).__name__
    return f'{kind} ({title.name})' if getattr(title, 'name', None) else kind


def _distances(title, tried, what, wanted):
    "What `tried` finds of a text encoder, which must not fail at it; its mode is as before afterwards."
    was_training = title.training
    try:
        with torch.no_grad(): return tried(title.eval())
    # whatever a model raises that reads something else
    except Exception as error:
        raise InputError(f'{_named(title)} can not read {what} ({type(error).__name__}: '
                         f'{str(error).splitlines()[0][:120] if str(error) else "no message"}). {wanted}'
                         ) from error
    finally: title.train(was_training)


def _trial_ids(title):
    "Token ids (2,4) of two texts, one with padding, and which are tokens."
    device = next(title.body.parameters()).device
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, title.pad_id, title.pad_id]], device=device)
    n_words = title.body.get_input_embeddings().num_embeddings
    is_token = torch.tensor([[True] * 4, [True, True, False, False]], device=device)
    return torch.where(is_token, ids % n_words, ids), is_token


def _tried_padded(title):
    "How far the vectors of tokens are from those with more padding."
    ids, is_token = _trial_ids(title)
    more = torch.full_like(ids[:, :2], title.pad_id)
    plain = text_states(title, ids, is_token)[is_token]
    padded = text_states(title, torch.cat([ids, more], 1),
                         torch.cat([is_token, torch.zeros_like(more, dtype=torch.bool)], 1))
    return {'more padding': float((plain - padded[:, :4][is_token]).abs().max())}


def _tried_single(title):
    """How far an encoder is from itself: by vectors and by ids, with more padding and missing frames; and how
    far other words move a frame."""
    body = title.body
    ids, is_token = _trial_ids(title)
    by_ids = body(input_ids=ids, attention_mask=is_token.long()).last_hidden_state[is_token]
    embed = body.get_input_embeddings()
    words, frame = embed(ids), embed(ids[:, :1])
    no_frame = is_token[:, :0]
    alone = _joint_states(body, words[:, :0], no_frame, words, is_token)[is_token]
    one = torch.ones_like(is_token[:, :1])
    plain = _joint_states(body, frame, one, words, is_token)
    other_words = _joint_states(body, frame, one, words.flip(0), is_token.flip(0))
    frames = torch.cat([frame, frame], 1)
    padded_words = torch.cat([words, embed(torch.full_like(ids[:, :2], title.pad_id))], 1)
    padded = _joint_states(body, frames, torch.cat([one, ~one], 1), padded_words,
                           torch.cat([is_token, torch.zeros_like(is_token[:, :2])], 1))
    apart = {'vectors': by_ids - alone, 'missing frames': plain[:, :1] - padded[:, :1],
             'more padding': plain[:, 1:][is_token] - padded[:, 2:6][is_token],
             'other words': plain[:, :1] - other_words[:, :1]}
    return {name: float(difference.abs().max()) for name, difference in apart.items()}


def _joint_states(body, frames, has_frame, words, is_token):
    "States (n,f+l,width) of frames, then words, through a text encoder; both as vectors of its embeddings."
    return _joint(body, frames, has_frame, words, is_token).last_hidden_state


def _joint(body, frames, has_frame, words, is_token, **options):
    "What a text encoder returns of frames, then words."
    n_frames, n_words = frames.shape[1], words.shape[1]
    # both start from the first position: how many frames there are moves no word
    first = _first_position(body)
    places = torch.cat([torch.arange(n_frames), torch.arange(n_words)]).to(words.device) + first
    mask = never_empty(torch.cat([has_frame, is_token], 1))
    return body(inputs_embeds=torch.cat([frames, words], 1), attention_mask=mask.long(),
                position_ids=places.expand(len(words), -1), **options)


def _first_position(body):
    "The number of the first position of an encoder: RoBERTa and its kin count on from the padding's number."
    embeddings = getattr(body, 'embeddings', None)
    if not hasattr(embeddings, 'create_position_ids_from_input_ids'): return 0
    return embeddings.padding_idx + 1


def _first(counts, n_frames):
    "bool (n,f), True for the first `counts` frames of each item."
    return torch.arange(n_frames, device=counts.device) < counts[:, None]
