"Four groups of each fold of the sample."
import pandas as pd
import pytest

from fastmatch.data.demo import demo_path


@pytest.fixture(scope='module')
def listings():
    df = pd.read_csv(demo_path()/'listings.csv')
    keep = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:4]))
    return df[keep].reset_index(drop=True)
