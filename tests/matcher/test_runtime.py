"Runtimes: ONNX embeds as torch, int8 nearly, and a folder that holds all three loads, saves and refuses."
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastmatch.core import InputError, MissingPackage
from fastmatch.data.columns import Columns
from fastmatch.jobs.export import export_matcher
from fastmatch.jobs.runtime_loss import check_alike, runtime_loss
from fastmatch.layers.pooling import BNNeck
from fastmatch.match import Embeddings, Rule
from fastmatch.matcher import Encoder, Matcher, Picture, load_matcher, part_similarities
from fastmatch.matcher.onnx_export import onnx_files
from fastmatch.matcher.quantize import int8_files
from fastmatch.matcher.runtime import PIXELS_A_RUN, OnnxEncoder
from fastmatch.models import ImageEncoder, MatchNet, Parts
from fastmatch.models.parts import make_part_encoder
from tests.matcher.trained import needs_titles

for package in ('onnx', 'onnxruntime', 'onnxscript'): pytest.importorskip(package)

WIDTH, HEIGHT = 24, 32


def pictures(n, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)) for _ in range(n)]


def fitted_neck(model, picture):
    "A neck that centers and scales features, as a trained one does."
    pixels = torch.from_numpy(np.stack([picture(image) for image in pictures(50, seed=2)]))
    with torch.no_grad(): features = model.eval().features(picture.normalize(pixels))['image']
    neck = model.necks['image']
    neck.running_mean.copy_(features.mean(0))
    neck.running_var.copy_(features.var(0))
    return model


@pytest.fixture(scope='module', params=['whole', 'parts'])
def encoder(request):
    torch.manual_seed(0)
    picture = Picture((WIDTH, HEIGHT), 'squish', mean=[.5] * 3, std=[.5] * 3)
    if request.param == 'whole': image = ImageEncoder('test_efficientnet', pretrained=False)
    else:
        image = make_part_encoder('test_efficientnet', Parts((1, 2), width=16), pretrained=False,
                                  img_size=(HEIGHT, WIDTH))
    return Encoder(fitted_neck(MatchNet(None, image), picture), picture, tta=True)


@pytest.fixture(scope='module')
def files(encoder):
    made = onnx_files(encoder)
    return made | int8_files(made, encoder, pictures(24, seed=1))


