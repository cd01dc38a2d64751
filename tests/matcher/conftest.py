"A trained Learner with its matcher, made once for all tests of the folder."
import pytest

from tests.matcher.trained import KINDS, made_of


@pytest.fixture(scope='package', params=KINDS)
def trained(request): return made_of(request.param)
