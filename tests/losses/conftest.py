"The output of a head that tests of several files read."
import pytest

from tests.losses.cases import HeadInputs


@pytest.fixture
def output(): return HeadInputs().build(*HeadInputs().leaves())
