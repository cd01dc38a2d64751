"HTTP connections on which the first lines of a request may not take forever, as uvicorn's own may."
import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

TOO_SLOW = (b'HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n'
            b'content-length: 42\r\n\r\n{"detail": "the request came too slowly."}')


class TimedHead(H11Protocol):
    "A connection that is answered with 408 and closed where the head of a request takes too long."
    head_seconds = 10.

    @classmethod
    def within(
        cls,
        seconds: float,  # For the first lines of a request, from the connection or from its first byte on
    ) -> type:
        "The class with another time, as uvicorn takes it."
        return type(cls.__name__, (cls,), {'head_seconds': seconds})

    def connection_made(self, transport):
        "A client connected."
        super().connection_made(transport)
        self.timer = None
        self._wait()

    def data_received(self, data):
        "Some bytes came."
        if self.timer is None and self.conn.their_state is h11.IDLE: self._wait()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE: self._came()

    def connection_lost(self, exc):
        "The client is gone."
        self._came()
        super().connection_lost(exc)

    def _wait(self): self.timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def _came(self):
        if self.timer is not None: self.timer.cancel()
        self.timer = None

    def _too_slow(self):
        self.timer = None
        if self.transport.is_closing(): return
        self.transport.write(TOO_SLOW)
        self.transport.close()
