"What a service is told when it is started: where it listens, who may ask, and how much of anything it takes."
import ipaddress
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ..core import InputError, unknown_option

KEY_VARIABLE = 'FASTMATCH_KEY'  # of the environment; a key in a command line can be read by other users
LEAST_KEY = 16  # letters of a key: shorter ones can be guessed


@dataclass(frozen=True)
class Limits:
    "How much the service takes; whatever goes beyond is refused with a status that says so."
    body: int = 16_000_000  # Bytes of a request
    pixels: int = 25_000_000  # Of a picture, read from its header before anything is decoded
    pictures: int = 8  # Of a listing
    listings: int = 64  # Of a request
    title: int = 2_000  # Letters
    answers: int = 200  # Listings, groups or pairs in an answer
    batch: int = 32  # Listings that the encoder works on together
    waiting: int = 256  # Listings that wait for the encoder; more are answered with 503
    waiting_bytes: int = 256_000_000  # Of all requests that are being answered
    connections: int = 256  # Open ones
    head_seconds: float = 10.  # For the first lines of a request
    body_seconds: float = 30.  # For the rest of it
    seconds: float = 60.  # For the answer
    stop_seconds: float = 20.  # For requests that are being answered when the service is stopped
    write_seconds: float = 5.  # That a change waits for another process that writes the catalogue
    thumbnails: int = 64_000_000  # Bytes of small pictures that are kept in memory

    def __post_init__(self):
        for limit in fields(self):
            value = getattr(self, limit.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise InputError(f'limit {limit.name}={value!r}: give a number above 0')

    @classmethod
    def from_words(
        cls,
        given,  # Texts 'name=value', as the command line takes them
    ) -> 'Limits':
        "The limits with those that are named in words changed; raises `InputError` for an unknown one."
        kinds, changed = {limit.name: limit.type for limit in fields(cls)}, {}
        for words in given or ():
            name, _, value = words.partition('=')
            if name not in kinds: raise unknown_option(name, value, list(kinds), '--limit')
            try: changed[name] = kinds[name](value)
            except ValueError: raise InputError(f'--limit {words}: give a number, {name}=VALUE') from None
        return replace(cls(), **changed)


@dataclass(frozen=True)
class Settings:
    """Where a service listens and who may ask it.

    Raises `InputError` for an address that other machines reach where there is no key, and for a key that is
    too short.
    """
    host: str = '127.0.0.1'  # Address to listen on
    port: int = 8000  # 0: any that is free
    key: str | None = None  # What a request must know; None: everybody on this machine may ask
    images: Path | None = None  # Folder of the listings' pictures: shown on the page, uploads are kept in it
    limits: Limits = field(default_factory=Limits)
    hosts: tuple = ()  # Further names under which the service is reached, for a proxy before it

    def __post_init__(self):
        if not 0 <= self.port < 65536: raise InputError(f'--port {self.port}: give a number from 0 to 65535')
        if self.images is not None and not Path(self.images).is_dir():
            raise InputError(f'--images {self.images}: is not a folder')
        if self.key is not None and len(self.key) < LEAST_KEY:
            raise InputError(f'the key has {len(self.key)} letters: give {LEAST_KEY} or more')
        if self.key is None and not is_loopback(self.host):
            raise InputError(f'--host {self.host}: other machines reach this address: give a key, in the '
                             f'environment variable {KEY_VARIABLE} or as --key, or keep to 127.0.0.1')

    @property
    def known_hosts(self) -> set | None:
        """The names by which a browser may ask; None where a key is needed anyhow.

        Without a key any page that a person opens could ask a service on their machine, under a name of its
        own that leads to 127.0.0.1: such names are refused.
        """
        if self.key is not None: return None
        return {'localhost', '127.0.0.1', '[::1]', self.host.lower(), *self.hosts}


def is_loopback(
    host: str,  # Name or address
) -> bool:
    "Whether only this machine reaches an address."
    if host.lower() == 'localhost': return True
    try: return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError: return False


def key_from(
    given: str | None,  # On the command line
) -> str | None:
    "The key, which the environment may hold; an empty one is none."
    return given or os.environ.get(KEY_VARIABLE) or None
