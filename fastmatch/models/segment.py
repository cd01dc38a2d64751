"""Models that mark the pixels of a picture: U-Net and FPN of segmentation-models-pytorch, timm's encoders.

For the extra `seg`: `pip install fastmatch[seg]`.
"""
import torch
import torch.nn.functional as F
from torch import nn

from ..core import IMAGE_ARCH, InputError, require_package
from .image import _create

STRIDE = 32  # pixels that the sides of a picture are filled up to a multiple of


class SegmentNet(nn.Module):
    """Pictures (n,3,h,w) of 0..1 to logits of their pixels (n, n_channels, h, w): of one class in one
    channel, of several a channel each and one for the background.

    Pictures are of any size, but for encoders that read one alone, such as Swin and MaxViT: `only_size` is
    (height, width) of theirs, None for others. Raises `InputError` for pictures of another, and for encoders
    whose feature maps the decoder can't put together.

    With `dual` a dict: 'mask' are these logits, 'presence' logits (n, n_foreground) of whether the picture
    has a class at all, from the deepest feature map, which has seen all of the picture. Pictures are
    normalized here, as the encoder's weights were trained.
    """
    def __init__(
        self,
        n_classes: int = 2,  # Classes, the background among them
        encoder: str = IMAGE_ARCH,  # timm name of a model that gives feature maps of several sizes
        decoder: str = 'unet',  # 'unet' (https://arxiv.org/abs/1505.04597) or 'fpn'
        pretrained: bool = True,  # Load the encoder's weights; False: random ones
        # 'scse' after each block of the decoder (https://arxiv.org/abs/1803.02579); None: none
        attention: str | None = None,
        # Classify pixels by the maps of all the decoder's blocks side by side, brought to one size, and not
        # by the last alone, https://arxiv.org/abs/1411.5752
        hypercolumn: bool = False,
        dual: bool = False,  # Also tell whether a picture has a class at all
    ):
        super().__init__()
        if n_classes < 2: raise InputError(f'n_classes={n_classes}: two at least, the background among them')
        self.options = dict(n_classes=n_classes, encoder=encoder, decoder=decoder, attention=attention,
                            hypercolumn=hypercolumn, dual=dual)
        made = _parts_of(encoder, decoder, attention)
        self.encoder, self.decoder, blocks, width, upsampling = made
        mean, std, own_size = _load_encoder(self.encoder, encoder, pretrained)
        self.register_buffer('mean', torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer('std', torch.tensor(std)[:, None, None], persistent=False)
        self.n_channels = 1 if n_classes == 2 else n_classes
        self._maps = []
        if hypercolumn:
            for block in blocks: block.register_forward_hook(self._keep)
        width, self.only_size = self._try_sizes(own_size, upsampling)
        # a feature pyramid's map has many channels, and each is a sum of maps. A head that reads nine pixels
        # of it begins far from 0, and a step of Adam moves it by several: on empty masks cross-entropy then
        # drives all logits so far down that Dice has no gradient left, and every mask stays empty
        is_pyramid = decoder == 'fpn'
        kernel = 1 if is_pyramid else 3
        self.head = nn.Sequential(nn.Conv2d(width, self.n_channels, kernel, padding=kernel // 2),
                                  nn.Upsample(scale_factor=upsampling, mode='bilinear') if upsampling > 1
                                  else nn.Identity())
        if is_pyramid:
            with torch.no_grad(): self.head[0].weight.mul_(.1)
            nn.init.zeros_(self.head[0].bias)
        self.presence = None
        if dual:
            self.presence = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                          nn.Linear(self.encoder.out_channels[-1], n_classes - 1))

    def _keep(self, module, args, output): self._maps.append(output)

    @torch.no_grad()
    def _try_sizes(self, own_size, upsampling):
        """(channels that pixels are classified by, the only size that the encoder reads or None), found on
        empty pictures: low and wide ones, or else those that the encoder was made for."""
        self.eval()
        for size in ((STRIDE, 3 * STRIDE), own_size):
            filled = _filled(torch.zeros(1, 3, *size))
            # what a model of timm's can't read it refuses as it will
            try: found = self._decoded(self.encoder(filled))
            except Exception as error:
                reason = f'{type(error).__name__}: {(str(error) or "no message").splitlines()[0][:200]}'
                continue
            if tuple(length * upsampling for length in found.shape[2:]) == filled.shape[2:]:
                self.train()
                return found.shape[1], None if size != own_size else own_size
            reason = f'maps of {tuple(found.shape[2:])} of pictures of {tuple(filled.shape[2:])}'
        name, decoder = self.options['encoder'], self.options['decoder']
        raise InputError(f'encoder={name!r}: its feature maps are no pyramid for decoder={decoder!r} '
                         f'({reason}); take another, such as {IMAGE_ARCH!r}')

    def _decoded(self, features):
        "What pixels are classified by (n,c,h,w)."
        self._maps = []
        last = self.decoder(features)
        if not self.options['hypercolumn']: return last
        maps, self._maps = self._maps, []
        def brought(each):
            return F.interpolate(each, last.shape[2:], mode='bilinear', align_corners=False)
        return torch.cat([brought(each) for each in maps], 1)

    def forward(self, images):
        height, width = images.shape[2:]
        if self.only_size not in (None, (height, width)):
            rows, columns = self.only_size
            raise InputError(f"encoder={self.options['encoder']!r}: it reads pictures of {columns} x {rows} "
                             f'pixels alone, these are {width} x {height}; resize them, or take another '
                             f'encoder, such as {IMAGE_ARCH!r}')
        images = (images.as_subclass(torch.Tensor) - self.mean) / self.std
        features = self.encoder(_filled(images))
        logits = self.head(self._decoded(features))[:, :, :height, :width]
        if self.presence is None: return logits
        return {'mask': logits, 'presence': self.presence(features[-1])}

    def param_groups(self) -> dict[str, list]:
        "Parameters by name: 'encoder', and 'decoder' for all that is new."
        new = [parameter for module in (self.decoder, self.head, self.presence) if module is not None
               for parameter in module.parameters()]
        return {'encoder': list(self.encoder.parameters()), 'decoder': new}

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json; weights are not in it."
        return {**self.options, 'mean': self.mean.flatten().tolist(), 'std': self.std.flatten().tolist()}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'SegmentNet':
        "Build the model that `spec` describes, with random weights: nothing is looked up or downloaded."
        import timm
        options = {name: value for name, value in spec.items() if name not in ('mean', 'std')}
        # a spec may come from a stranger: it names an architecture, never a place to load from
        if ':' in options['encoder'] or not timm.is_model(options['encoder'].split('.')[0]):
            raise InputError(f"encoder={options['encoder']!r} is no architecture of timm's")
        model = cls(**options, pretrained=False)
        model.mean.copy_(torch.tensor(spec['mean'])[:, None, None])
        model.std.copy_(torch.tensor(spec['std'])[:, None, None])
        return model


def _filled(images):
    "Pictures with sides that can be halved five times, filled up by repeating the edge."
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode='replicate')


