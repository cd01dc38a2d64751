"`fastmatch train` and `fastmatch match` on tables whose cells name several pictures."
import pandas as pd
import pytest
from typer.testing import CliRunner

from fastmatch.cli import app
from fastmatch.data.demo import demo_path
from fastmatch.match import PictureSets
from fastmatch.matcher import load_matcher
from fastmatch.models.weights import IMAGE_PACKAGES

IMAGES = demo_path()/'images'
pytestmark = pytest.mark.skipif(IMAGE_PACKAGES['tf_efficientnet_lite0'].find() is None,
                                reason='the weights package of the extra [demo] is not installed')


def test_from_tables_with_a_separator(tmp_path):
    df = pd.read_csv(demo_path()/'listings.csv')
    first = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:8]))
    df = df[first].reset_index(drop=True)
    others = df.groupby('label_group').image.shift(-1)
    df['image'] = [name if other != other else f'{name};{other}' for name, other in zip(df.image, others)]
    columns = ['posting_id', 'image', 'label_group', 'fold']
    df[columns].rename(columns={'image': 'images'}).to_csv(tmp_path/'train.csv', index=False)
    called = CliRunner().invoke(app, [
        'train', str(tmp_path/'train.csv'), '--out', str(tmp_path/'run'), '--images', str(IMAGES),
        '--size', '32', '--epochs', '1', '--workers', '0'], catch_exceptions=False)
    assert called.exit_code == 0, called.output
    [folder] = [path.parent for path in (tmp_path/'run').rglob('manifest.json')]
    matcher = load_matcher(folder, 'cpu')
    assert isinstance(matcher.spaces['image'], PictureSets)
    assert list((tmp_path/'run').rglob('report.html'))
    new = df.head(6)[['posting_id', 'image']].assign(posting_id=[f'new{row}' for row in range(6)])
    new.to_csv(tmp_path/'new.csv', index=False)
    called = CliRunner().invoke(app, ['match', str(folder), str(tmp_path/'new.csv'), '-o',
                                      str(tmp_path/'out.csv'), '--images', str(IMAGES)],
                                catch_exceptions=False)
    assert called.exit_code == 0, called.output
    assert len(pd.read_csv(tmp_path/'out.csv')) == 6
