"""What stands before every request: who may ask, how large and how slow it may be, and how long it may take.

It reads the whole body before anything else does, against the limits, so that whatever comes behind it works
on a request that is there.
"""
import asyncio
import hashlib
import hmac
import json
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from .settings import Settings

COOKIE = 'fastmatch'
# what holds no listing: a page that asks for the key must come without one
OPEN = ('/', '/health', '/api/session')
SAFE = ('GET', 'HEAD', 'OPTIONS')
HEADERS = [
    (b'content-security-policy', b"default-src 'none'; script-src 'self'; style-src 'self'; "
                                 b"connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; "
                                 b"form-action 'self'; frame-ancestors 'none'"),
    (b'x-content-type-options', b'nosniff'), (b'referrer-policy', b'no-referrer'),
    (b'cross-origin-resource-policy', b'same-origin')]


class Stopped(Exception):
    "A request that is answered here."
    def __init__(self, status, words):
        super().__init__(words)
        self.status = status


class Guard:
    "An ASGI application around another one."
    def __init__(
        self,
        app,  # ASGI application
        settings: Settings,
        metrics,  # `Metrics`
    ):
        self.app = app
        self.settings = settings
        self.limits = settings.limits
        self.metrics = metrics
        self.token = None if settings.key is None else page_token(settings.key)
        self.bytes_held = 0

    async def __call__(self, scope, receive, send):
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        answer = Answer(send)
        began = time.monotonic()
        self.metrics.open.inc()
        try:
            try: await self._answered(scope, receive, answer)
            except Stopped as stopped: await answer.problem(stopped.status, str(stopped))
            except Exception:
                # a fault of this package: told in words, and in full in the server's log
                if answer.status is None: await answer.problem(500, 'the service failed: its log says how')
                raise
        finally:
            self.metrics.open.dec()
            route = getattr(scope.get('route'), 'path', None) or 'other'
            self.metrics.answered(route, answer.status or 499, time.monotonic() - began)

    async def _answered(self, scope, receive, answer):
        headers = {name: content.decode('latin-1') for name, content in scope['headers']}
        self._check_origin(scope, headers)
        self._check_key(scope, headers)
        body = await self._body(headers, receive)
        self.bytes_held += len(body)
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, _Replay(body, receive), answer)
        except TimeoutError:
            raise Stopped(503, f'no answer within {self.limits.seconds:g} seconds; a change may have been '
                               'carried out all the same: ask for the events') from None
        finally: self.bytes_held -= len(body)

    def _check_origin(self, scope, headers):
        host = headers.get(b'host', '')
        known = self.settings.known_hosts
        if known is not None and _name_of(host) not in known:
            raise Stopped(421, f'this service is not reached as {host[:100]!r}: ask it as 127.0.0.1 or '
                               'localhost')
        origin = headers.get(b'origin')
        if origin is None or scope['method'] in SAFE: return
        # a proxy before the service may end TLS: the scheme says nothing
        if urlsplit_or_none(origin) != host.lower():
            raise Stopped(403, 'a page of another site asks: changes are taken from the own page alone')

    def _check_key(self, scope, headers):
        path = scope['path']
        if self.token is None or path in OPEN or path.startswith('/static/'): return
        given = headers.get(b'authorization', '')
        kind, _, key = given.partition(' ')
        if kind.lower() == 'bearer' and same(key.strip(), self.settings.key): return
        if same(_cookie_of(headers), self.token): return
        raise Stopped(401, 'give the key: Authorization: Bearer KEY')

    async def _body(self, headers, receive):
        "All of the body, as long as it is neither too large nor too slow."
        limit = self.limits.body
        too_large = Stopped(413, f'the request is larger than {limit:,} bytes')
        told = headers.get(b'content-length', '')
        if told.isdigit() and int(told) > limit: raise too_large
        room = self.limits.waiting_bytes - self.bytes_held
        if told.isdigit() and int(told) > room: raise Stopped(503, 'too many large requests: try again')
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while more:
                    message = await receive()
                    if message['type'] == 'http.disconnect': raise Stopped(400, 'the client went away')
                    body += message.get('body', b'')
                    more = message.get('more_body', False)
                    if len(body) > limit: raise too_large
        except TimeoutError:
            raise Stopped(408, f'the request did not come within {self.limits.body_seconds:g} '
                               'seconds') from None
        return bytes(body)


class _Replay:
    "A body that has come already, as an application asks for it."
    def __init__(self, body, receive):
        self.body = body
        self.receive = receive

    async def __call__(self):
        if self.body is None: return await self.receive()
        body, self.body = self.body, None
        return {'type': 'http.request', 'body': body, 'more_body': False}


class Answer:
    "What is sent back: with the headers that every answer has, and its status remembered."
    def __init__(self, send):
        self.send = send
        self.status = None

    async def __call__(self, message):
        if message['type'] == 'http.response.start':
            self.status = message['status']
            message = {**message, 'headers': [*message.get('headers', ()), *HEADERS]}
        await self.send(message)

    async def problem(self, status: int, words: str):
        "An answer that says why; none where one has begun, which is cut off then."
        if self.status is not None: raise ConnectionAbortedError(words)
        content = json.dumps({'detail': words}).encode()
        headers = [(b'content-type', b'application/json'), (b'content-length', str(len(content)).encode()),
                   # whatever is still coming is not read
                   (b'connection', b'close')]
        if status == 401: headers.append((b'www-authenticate', b'Bearer'))
        if status == 503: headers.append((b'retry-after', b'2'))
        await self({'type': 'http.response.start', 'status': status, 'headers': headers})
        await self.send({'type': 'http.response.body', 'body': content})


def same(
    given: str,
    expected: str,
) -> bool:
    "Whether both are equal, in a time that says nothing about where they differ."
    return hmac.compare_digest(given.encode('utf-8', 'replace'), expected.encode('utf-8', 'replace'))


def page_token(
    key: str,  # Of the service
) -> str:
    "What the page's cookie holds instead of the key."
    return hmac.new(key.encode(), b'the page of fastmatch', hashlib.sha256).hexdigest()


def _cookie_of(headers):
    try: cookies = SimpleCookie(headers.get(b'cookie', ''))
    except CookieError: return ''
    return cookies[COOKIE].value if COOKIE in cookies else ''


def _name_of(host):
    "The name of a Host header without its port."
    host = host.strip().lower()
    if host.startswith('['): return host.partition(']')[0] + ']'
    return host.partition(':')[0]


def urlsplit_or_none(
    origin: str,  # Of a browser: 'http://127.0.0.1:8000', or 'null'
) -> str | None:
    "The name and port of an origin, None where it has none."
    try: return urlsplit(origin).netloc.lower() or None
    except ValueError: return None
