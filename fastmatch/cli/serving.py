"The command that answers over HTTP: `serve`."
import os
from pathlib import Path
from typing import Annotated

import typer

from .matching import Runtime
from .program import Device, MatcherFolder, app, option, working


@app.command()
def serve(
    matcher: MatcherFolder,
    catalogue: Annotated[Path | None, option('A catalogue: without one only `match` is answered.')] = None,
    images: Annotated[Path | None, option(
        "Folder of the listings' pictures, to show them; those of added listings are kept in its `uploads`."
    )] = None,
    host: Annotated[str, option('Address; any other than a loopback one needs a key.')] = '127.0.0.1',
    port: Annotated[int, option('0: any that is free.')] = 8000,
    key: Annotated[str | None, option(
        'What requests must know; better in the environment as FASTMATCH_KEY, which other users can not read.'
    )] = None,
    limit: Annotated[list[str] | None, option(
        'NAME=VALUE, several times: body, pixels, listings, batch, seconds; see fastmatch.serve.Limits.'
    )] = None,
    device: Device = None,
    runtime: Runtime = 'torch',
):
    """Serve a matcher, and a catalogue that lives: a JSON API (/openapi.json) and a page for people.

    Needs the extra [serve]. Ctrl-C lets the requests that are being answered come to their end.
    """
    # a bar for each request would be noise
    os.environ['TQDM_DISABLE'] = '1'
    with working():
        from ..serve import Limits, Settings
        from ..serve import serve as run_service
        from ..serve.settings import key_from
        settings = Settings(host, port, key_from(key), images, Limits.from_words(limit))
        run_service(matcher, catalogue, settings, device, runtime, typer.echo)
