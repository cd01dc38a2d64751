"`fastmatch export --onnx --int8`: what it says, what the folder then holds, what it refuses."
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from fastmatch.cli import app
from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.jobs.export import column_of_groups
from fastmatch.match import Rule
from fastmatch.matcher import Encoder, Matcher, Picture, load_matcher
from fastmatch.matcher.folder import read_matcher_files
from fastmatch.models import ImageEncoder, MatchNet

for package in ('timm', 'onnx', 'onnxruntime', 'onnxscript'): pytest.importorskip(package)
IMAGES = demo_path()/'images'


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    "A folder of a matcher of pictures, and a table of listings that its encoder wasn't trained on."
    listings = pd.read_csv(demo_path()/'listings.csv')
    known, new = listings[listings.fold == 1].head(40), listings[listings.fold == 0].head(60)
    torch.manual_seed(0)
    encoder = Encoder(MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False), neck=False),
                      Picture((32, 32), 'squish', mean=[.5] * 3, std=[.5] * 3))
    matcher, _ = Matcher.from_df(known, IMAGES, Rule('mean', {'image': 1.}, .9), encoder, Columns(title=None),
                                 trained_on=known.posting_id)
    folder = tmp_path_factory.mktemp('export')
    matcher.save(folder/'shop')
    pd.concat([known, new]).to_csv(folder/'listings.csv', index=False)
    return folder/'shop', folder/'listings.csv', new


def called(*words): return CliRunner().invoke(app, ['export', *map(str, words)], catch_exceptions=False)


@pytest.mark.slow
def test_both_runtimes_are_added(shop):
    folder, table, new = shop
    options = [folder, '--onnx', '--int8', '--listings', table, '--images', IMAGES]
    before = read_matcher_files(folder)[1]
    refused = called(*options, '--max-loss', '-1')
    assert refused.exit_code == 2 and 'int8' in refused.output, refused.output
    assert read_matcher_files(folder)[1] == before
    result = called(*options, '--max-loss', '1')
    assert result.exit_code == 0, result.output
    for words in ('embeddings are those of torch', 'int8: ', 'wrote', 'onnx/image.onnx', 'int8/image.onnx'):
        assert words in result.output
    by_torch = load_matcher(folder, 'cpu')
    figures = by_torch.info['runtimes']
    assert figures['onnx']['largest_difference'] < 1e-4 and figures['int8']['calibrated_on'] == 40
    expected, _ = by_torch.embed(new, IMAGES)
    for runtime, nearest in (('onnx', .999999), ('int8', .9)):
        found, _ = load_matcher(folder, runtime=runtime).embed(new, IMAGES)
        cosines = (found['image'] * expected['image']).sum(1)
        assert cosines.mean() > nearest, (runtime, cosines.mean())


def test_the_column_of_groups_is_found_as_in_training():
    table = pd.DataFrame({'sku': ['a', 'b'], 'name': ['x', 'y'], 'product': [1, 2], 'mine': [3, 4]})
    assert column_of_groups(table, None) == 'product' and column_of_groups(table, 'mine') == 'mine'
    assert column_of_groups(table.drop(columns='product'), None) is None is column_of_groups(None, 'mine')
    with pytest.raises(InputError, match='label_group'): column_of_groups(table, 'label_group')


def test_a_matcher_without_an_encoder_is_told(tmp_path):
    import numpy as np

    from fastmatch.match import Embeddings
    vectors = np.eye(4, dtype=np.float32)
    Matcher(Rule('mean', {'image': 1.}, .9), Embeddings({'image': vectors}, list('abcd'))).save(tmp_path/'m')
    result = called(tmp_path/'m', '--onnx')
    assert result.exit_code == 2 and 'no encoder to export' in result.output
