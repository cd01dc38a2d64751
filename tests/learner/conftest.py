"Eight groups of each fold of the sample."
import pandas as pd
import pytest

from fastmatch.data.demo import demo_path


@pytest.fixture(scope='module')
def listings():
    df = pd.read_csv(demo_path()/'listings.csv')
    few = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:8]))
    return df[few].reset_index(drop=True)
