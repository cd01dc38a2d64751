"""A matcher's encoder run by ONNX Runtime, in float32 ('onnx') or with 8-bit weights ('int8'), beside torch.

A matcher's folder then holds a file for each encoder, 'onnx/title.onnx', 'int8/image.onnx', and 'neck.onnx',
which makes unit embeddings of their features. Neither timm's nor transformers' models are built to run them.
"""
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from ..core import InputError, require_package
from .encode import Encoder, Picture

RUNTIMES = ('torch', 'onnx', 'int8')
NECK_FILE = 'neck.onnx'  # shared by both ONNX runtimes
WEIGHTS_FILE = 'weights.safetensors'  # of torch
INPUT, OUTPUT = 'batch', 'features'  # of an encoder's graph
# What one run of a graph works on, few enough that its activations stay in a core's cache: on one core 512
# tokens took .69 to .85 of the time that batches of 64 titles took, and 8 pictures of 104 pixels in float32
# .76 of the time of 64.
TOKENS_A_RUN = 512
PIXELS_A_RUN = 2**17
# Adding and normalizing in one step is slower on a CPU than doing one after the other: with it, int8 took
# 1.3 times as long on titles.
SLOW_FUSIONS = ['SkipLayerNormFusion']


def check_runtime(
    runtime: str,
):
    "Raise `InputError` unless it is one of `RUNTIMES`."
    if runtime not in RUNTIMES: raise InputError(f'runtime={runtime!r}: choose one of {", ".join(RUNTIMES)}')


def encoder_file(
    runtime: str,  # 'onnx' or 'int8'
    modality: str,  # 'image' or 'title'
) -> str:
    "The name of an encoder's file in a matcher's folder."
    return f'{runtime}/{modality}.onnx'


def is_read_by(
    runtime: str,  # One of `RUNTIMES`
    file_name: str,  # Of a matcher's folder
) -> bool:
    "Whether a matcher that is loaded for a runtime needs a file in memory."
    if file_name == WEIGHTS_FILE: return runtime == 'torch'
    if file_name == NECK_FILE: return runtime != 'torch'
    folder = file_name.split('/')[0]
    return folder == runtime or folder not in RUNTIMES


def is_exported(
    file_name: str,  # Of a matcher's folder
) -> bool:
    "Whether a file is one that an export adds to a matcher."
    return file_name == NECK_FILE or file_name.split('/')[0] in RUNTIMES


def open_session(
    graph: bytes,  # ONNX
    runtime: str = 'onnx',  # For messages
):  # onnxruntime.InferenceSession
    "A graph ready to run on the CPU: each run on the thread that asks for it, several at a time."
    onnxruntime = require_package('onnxruntime', f'runtime={runtime!r}', 'fastmatch[onnx]')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # warnings about its own optimizations are nothing that a user can act on
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'],
                                        disabled_optimizers=SLOW_FUSIONS)


