"A small net that reads features of frames and text, a tokenizer of a few words, and batches for it."
import torch
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer

from fastmatch.models import TitleEncoder
from fastmatch.models.fusion import DoubleStream, SingleStream, StreamBatch, Streams

SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
WORDS = [f'word{i}' for i in range(40)]
PIECES = [f'##piece{i}' for i in range(20)]
VOCABULARY = [*SPECIAL, *WORDS, *PIECES]
PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_PIECE = len(SPECIAL) + len(WORDS)
WIDTH, FRAME_WIDTH = 24, 10
FUSIONS = {'single': SingleStream, 'double': DoubleStream}


def tokenizer(): return BertTokenizer(vocab={token: number for number, token in enumerate(VOCABULARY)})


def bert_config(dropout=0., **others):
    return BertConfig(**{**dict(
        vocab_size=len(VOCABULARY), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout, initializer_range=.3), **others})


class Net(nn.Module, Streams):
    "Features of frames and token ids, in a single or a double stream."
    def __init__(self, fusion='single', dropout=0., body=None, seed=0, image=None):
        super().__init__()
        torch.manual_seed(seed)
        body = BertModel(bert_config(dropout), add_pooling_layer=False) if body is None else body
        self.encoders = nn.ModuleDict({'title': TitleEncoder('tiny', pad_id=PAD, body=body)})
        if image is not None: self.encoders['image'] = image
        self.frame_width = FRAME_WIDTH
        options = {} if fusion == 'single' else {'layers': 1, 'dropout': dropout}
        self.fusion = FUSIONS[fusion](self.encoders['title'], FRAME_WIDTH, **options)


def texts(lengths, seed=0, n_columns=None):
    "Token ids of texts of so many words between the tokens that begin and end one; 0 for no text at all."
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), n_columns or max(lengths) + 2), PAD)
    for row, length in zip(ids, lengths):
        if not length: continue
        row[0], row[length + 1] = CLS, SEP
        row[1:length + 1] = torch.randint(len(SPECIAL), len(VOCABULARY), (length,), generator=generator)
    return ids


def batch(n_frames=(3, 1, 2, 3, 2), lengths=(5, 7, 3, 6, 4), seed=0, more_frames=0, more_padding=0):
    "Items with so many frames and words; `more_*` only adds what is not there."
    generator = torch.Generator().manual_seed(seed)
    n_places = max(n_frames)
    frames = torch.randn(len(n_frames), n_places, FRAME_WIDTH, generator=generator)
    # what is at missing frames counts for nothing
    frames = torch.cat([frames, torch.full((len(n_frames), more_frames, FRAME_WIDTH), 7.)], 1)
    has_frame = torch.arange(n_places + more_frames) < torch.tensor(n_frames)[:, None]
    ids = texts(lengths, seed, max(lengths) + 2 + more_padding)
    return StreamBatch(frames, has_frame, ids, ids != PAD)


def float64(tensor): return tensor.detach().double().numpy()


def weights64(module): return {name: float64(weight) for name, weight in module.named_parameters()}


def gradients(loss, *modules):
    "Names of the weights that a loss moves, over several modules."
    for module in modules: module.zero_grad(set_to_none=True)
    loss.backward()
    return {name for module in modules for name, weight in module.named_parameters()
            if weight.grad is not None and bool(weight.grad.abs().sum() > 0)}
