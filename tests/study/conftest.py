import pytest

from tests.study.trainings import demo_listings, loaders


@pytest.fixture(scope='module')
def listings(): return demo_listings()


@pytest.fixture(scope='module')
def dls(listings): return loaders(listings[0])
