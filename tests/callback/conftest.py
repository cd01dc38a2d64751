"Listings of a few groups, for tests with a matching Learner."
import pytest

from tests.callback.small import few_listings


@pytest.fixture(scope='module')
def listings(): return few_listings(8)