class OnnxModel:
    "Encoders and neck as ONNX graphs: embeds a batch as `MatchNet.embed` does."
    def __init__(
        self,
        encoders: dict,  # Modality -> graph (bytes): a batch to features (n,d)
        neck: bytes,  # Graph: the features of all modalities, in their order, to unit embeddings
        widths: dict,  # Modality -> length of its embeddings, in the order of the neck's outputs
        runtime: str = 'onnx',  # For messages
    ):
        self.encoders = {modality: open_session(graph, runtime) for modality, graph in encoders.items()}
        self.neck = open_session(neck, runtime)
        self.widths = dict(widths)

    def embed(
        self,
        *inputs,  # A batch's images (n,3,h,w) and token ids (n,l), as far as there are encoders for them
        tta: bool = False,  # Average each picture's embedding with that of its mirror image
    ) -> dict:  # Modality -> torch float32 (n,d)
        "The embeddings of a batch by modality, of unit length."
        batches = {modality: np.ascontiguousarray(batch.numpy())
                   for modality, batch in zip(self.encoders, inputs, strict=True)}
        features = {modality: self._features(modality, batch) for modality, batch in batches.items()}
        embeddings = self._embedded(features)
        if tta and 'image' in batches:
            mirrored = self._features('image', np.ascontiguousarray(batches['image'][..., ::-1]))
            of_mirrored = self._embedded({**features, 'image': mirrored})
            embeddings = {modality: _unit(vectors + of_mirrored[modality])
                          for modality, vectors in embeddings.items()}
        return {modality: torch.from_numpy(vectors) for modality, vectors in embeddings.items()}

    def _features(self, modality, batch):
        "The features (n,d) of a batch, a few rows at a time."
        per_row = batch.shape[1] if batch.ndim == 2 else batch.shape[-1] * batch.shape[-2]
        most_rows = (TOKENS_A_RUN if batch.ndim == 2 else PIXELS_A_RUN) // per_row
        rows_a_run = max(1, min(most_rows, math.ceil(len(batch) / torch.get_num_threads())))
        session = self.encoders[modality]
        parts = [batch[start:start + rows_a_run] for start in range(0, len(batch), rows_a_run)]
        # so small runs gain little from sharing each among cores, and much from a core each
        n_threads = min(torch.get_num_threads(), len(parts))
        if n_threads < 2: return np.concatenate([session.run(None, {INPUT: part})[0] for part in parts])
        with ThreadPoolExecutor(n_threads) as pool:
            return np.concatenate(list(pool.map(lambda part: session.run(None, {INPUT: part})[0], parts)))

    def _embedded(self, features):
        return dict(zip(self.widths, self.neck.run(None, features), strict=True))


def _unit(vectors):
    "Vectors (n,d) of unit length, as `torch.nn.functional.normalize` makes them."
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


class OnnxEncoder(Encoder):
    """An `Encoder` that ONNX Runtime runs, on the CPU.

    Embeddings of 'onnx' are torch's to 1e-4 and mostly to 1e-5. Those of 'int8' differ by more, and
    `made_with` says so; what comparing them with a catalogue that torch embedded costs was measured at the
    export. An int8 title's embedding also hangs a little on the batch it is in, whose activations share a
    range: a number of a unit vector moved by up to .02.
    """
    def __init__(
        self,
        model: OnnxModel,
        spec: dict,  # From `Encoder.spec`
        tokenizer=None,  # Needed where the model reads titles
        runtime: str = 'onnx',  # 'onnx' or 'int8'
    ):
        # not the parent's: it would put a torch model on its device
        self.model = model
        self.picture = None if spec['picture'] is None else Picture(**spec['picture'])
        self.tokenizer = tokenizer
        self.max_len = spec['max_len']
        self.tta = spec['tta']
        self.device = 'cpu'
        self.runtime = runtime
        self._spec = spec

    @property
    def made_with(self) -> dict:
        "The settings that its embeddings are made with; of 'int8' also the runtime."
        settings = super().made_with
        return {**settings, 'runtime': self.runtime} if self.runtime == 'int8' else settings

    def spec(self) -> dict:
        "What the torch encoder is built from, as `Encoder.spec` gives it."
        return self._spec

    @classmethod
    def from_files(
        cls,
        spec: dict,  # From `Encoder.spec`
        files: dict,  # File name -> bytes, as an export makes them
        tokenizer=None,  # Needed where the model reads titles
        runtime: str = 'onnx',  # 'onnx' or 'int8'
    ) -> 'OnnxEncoder':
        "The encoder that an export wrote; raises `InputError` where the runtime was not exported."
        names = {modality: encoder_file(runtime, modality) for modality in ('image', 'title')
                 if modality in spec}
        missing = [name for name in (*names.values(), NECK_FILE) if name not in files]
        if missing:
            raise InputError(f'runtime={runtime!r}: the matcher holds no {missing[0]}: '
                             f'fastmatch export FOLDER --{runtime} makes it')
        encoders = {modality: files[name] for modality, name in names.items()}
        return cls(OnnxModel(encoders, files[NECK_FILE], spec['widths'], runtime), spec, tokenizer, runtime)
