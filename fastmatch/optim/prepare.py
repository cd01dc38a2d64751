"""What an optimizer must know about a model: which weights not to decay, and which gradients not to
centralize."""
from torch import nn

from .base import AdamFamily
from .lookahead import Lookahead
from .wrap import Wrapped


def uncentralized_weights(model) -> list:
    """The weights whose gradients must keep their means: embeddings, and modules that say
    `centralize_gradient = False` (class centers).

    Their rows are looked up or compared with, and are not the inputs of an output.
    """
    weights = []
    for module in model.modules():
        is_embedding = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        if is_embedding or not getattr(module, 'centralize_gradient', True):
            weights += module.parameters(recurse=False)
    return weights


def prepare_optimizer(
    learner,  # fastai `Learner` with an optimizer, right after `create_opt`
):
    """Flag the weights that are not to be centralized (`do_gc`) and, unless the Learner has
    `wd_bn_bias=True` or the optimizer was made with `bn_wd=True`, those that are not to be decayed (`do_wd`):
    biases, and the weights of all kinds of norms.

    fastai knows BatchNorm, InstanceNorm and LayerNorm only; here all weights of one dimension are spared, as
    timm does, which includes GroupNorm, RMSNorm and layer scales. Optimizers that aren't this package's stay
    as fastai made them.
    """
    optimizer = learner.opt.opt if isinstance(learner.opt, Lookahead) else learner.opt
    if not isinstance(optimizer, (AdamFamily, Wrapped)): return
    for weight in uncentralized_weights(learner.model): learner.opt.state[weight]['do_gc'] = False
    # what the optimizer was made with counts more than what the Learner was
    decays_all = getattr(learner.opt, 'bn_wd', None)
    if decays_all is None: decays_all = learner.wd_bn_bias
    for weight in learner.model.parameters():
        if decays_all: learner.opt.state[weight].pop('do_wd', None)
        elif weight.ndim < 2: learner.opt.state[weight]['do_wd'] = False
