"Eight groups of each fold of the sample."
import pandas as pd
import pytest

from fastmatch.data.demo import demo_path


@pytest.fixture(scope='module')
def listings():
    sample = pd.read_csv(demo_path()/'listings.csv')
    groups_of_folds = sample.groupby('fold').label_group
    is_first = groups_of_folds.transform(lambda groups: groups.isin(sorted(groups.unique())[:8]))
    return sample[is_first].reset_index(drop=True)
