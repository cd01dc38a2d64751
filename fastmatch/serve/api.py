"The application: routes, errors in words with their status, and the guard before them all."
import sqlite3
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .. import __version__
from ..core import InputError, preview
from .batching import Busy
from .guard import Guard
from .page import routes as page_routes
from .routes import plain, routes
from .service import Service
from .thumbnails import Thumbnails
from .uploads import Refused


def make_app(
    service: Service,  # Closed at the application's end
) -> FastAPI:
    "The application around a service; its API is described in /openapi.json."
    @asynccontextmanager
    async def lifespan(app):
        yield
        await service.close()
    # the usual page of documentation loads its program from another place
    app = FastAPI(title='fastmatch', version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
                  description='Matches product listings by picture and title, and keeps them in groups.')
    app.state.service = service
    # the shop's own pictures may be larger than those that a stranger sends
    app.state.thumbnails = Thumbnails(service.limits.thumbnails, 4 * service.limits.pixels)
    for router in (routes, plain, page_routes): app.include_router(router)
    app.add_exception_handler(InputError, _not_usable)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Busy, _busy)
    app.add_middleware(Guard, settings=service.settings, metrics=service.metrics)
    return app


def _problem(status, words, headers=None):
    # half an emoji, as a client may send it, can't be written as UTF-8
    detail = words.encode('utf-8', 'replace').decode()
    return JSONResponse({'detail': detail}, status, headers)


async def _not_usable(request, error):
    if isinstance(error, Refused): return _problem(error.status, str(error))
    # the file of the catalogue can't be read or written just now
    if isinstance(error.__cause__, sqlite3.DatabaseError):
        return _problem(503, str(error), {'retry-after': '2'})
    return _problem(422, str(error))


async def _not_valid(request, error):
    # where and what: the value itself may be megabytes, or text that nothing can write
    faults = [f'{".".join(map(str, fault["loc"]))[:200]}: {fault["msg"]}' for fault in error.errors()]
    return _problem(422, preview(faults))


async def _refused(request, error): return _problem(error.status_code, str(error.detail), error.headers)


async def _busy(request, error):
    return _problem(503, 'more listings wait than are taken on: try again', {'retry-after': '2'})
