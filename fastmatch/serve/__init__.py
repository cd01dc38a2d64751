"""A matcher, and a catalogue that lives, as a service: a JSON API and a page for people. It imports neither
fastai nor the learner; the packages of the extra `serve` are imported where they are used."""
from importlib import import_module

from ..core import require_package
from .settings import Limits, Settings

__all__ = ['Limits', 'Service', 'Settings', 'make_app', 'serve']
PACKAGES = ('fastapi', 'uvicorn', 'python_multipart', 'prometheus_client')
MODULES = {'make_app': 'api', 'Service': 'service', 'serve': 'run'}


def __getattr__(name):
    # late: `fastmatch --help`, and a machine without the extra, import this package too
    if name not in MODULES: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    for package in PACKAGES: require_package(package, 'fastmatch serve', 'fastmatch[serve]')
    return getattr(import_module(f'.{MODULES[name]}', __name__), name)
