"""The settings of the service: what it serves, where, to whom, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import msgspec

from affekt.bundle.folder import DEFAULT
from affekt.errors import BadConfig

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""The values of the header Host that are always accepted, with any port."""
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The limits of one worker process. A request that exceeds one gets an error of its own, as JSON."""

    max_body: int = 64 * MEBIBYTE
    """Bytes of the body of a request."""
    max_buffered: int = 256 * MEBIBYTE
    """Bytes of all bodies that are in memory at the same time."""
    max_files: int = 32
    """Files in one request."""
    max_duration: float = 3600.0
    """Seconds of audio in one file; checked while it is decoded, so that a small file cannot become a long one."""
    concurrency: int = 2
    """Recognitions at the same time. With two, a short clip does not wait for a long recording."""
    queue: int = 32
    """Requests that wait, beyond those that are being recognized."""
    timeout: float = 120.0
    """Seconds from the end of the body to the answer, with waiting."""
    body_timeout: float = 30.0
    """Seconds in which the body of a request must arrive."""
    max_streams: int = 8
    """WebSocket streams at the same time."""
    max_stream_duration: float = 4 * 3600.0
    """Seconds of audio in one stream."""
    idle_timeout: float = 30.0
    """Seconds that a stream or a new connection may be silent."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value <= 0 and not (limit.name in ("queue", "max_streams") and value == 0):
                raise BadConfig(f"{limit.name} = {value}: expected more than 0")


@dataclass(frozen=True)
class ServiceSettings:
    """All settings of the service."""

    model: str = DEFAULT
    """A bundle's folder, or the name of a shipped bundle."""
    host: str = "127.0.0.1"
    """The address to bind."""
    port: int = 8000
    """The port; 0 for any that is free."""
    workers: int = 1
    """Processes, each with its own recognizer and its own limits."""
    threads: int = 1
    """Cores that one recognition may use."""
    profiles: Mapping[str, str] = field(default_factory=dict)
    """Id -> file of a profile that requests may name."""
    hosts: tuple[str, ...] = ()
    """Values of the header Host that are accepted besides `LOCAL_HOSTS`; "*" for any."""
    origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may call the service, such as https://example.org."""
    key_file: str = ""
    """A file of API keys, one per line; "" if none are needed."""
    access_log: bool = False
    """Whether each request is logged: time, address, path, options and status, but neither audio nor file names."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise BadConfig(f"workers = {self.workers}: expected 1 or more")
        if not 0 <= self.port <= 65_535:
            raise BadConfig(f"port = {self.port}: expected 0 to 65535")
        for origin in self.origins:
            if origin.partition("://")[0] not in ("http", "https") or origin.count("/") != 2:
                raise BadConfig(f"origin {origin!r}: expected a scheme and a host, such as https://example.org")

    def to_json(self) -> str:
        """Return the settings as text, which a worker process receives."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> ServiceSettings:
        """Return the settings from `to_json`."""
        return msgspec.json.decode(text, type=cls)
