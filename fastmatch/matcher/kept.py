"""An encoder's files in a matcher's folder: written by its owner, or kept as they are on the disk.

A matcher holds in memory what its runtime needs. The other files of its folder, torch's weights or the graphs
of an export, stay on the disk and are copied from there where the matcher is saved.
"""
import hashlib
import warnings
from pathlib import Path

from ..core import InputError
from ..models.saved_tokenizer import tokenizer_files
from .encode import Encoder
from .runtime import WEIGHTS_FILE, is_exported


class KeptFiles:
    "Files that belong to an encoder and aren't made of it, with the hash of the weights they were made of."
    def __init__(
        self,
        digests: dict,  # File name -> sha256
        weights: str,  # sha256 of the weights that they belong to
        folder: Path | None = None,  # Where they lie
        files: dict | None = None,  # File name -> bytes, for those that lie nowhere yet
    ):
        self.digests = digests
        self.weights = weights
        self.folder = folder
        self.files = files or {}

    @classmethod
    def of_export(
        cls,
        files: dict,  # File name -> bytes
        weights: bytes,  # torch's, as they are saved
    ) -> 'KeptFiles':
        "Files that were just exported."
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        return cls(digests, hashlib.sha256(weights).hexdigest(), files=files)

    @classmethod
    def of_folder(
        cls,
        path,  # Folder of a saved matcher
        manifest: dict,  # What its manifest says
        in_memory: set,  # Names of the files that were read
    ) -> 'KeptFiles | None':  # None where there is nothing to keep
        "The files of a saved matcher that belong to its encoder and that its runtime leaves on the disk."
        digests = manifest['files']
        kept = {name: digest for name, digest in digests.items()
                if is_exported(name) or (name == WEIGHTS_FILE and name not in in_memory)}
        if not kept: return None
        return cls(kept, digests[WEIGHTS_FILE], Path(path)/manifest.get('folder', ''))

    def read(self) -> dict:  # File name -> bytes
        "All of them; raises `InputError` where one was removed or changed since the matcher was loaded."
        return {name: self._content(name, digest) for name, digest in self.digests.items()}

    def _content(self, name, digest):
        if name in self.files: return self.files[name]
        file = self.folder/name
        content = file.read_bytes() if file.is_file() else b''
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f'{file}: removed or changed since the matcher was loaded: load it again')
        return content


def encoder_files(
    encoder: Encoder,
) -> dict:  # File name -> bytes
    """The files of an encoder: weights, tokenizer and what was exported.

    Graphs that were exported of other weights are left out, with a warning.
    """
    kept = {} if encoder.kept is None else encoder.kept.read()
    of_tokenizer = {} if encoder.tokenizer is None else tokenizer_files(encoder.tokenizer)
    # run by ONNX: torch's weights are only kept
    if WEIGHTS_FILE in kept: return {**kept, **of_tokenizer}
    weights = weights_of(encoder)
    if kept and hashlib.sha256(weights).hexdigest() != encoder.kept.weights:
        warnings.warn('the encoder has changed since its ONNX graphs were exported: they are left out, '
                      'export again', stacklevel=2)
        kept = {}
    return {WEIGHTS_FILE: weights, **kept, **of_tokenizer}


def weights_of(
    encoder: Encoder,  # Run by torch
) -> bytes:  # safetensors
    "A model's weights without its heads, as safetensors takes them: contiguous, none in another's memory."
    from safetensors.torch import save as save_tensors
    weights, memory = {}, set()
    for name, tensor in encoder.model.state_dict().items():
        if name.startswith('heads.'): continue
        tensor = tensor.contiguous().cpu()
        # tied weights, such as the embedding of words that encoder and decoder share
        if tensor.untyped_storage().data_ptr() in memory: tensor = tensor.clone()
        memory.add(tensor.untyped_storage().data_ptr())
        weights[name] = tensor
    return save_tensors(weights)
