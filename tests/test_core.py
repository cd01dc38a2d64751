"Devices that torch doesn't have are refused."
import pytest

from fastmatch.core import InputError, check_device


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 'cpu:x', 3.5])
def test_no_such_device(device):
    with pytest.raises(InputError, match='device='): check_device(device)
    check_device('cpu')
