"What stands in a model for an image encoder that isn't trained, and whose features are read."
import copy

from torch import nn

from ..core import InputError


class FrozenEncoder(nn.Module):
    """Takes the features (n, n_out) of pictures, as `FrameFeatures` keeps them, for what an encoder makes.

    It has no parameters: the encoder itself stays in `features`, where no optimizer, average or saved state
    of a training finds it. `thawed` gives a copy that reads pictures.
    """
    def __init__(
        self,
        features,  # `FrameFeatures`
    ):
        super().__init__()
        self.features = features
        self.n_out = features.n_out

    def forward(self, batch):
        if batch.ndim == 2: return batch
        raise InputError(f'the model reads features of pictures (n, {self.n_out}), not a batch '
                         f'{tuple(batch.shape)}: learn.encoder() reads pictures')

    def thawed(self) -> nn.Module:  # On the CPU
        "A copy of the encoder that made the features; `InputError` where it alone does not make them."
        if getattr(self.features, 'mirror', False):
            raise InputError('frame_features: they are means over a picture and its mirror image '
                             '(mirror=True), which a matcher does not repeat: FrameFeatures(mirror=False)')
        return copy.deepcopy(self.features.encoder).cpu()
