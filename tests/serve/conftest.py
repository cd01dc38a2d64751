"The shop, made once, and a client of a copy of it for each test."
import pytest

pytest.importorskip('fastapi')
pytest.importorskip('timm')


@pytest.fixture(scope='session')
def shop(tmp_path_factory):
    from tests.serve.made import make_shop
    return make_shop(tmp_path_factory.mktemp('shop'))


@pytest.fixture(scope='session')
def served(shop, tmp_path_factory):
    "(a copy of the shop, a process that serves it, its port): one for several files, as it takes a while."
    from tests.serve.running import running
    own = shop.copy(tmp_path_factory.mktemp('served'))
    with running(own, '--limit', 'head_seconds=1', '--limit', 'body_seconds=2', '--limit', 'connections=40',
                 '--limit', 'listings=8') as (process, port): yield own, process, port


@pytest.fixture
def own_shop(shop, tmp_path): return shop.copy(tmp_path/'own')


@pytest.fixture
def make_client(own_shop):
    "Function of settings: a client of a service over the test's own shop."
    from contextlib import ExitStack

    from fastapi.testclient import TestClient

    from fastmatch.serve import Settings, make_app
    from fastmatch.serve.service import Service
    from tests.serve.made import OWN
    with ExitStack() as stack:
        def make(catalogue=True, **settings):
            settings = Settings(**{'images': own_shop.images, **settings})
            service = Service(own_shop.matcher, own_shop.file if catalogue else None, settings)
            return stack.enter_context(TestClient(make_app(service), base_url=OWN))
        yield make


@pytest.fixture
def client(make_client): return make_client()