def _parts_of(encoder, decoder, attention):
    "(encoder, decoder, the decoder's blocks, its width, by how much its map is smaller than the picture)."
    smp = require_package('segmentation_models_pytorch', 'models of masks', 'fastmatch[seg]')
    if decoder not in ('unet', 'fpn'): raise InputError(f"decoder={decoder!r}: choose 'unet' or 'fpn'")
    if attention not in (None, 'scse'): raise InputError(f"attention={attention!r}: choose None or 'scse'")
    name = f'tu-{encoder}'
    try:
        if decoder == 'unet': made = smp.Unet(name, encoder_weights=None, decoder_attention_type=attention)
        else: made = smp.FPN(name, encoder_weights=None)
    # timm and smp raise what they will for a model without a pyramid, or of an unknown name
    except Exception as error:
        raise InputError(f'encoder={encoder!r}: no timm model with feature maps of several sizes '
                         f'({type(error).__name__}: {(str(error) or "no message").splitlines()[0][:200]})'
                         ) from error
    blocks = made.decoder.blocks if decoder == 'unet' else made.decoder.seg_blocks
    head = made.segmentation_head[0]
    if attention and decoder == 'fpn':
        from segmentation_models_pytorch.base.modules import Attention
        # a U-Net of theirs has it built in: here it follows each block in the same way
        blocks = [nn.Sequential(block, Attention(attention, in_channels=head.in_channels))
                  for block in blocks]
        made.decoder.seg_blocks = nn.ModuleList(blocks)
    return made.encoder, made.decoder, list(blocks), head.in_channels, 1 if decoder == 'unet' else 4


def _load_encoder(pyramid, name, pretrained):
    "Load a timm model's weights into its pyramid; (mean, std, (height, width)) of what it was trained on."
    import timm
    model = _create(name, pretrained)
    settings = timm.data.resolve_model_data_config(model)
    if pretrained:
        # timm names the stages 'stages_0' where it hands out their maps
        found = {key.replace('.', '_'): tensor for key, tensor in model.state_dict().items()}
        wanted = pyramid.model.state_dict()
        missing = [key for key in wanted if key.replace('.', '_') not in found]
        if missing:
            raise InputError(f'encoder={name!r}: its weights do not fit its feature maps ({missing[0]} is '
                             'missing)')
        pyramid.model.load_state_dict({key: found[key.replace('.', '_')] for key in wanted})
    return settings['mean'], settings['std'], tuple(settings['input_size'][1:])
