"The page for people: a frame that its program fills by asking the API, and loads nothing from elsewhere."
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from .. import __version__
from .uploads import Refused

routes = APIRouter(include_in_schema=False)
KINDS = {'page.css': 'text/css', 'page.js': 'text/javascript'}


@cache
def _environment():
    from jinja2 import Environment, PackageLoader, StrictUndefined
    return Environment(loader=PackageLoader('fastmatch.serve'), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)


@routes.get('/')
async def page(request: Request) -> HTMLResponse:
    "The frame of the page; it holds no listing."
    service = request.app.state.service
    html = _environment().get_template('page.html').render(
        version=__version__, has_catalogue=service.catalogue is not None, inputs=service.matcher.inputs)
    return HTMLResponse(html, headers={'cache-control': 'no-cache'})


@routes.get('/static/{name}')
async def static(name: str) -> Response:
    "The page's style and its program."
    if name not in KINDS: raise Refused(404, f'{name}: there is no such file')
    content = (files('fastmatch.serve')/'templates'/name).read_bytes()
    return Response(content, media_type=KINDS[name], headers={'cache-control': 'no-cache'})
