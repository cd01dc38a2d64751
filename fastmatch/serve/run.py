"Runs a service until it is told to stop, and then lets the requests that it is answering come to their end."
import signal
import socket
import sys
from pathlib import Path

from ..core import InputError
from .settings import Settings

SWITCH = 5e-4  # seconds after which a thread hands Python's lock on


def serve(
    matcher: Path,  # Folder of a matcher
    catalogue: Path | None = None,  # File of a catalogue; None: only `match`
    settings: Settings | None = None,
    device: str | None = None,  # Where the encoder runs
    runtime: str = 'torch',  # What runs it
    echo=print,  # Called with a line of text
):
    "Serve a matcher and its catalogue; returns after SIGINT or SIGTERM."
    settings = settings or Settings()
    from ..matcher import load_matcher
    from .api import make_app
    from .service import Service
    # before the encoder is loaded: an address that is taken is told at once
    with _bound(settings) as listener:
        service = Service(load_matcher(matcher, device, runtime=runtime), catalogue, settings)
        _run(make_app(service), listener, settings, echo)


def server_options(
    settings: Settings,
) -> dict:
    "How uvicorn listens: one process, whose threads share the encoder and the index."
    from .head import TimedHead
    limits = settings.limits
    return {'log_level': 'warning', 'access_log': False, 'lifespan': 'on',
            'http': TimedHead.within(limits.head_seconds), 'ws': 'none',
            'server_header': False, 'limit_concurrency': limits.connections, 'backlog': 512,
            'timeout_keep_alive': int(max(1, limits.head_seconds)),
            'timeout_graceful_shutdown': int(max(1, limits.stop_seconds))}


def _bound(settings):
    "A socket at the address, which takes no connection yet."
    host = settings.host.strip('[]')
    try:
        found = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)
        listener, address = socket.socket(*found[0][:3]), found[0][4]
    except OSError as error: raise InputError(f'--host {settings.host}: {error.strerror}') from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(f'{settings.host}, port {settings.port}: {error.strerror}') from error
    return listener


def _run(app, listener, settings, echo):
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            host = f'[{settings.host.strip("[]")}]' if listener.family == socket.AF_INET6 else settings.host
            if self.started: echo(f'serving on http://{host}:{listener.getsockname()[1]}')

    # the encoder's thread asks for Python's lock between any two operations: where others compute it would
    # wait for 5 ms each time, which is longer than the operation takes
    sys.setswitchinterval(SWITCH)
    # uvicorn stops at these signals and raises them once more at its end: stopping as asked is no failure
    for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda *_: None)
    Server(uvicorn.Config(app, **server_options(settings))).run(sockets=[listener])
    echo('stopped')
