"A small image encoder with random weights."
import pytest

from fastmatch.models import ImageEncoder


@pytest.fixture(scope='module')
def tiny_encoder(): return ImageEncoder('test_efficientnet', pretrained=False)
