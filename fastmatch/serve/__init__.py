"""A matcher, and a catalogue that lives, as a service: a JSON API and a page for people. It imports neither
fastai nor the learner; the packages of the extra `serve` are imported where they are used."""
from .settings import Limits, Settings

__all__ = ['Limits', 'Service', 'Settings', 'make_app', 'serve']


def __getattr__(name):
    # late: `fastmatch --help` and a machine without fastapi import this package too
    if name == 'make_app':
        from .api import make_app as found
    elif name == 'Service':
        from .service import Service as found
    elif name == 'serve':
        from .run import serve as found
    else: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return found
