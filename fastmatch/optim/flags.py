"What an optimizer must know of the model: which weights aren't decayed, and which gradients aren't centralised."
from fastai.learner import Learner
from fastcore.basics import patch
from torch import nn

from .base import AdamFamily
from .lookahead import Lookahead
from .wrap import Wrapped


def uncentralized(model) -> list:
    "Weights whose rows are looked up or compared and not outputs: embeddings, and modules that say `no_gc = True` (class centres)."
    return [p for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) or getattr(m, 'no_gc', False) for p in m.parameters(recurse=False)]


_create_opt = getattr(Learner.create_opt, '_fastais', Learner.create_opt)


@patch
def create_opt(self: Learner):
    "Create an optimizer with default hyper-parameters; this package's are told of embeddings, centres, and every norm's weights."
    _create_opt(self)
    # fastai's own optimizers stay as they are
    if not isinstance(self.opt.opt if isinstance(self.opt, Lookahead) else self.opt, (AdamFamily, Wrapped)): return
    for p in uncentralized(self.model): self.opt.state[p]['do_gc'] = False
    # fastai's list of norms lacks GroupNorm, RMSNorm and layer scales; timm's rule has them all
    if not self.wd_bn_bias:
        for p in self.model.parameters():
            if p.ndim < 2: self.opt.state[p]['do_wd'] = False


Learner.create_opt._fastais = _create_opt
