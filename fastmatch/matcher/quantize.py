"""Graphs of encoders with 8-bit weights: titles by dynamic quantization, pictures by calibration.

Transformers quantize each batch's activations by their own range; the ranges in a convolutional network are
taken from listings of the catalogue. Weights have a scale for each output channel,
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""
import logging
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ..core import InputError, require_package
from ..picture import try_image
from .encode import Encoder
from .runtime import INPUT, NECK_FILE, encoder_file, open_session

# Shares of the convolutions, the first ones, that are left in float32, tried one after the other
FLOAT_SHARES = 0., .1, .2, .4
NEAR = .99  # mean cosine to the float32 embeddings on the calibration's pictures
CALIBRATION_BATCH = 8  # pictures: the calibration keeps all activations of a batch


def int8_files(
    files: dict,  # As `onnx_files` gives them
    encoder: Encoder,  # That they were made of
    pictures=(),  # Files of listings of the catalogue to calibrate on, or images in memory
) -> dict:  # 'int8/title.onnx', 'int8/image.onnx' -> bytes
    "The graphs of both kinds of encoders with 8-bit weights; raises `InputError` for no readable picture."
    require_package('onnx', 'quantization', 'fastmatch[onnx]')
    require_package('onnxruntime', 'quantization', 'fastmatch[onnx]')
    made = {}
    for modality in encoder.inputs:
        graph = files[encoder_file('onnx', modality)]
        if modality == 'image' and _is_convolutional(graph):
            batches = list(_batches(encoder, pictures))
            quantized = _near_enough(graph, files[NECK_FILE], batches, encoder)
            made[encoder_file('int8', modality)] = quantized
        else: made[encoder_file('int8', modality)] = _dynamic(graph)
    return made


def _is_convolutional(graph):
    "Whether most of a graph's products are convolutions; a transformer's are not."
    import onnx
    kinds = [node.op_type for node in onnx.load_model_from_string(graph).graph.node]
    return kinds.count('Conv') > kinds.count('MatMul') + kinds.count('Gemm')


def _dynamic(graph):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    with _in_folder(graph) as (source, target):
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
        return target.read_bytes()


def _near_enough(graph, neck, batches, encoder):
    """A quantized graph with as few of the first convolutions in float32 as make its embeddings those of the
    float32 graph to a cosine of `NEAR`, and the last one tried where none does.

    The first layers have few channels, of unlike ranges: in 8 bits they cost a trained EfficientNet-Lite0
    more than all others together (its mean cosine is .80, and .99 with nine of 49 in float32).
    """
    expected = _vectors(graph, neck, batches, encoder)
    for share in FLOAT_SHARES:
        quantized = _calibrated(graph, batches, share)
        found = _vectors(quantized, neck, batches, encoder)
        if float((expected * found).sum(1).mean()) >= NEAR: break
    return quantized


def _vectors(graph, neck, batches, encoder):
    "Unit embeddings (n,d) of pictures, where titles are read as well beside titles without a feature."
    session, neck_session = open_session(graph), open_session(neck)
    features = np.concatenate([session.run(None, {INPUT: batch})[0] for batch in batches])
    inputs = {given.name: np.zeros((len(features), given.shape[1]), np.float32)
              for given in neck_session.get_inputs()} | {'image': features}
    embeddings = dict(zip(encoder.widths, neck_session.run(None, inputs)))
    return embeddings.get('image', next(iter(embeddings.values())))


def _first_nodes(prepared, share):
    "The names of a graph's nodes before the first convolution that is quantized."
    import onnx
    nodes = onnx.load(str(prepared)).graph.node
    convolutions = [position for position, node in enumerate(nodes) if node.op_type == 'Conv']
    return [node.name for node in nodes[:convolutions[round(share * len(convolutions))]]]


def _calibrated(graph, batches, float_share=0.):
    """Weights and activations in 8 bits, the activations by the ranges that they have in some batches; a
    share of the convolutions, the first ones, stays in float32."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    with _in_folder(graph) as (source, target):
        prepared = source.with_name('prepared.onnx')
        # joins each convolution with the normalization behind it
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(target), _Calibration(batches), quant_format=QuantFormat.QDQ, per_channel=True,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax, nodes_to_exclude=_first_nodes(prepared, float_share))
        return target.read_bytes()


class _Calibration:
    "Batches, one after the other, as the quantizer asks for them."
    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        "The next batch as the graph's input, None after the last."
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}

    def __iter__(self): return self

    def __next__(self):
        batch = self.get_next()
        if batch is None: raise StopIteration
        return batch


def _batches(encoder, pictures):
    "Pictures as the encoder reads them, float32 (m,3,h,w); those that can't be read are left out."
    images = [image for image in (try_image(picture)[0] for picture in pictures) if image is not None]
    if not images:
        raise InputError('int8: to calibrate an image encoder give a table of listings with pictures')
    for start in range(0, len(images), CALIBRATION_BATCH):
        pixels = np.stack([encoder.picture(image) for image in images[start:start + CALIBRATION_BATCH]])
        yield np.ascontiguousarray(encoder.picture.normalize(torch.from_numpy(pixels)).numpy())


@contextmanager
def _in_folder(graph):
    "A graph as a file, and the file to write beside it: the quantizer takes and gives files."
    with tempfile.TemporaryDirectory() as folder, _quietly():
        source = Path(folder)/'source.onnx'
        source.write_bytes(graph)
        yield source, Path(folder)/'target.onnx'


@contextmanager
def _quietly():
    "Without the quantizer's advice, which is logged by the root logger, and its prints of progress."
    from contextlib import redirect_stdout
    from io import StringIO
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally: logging.disable(disabled)
