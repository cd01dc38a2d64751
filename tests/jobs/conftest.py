"A small shop and a tiny encoder for every test of a job."
import pytest

from tests.jobs.made import make_shop, tiny_weights


@pytest.fixture
def shop(tmp_path): return make_shop(tmp_path)


@pytest.fixture
def tiny_encoder(tmp_path): return tiny_weights(tmp_path)