def test_onnx_embeds_as_torch(encoder, files):
    by_onnx = OnnxEncoder.from_files(encoder.spec(), files)
    assert isinstance(encoder.model.necks['image'], BNNeck) and encoder.tta
    # more than are run at once, and one alone
    for n in (PIXELS_A_RUN // (WIDTH * HEIGHT) + 5, 1):
        expected, found = (each.embed(pictures(n), bs=n)[0]['image'] for each in (encoder, by_onnx))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(by_onnx.embed_probe()['image'], encoder.embed_probe()['image'], atol=1e-5)
    assert by_onnx.made_with == encoder.made_with and by_onnx.widths == encoder.widths


def test_int8_embeds_nearly_as_torch_and_says_so(encoder, files):
    by_int8 = OnnxEncoder.from_files(encoder.spec(), files, runtime='int8')
    expected, found = (each.embed(pictures(20))[0]['image'] for each in (encoder, by_int8))
    cosines = (expected * found).sum(1)
    assert .9 < cosines.mean() < 1 - 1e-6
    assert by_int8.made_with == {**encoder.made_with, 'runtime': 'int8'}
    assert len(files['int8/image.onnx']) < .6 * len(files['onnx/image.onnx'])


def test_the_neck_holds_no_weights_of_an_encoder(files):
    assert len(files['neck.onnx']) < .1 * len(files['onnx/image.onnx'])


def test_parts_are_compared_by_torch_alone(encoder, files):
    with pytest.raises(InputError, match="load it with runtime='torch'"):
        part_similarities(OnnxEncoder.from_files(encoder.spec(), files), *pictures(2))


def test_what_cant_be_exported_or_read(encoder, files):
    with pytest.raises(InputError, match='calibrate'): int8_files(files, encoder, [])
    with pytest.raises(InputError, match="runtime='int8': the matcher holds no int8/image.onnx"):
        OnnxEncoder.from_files(encoder.spec(), {'neck.onnx': b''}, runtime='int8')
    with pytest.raises(InputError, match="runtime='tflite'"): load_matcher('nowhere', runtime='tflite')
    with pytest.raises(InputError, match='runs on the CPU'): load_matcher('nowhere', 'cuda', runtime='onnx')


def test_a_missing_package_is_named(encoder, files, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(MissingPackage, match=r'fastmatch\[onnx\]'):
        OnnxEncoder.from_files(encoder.spec(), files)


def clusters(n=40, seed=0):
    "Embeddings of pairs, noisy, and the same with more noise."
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n // 2), 2)
    vectors = rng.normal(size=(n // 2, 8))[groups] + .1 * rng.normal(size=(n, 8))
    return vectors, groups, rng


def test_a_loss_is_what_counting_gives():
    vectors, groups, rng = clusters()
    exact = Embeddings({'title': vectors}, np.arange(40).astype(str), groups=groups)
    rough = Embeddings({'title': vectors + .6 * rng.normal(size=vectors.shape)}, exact.ids, groups=groups)
    matcher = Matcher(Rule('mean', {'title': 1.}, .9), exact)
    loss = runtime_loss(matcher, exact, rough)

    def f1(of):
        unit = of['title'] / np.linalg.norm(of['title'], axis=1, keepdims=True)
        joined = (unit @ unit.T >= .9) | np.eye(40, dtype=bool)
        same = groups[:, None] == groups
        return joined, 2 * (joined & same).sum(1) / (joined.sum(1) + same.sum(1))
    joined, scores = f1(exact)
    rough_joined, rough_scores = f1(rough)
    assert loss.torch == pytest.approx(scores.mean())
    assert loss.among_themselves.diff == pytest.approx((scores - rough_scores).mean())
    overlap = 2 * (joined & rough_joined).sum(1) / (joined.sum(1) + rough_joined.sum(1))
    assert loss.agreement == pytest.approx(overlap.mean())
    # one side is exact: less is lost
    assert 0 < loss.in_catalogue.diff < loss.among_themselves.diff == loss.largest
    assert runtime_loss(matcher, exact, exact).to_dict()['loss']['in_catalogue']['diff'] == 0
    ungrouped = runtime_loss(matcher, *(Embeddings(each, each.ids) for each in (exact, rough)))
    assert ungrouped.largest is None and ungrouped.agreement < 1


def test_another_embedding_is_refused_and_named():
    vectors, _, _ = clusters()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f'item{row}' for row in range(40)]
    changed = unit.copy()
    changed[7, 0] += 2e-4
    torch_side, onnx_side = (Embeddings({'title': each}, ids) for each in (unit, changed))
    assert check_alike(torch_side, Embeddings({'title': unit + 3e-5}, ids)) == pytest.approx(3e-5, rel=.01)
    with pytest.raises(InputError, match='title embeddings .* 0.0002 .listing item7'):
        check_alike(torch_side, onnx_side)
    changed[3] = np.nan
    with pytest.raises(InputError, match='inf .listing item3'):
        check_alike(torch_side, Embeddings({'title': changed}, ids))


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    "A folder of a matcher of titles with all runtimes, its listings, and what the export said."
    import pandas as pd

    from fastmatch.data.demo import demo_path
    from fastmatch.models import TitleEncoder, load_tokenizer
    listings = pd.read_csv(demo_path()/'listings.csv').query('fold == 0').head(60).reset_index(drop=True)
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    title = TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id)
    encoder = Encoder(MatchNet(None, None, title, neck=False), tokenizer=tokenizer)
    rule = Rule('mean', {'title': 1.}, .65)
    matcher, _ = Matcher.from_df(listings, '.', rule, encoder, Columns(image=None))
    folder = tmp_path_factory.mktemp('exported')/'shop'
    matcher.save(folder)
    said = []
    figures = export_matcher(folder, listings, max_loss=.05, echo=said.append)
    return folder, listings, figures, said


@needs_titles
def test_a_folder_with_all_runtimes(exported, tmp_path):
    folder, listings, figures, _ = exported
    matchers = {runtime: load_matcher(folder, runtime=runtime) for runtime in ('torch', 'onnx', 'int8')}
    assert matchers['int8'].info['runtimes'] == figures
    assert figures['onnx']['largest_difference'] < 1e-5
    assert figures['int8']['loss']['among_themselves']['diff'] < .05 < figures['int8']['agreement']
    new = listings.head(30)
    answers = {runtime: matcher.match(new).to_frame() for runtime, matcher in matchers.items()}
    assert answers['onnx'].equals(answers['torch'])
    # saved again by any of them, the folder still holds all
    for runtime, matcher in matchers.items():
        matcher.remove(matcher.ids[-1])
        matcher.save(tmp_path/runtime)
        for other in matchers: assert len(load_matcher(tmp_path/runtime, runtime=other)) == len(listings) - 1


@needs_titles
def test_onnx_builds_no_torch_model(exported):
    folder = exported[0]
    code = (f'import sys; from fastmatch.matcher import load_matcher; m = load_matcher({str(folder)!r}, '
            'runtime="int8"); import torch, gc; '
            'held = sum(t.numel() for t in gc.get_objects() if isinstance(t, torch.Tensor)); '
            'print(held, "timm" in sys.modules, "transformers.models.bert.modeling_bert" in sys.modules)')
    finished = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    held, has_timm, has_bert = finished.stdout.split()
    assert int(held) < 1e6 and (has_timm, has_bert) == ('False', 'False')


@needs_titles
def test_weights_that_changed_leave_the_graphs_out(exported, tmp_path):
    matcher = load_matcher(exported[0])
    with torch.no_grad(): next(matcher.encoder.model.parameters()).mul_(1.01)
    with pytest.warns(UserWarning, match='export again'): matcher.save(tmp_path/'changed')
    with pytest.raises(InputError, match='holds no onnx/title.onnx'):
        load_matcher(tmp_path/'changed', runtime='onnx')


@pytest.mark.slow
@needs_titles
def test_too_large_a_loss_writes_nothing(exported, tmp_path):
    folder, listings, _, _ = exported
    matcher = load_matcher(folder)
    matcher.encoder.kept = None
    matcher.save(tmp_path/'shop')
    before = {file.name: file.read_bytes() for file in (tmp_path/'shop').rglob('*') if file.is_file()}
    with pytest.raises(InputError, match='int8 is not written: it loses .* max_loss=-1'):
        export_matcher(tmp_path/'shop', listings, max_loss=-1., echo=lambda line: None)
    assert before == {file.name: file.read_bytes() for file in (tmp_path/'shop').rglob('*') if file.is_file()}
