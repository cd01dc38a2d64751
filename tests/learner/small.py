"A small Learner of the sample, a note of its rates, and mixed precision on the CPU."
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.vision.augment import Resize
from torch import nn

from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import match_learner
from fastmatch.metrics import MAPAtR, RecallAt, RowF1


def make(listings, seed=0, tfms='none', **kwargs):
    "Images only: a random 100,000-parameter timm model at 32 px."
    seed_everything(seed)
    loaders = MatchDataLoaders.from_df(listings, demo_path()/'images', text_col=None, fold_col='fold',
                                       item_tfms=Resize(32), batch_tfms=augs(tfms), bs=16, num_workers=0,
                                       phash=False, seed=seed)
    kwargs = {'metrics': [RecallAt(1), MAPAtR(), RowF1()], **kwargs}
    return match_learner(loaders, 'test_efficientnet', pretrained=False, **kwargs)


def weights(learner):
    return torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()])


class Rates(Callback):
    "Notes the rates that the optimizer steps with."
    order = 70
    def before_fit(self):
        self.seen = []
        self.after = []

    def _rates(self): return [hyper['lr'] for hyper in self.opt.hypers]
    def before_step(self): self.seen.append(self._rates())
    def after_batch(self):
        if self.training: self.after.append(self._rates())


class CPUMixedPrecision(MixedPrecision):
    "fastai's MixedPrecision is fixed on CUDA; the same with the CPU's autocast."
    def before_fit(self):
        super().before_fit()
        self.autocast = torch.autocast('cpu', dtype=torch.bfloat16)
        self.learn.scaler = torch.amp.GradScaler('cpu')


class LetterTokenizer:
    "A token is a letter, 0 the padding."
    pad_token_id = 0
    def __call__(self, titles, truncation=True, max_length=64):
        return {'input_ids': [[1 + ord(letter) % 127 for letter in title][:max_length] for title in titles]}

    def decode(self, ids, **kwargs): return ' '.join(map(str, ids))


class Letters(nn.Module):
    "A small text encoder: the mean of a vector for each letter."
    n_out = 8
    def __init__(self):
        super().__init__()
        self.tokenizer = LetterTokenizer()
        self.table = nn.Embedding(128, self.n_out)

    def forward(self, ids):
        is_letter = (ids > 0)[..., None]
        return (self.table(ids) * is_letter).sum(1) / is_letter.sum(1).clamp(min=1)
