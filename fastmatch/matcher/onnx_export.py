"A torch encoder as ONNX graphs: one for each encoder, pooling included, and one for neck and normalization."
import copy
import io
import logging
import warnings
from contextlib import contextmanager

import torch
from torch import nn

from ..core import InputError, require_package
from .encode import Encoder
from .runtime import INPUT, NECK_FILE, OUTPUT, encoder_file

LARGEST = 2_000_000_000  # bytes: one file of ONNX holds no more
EXAMPLE_TOKENS = 12  # length of the titles that a graph is traced with; it reads any


class _Neck(nn.Module):
    "From the features of all encoders to unit embeddings."
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *features):
        embeddings = self.model.embed_features(dict(zip(self.model.encoders, features, strict=True)))
        return tuple(embeddings[modality] for modality in self.model.widths)


def onnx_files(
    encoder: Encoder,  # Run by torch
) -> dict:  # 'onnx/title.onnx', 'onnx/image.onnx', 'neck.onnx' -> bytes
    """An encoder's graphs in float32, for any number of listings and titles of any length.

    Raises `InputError` for an encoder that ONNX can't hold, `MissingPackage` without the extra 'onnx'.
    """
    for package in ('onnx', 'onnxscript'):
        require_package(package, 'an export to ONNX', 'fastmatch[onnx]')
    # heads are of training alone
    model = copy.deepcopy(encoder.model).cpu().float().eval()
    if model.fusion is not None: raise InputError('an export to ONNX: the model has a fusion')
    files = {}
    for modality, part in model.encoders.items():
        example, dynamic = _example(encoder, modality)
        body = getattr(part, 'body', None)
        # attention in plain steps, which the runtime fuses itself: torch's own guards against rows that
        # attend to nothing, of which a title encoder has none
        if hasattr(body, 'set_attn_implementation'): body.set_attn_implementation('eager')
        files[encoder_file('onnx', modality)] = _exported(part, (example,), (dynamic,), [INPUT], [OUTPUT],
                                                          modality)
    examples = tuple(torch.randn(3, part.n_out) for part in model.encoders.values())
    dynamic = tuple({0: torch.export.Dim.DYNAMIC} for _ in examples)
    # the model keeps its encoders, which say what parts a picture has: the exporter leaves their weights out.
    # The arguments of `_Neck.forward` are one starred parameter
    files[NECK_FILE] = _exported(_Neck(model), examples, (dynamic,), list(model.encoders),
                                 [f'embedding_{modality}' for modality in model.widths], 'neck')
    return files


def _example(encoder, modality):
    "A batch to trace with, and which of its axes may have any length."
    any_length = torch.export.Dim.DYNAMIC
    if modality == 'image':
        width, height = encoder.picture.input_size
        return torch.rand(3, 3, height, width), {0: any_length}
    filled = torch.arange(3 * EXAMPLE_TOKENS).reshape(3, -1) % 5 + encoder.tokenizer.pad_token_id + 1
    token_ids = filled % max(len(encoder.tokenizer), 2)
    token_ids[1, EXAMPLE_TOKENS // 2:] = encoder.tokenizer.pad_token_id
    return token_ids, {0: any_length, 1: any_length}


def _exported(module, examples, dynamic_shapes, input_names, output_names, what):
    "A module as an ONNX file in memory."
    stream = io.BytesIO()
    try:
        with torch.no_grad(), _quietly():
            program = torch.onnx.export(
                module, examples, dynamo=True, input_names=input_names, output_names=output_names,
                dynamic_shapes=dynamic_shapes, external_data=False, verbose=False)
            program.save(stream)
    # the exporter raises what the model's own code raises while it is traced
    except Exception as error:
        reason = (str(error) or 'no message').splitlines()[0][:200]
        raise InputError(f'{what}: torch can not export it to ONNX ({type(error).__name__}: {reason})'
                         ) from error
    graph = stream.getvalue()
    if len(graph) > LARGEST: raise InputError(f'{what}: {len(graph) / 1e9:.1f} GB are too large for ONNX')
    return graph


@contextmanager
def _quietly():
    "Without the exporter's notes on operators of torchvision and shapes, which no user can act on."
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally: logger.setLevel(level)
