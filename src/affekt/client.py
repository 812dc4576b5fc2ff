"""A client of the service (`affekt serve`), synchronous and asynchronous; it needs the extra `client`.

>>> with Client("http://127.0.0.1:8000") as client:
...     for row in client.recognize("hello.wav", "bye.wav", emotions=["angry", "neutral"]):
...         print(row.emotion, row.probabilities)

The answers are rows and events, as from `affekt.Recognizer`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn, Self, TypedDict, Unpack
from urllib.parse import urlencode, urlsplit

import msgspec

from affekt.errors import BadAudio, BadConfig, ServiceError
from affekt.extras import need
from affekt.inference.row import Row
from affekt.timeline.stream import Event

if TYPE_CHECKING:
    import httpx2

Upload = str | PathLike[str] | bytes | IO[bytes] | tuple[str, bytes]
"""A path, the bytes of a file, a binary file object, or a pair of a name and bytes."""
TIMEOUT = 150.0
"""Default number of seconds to wait for an answer."""
PURPOSE = "the client of the service"
END = "end"


class RecognizeSettings(TypedDict, total=False):
    """The options of a request, which `docs/serving.md` describes."""

    timeline: bool
    channels: Literal["mix", "separate"]
    threshold: float
    emotions: Sequence[str]
    vad: Literal["off", "auto", "on"]
    top: int
    lenient: bool
    profile: str


class LiveSettings(TypedDict, total=False):
    """The options of a stream, which `docs/serving.md` describes."""

    rate: int
    channels: int
    format: Literal["s16le", "opus"]
    update: float
    threshold: float
    emotions: Sequence[str]
    vad: Literal["off", "auto", "on"]
    profile: str


@dataclass(frozen=True)
class ServedModel:
    """A model of the service."""

    id: str
    """The bundle's name, "@", and 8 hexadecimal digits of its hash."""
    name: str
    emotions: tuple[str, ...]
    profiles: tuple[str, ...]
    """The ids of the registered profiles."""
    card: str
    """The model card in Markdown."""
    files: tuple[str, ...]
    """The paths of the files with which a browser recognizes on its own."""


class _Base:
    """The parts of both clients that do not wait."""

    def __init__(self, url: str, *, api_key: str = "", timeout: float = TIMEOUT, retries: int = 0) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise BadConfig(f"{url!r} is no URL of a service: expected one such as http://127.0.0.1:8000")
        self.url, self.retries, self._timeout = url.rstrip("/"), retries, timeout
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._httpx = need("httpx2", extra="client", purpose=PURPOSE)

    def _settings(self) -> dict[str, Any]:
        return {"base_url": self.url, "headers": self._headers, "timeout": self._timeout}

    def _stream_url(self, settings: Mapping[str, Any]) -> str:
        return f"ws{self.url.removeprefix('http')}/v1/stream?{urlencode(_parameters(settings))}"

    def _wait_before_retry(self, attempt: int, response: httpx2.Response) -> float | None:
        """Return the seconds after which a request is sent again; None if it is not."""
        if response.status_code != 503 or attempt >= self.retries:
            return None
        return float(response.headers.get("retry-after", 1))

    def _fail(self, error: Exception) -> NoReturn:
        reason = str(error) or type(error).__name__
        raise ServiceError(f"{self.url} does not answer: {reason}", code="unreachable") from error


class Client(_Base):
    """A client of a service.

    Args:
        url: The address of the service.
        api_key: The API key, if the service requires one.
        timeout: Seconds to wait for an answer.
        retries: How often a request is sent again if the service is busy, each time after the time that it states.

    Raises:
        BadConfig: `url` is not a URL.
        MissingExtra: The extra `client` is not installed.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, api_key: str = "", timeout: float = TIMEOUT, retries: int = 0
    ) -> None:
        super().__init__(url, api_key=api_key, timeout=timeout, retries=retries)
        self._client = self._httpx.Client(**self._settings())

    def recognize(self, *sources: Upload, **settings: Unpack[RecognizeSettings]) -> list[Row]:
        """Return the rows of recordings; with `timeline`, those of their segments.

        A recording that cannot be read has a row with the status "error".

        Raises:
            BadAudio: A file does not exist.
            ServiceError: The service refuses the request, or does not answer.
        """
        files = [("file", _read(source)) for source in sources]
        for attempt in range(self.retries + 1):
            try:
                response = self._client.post("/v1/recognize", params=_parameters(settings), files=files)
            except self._httpx.HTTPError as error:
                self._fail(error)
            if (seconds := self._wait_before_retry(attempt, response)) is None:
                break
            time.sleep(seconds)
        return [Row.read(row) for row in _check(response)["results"]]

    def models(self) -> list[ServedModel]:
        """Return the models of the service. Raises `ServiceError`."""
        try:
            response = self._client.get("/v1/models")
        except self._httpx.HTTPError as error:
            self._fail(error)
        return msgspec.convert(_check(response)["models"], list[ServedModel])

    def stream(self, chunks: Iterable[bytes], **settings: Unpack[LiveSettings]) -> Iterator[Event]:
        """Yield the events of live speech.

        Args:
            chunks: The binary messages: samples, or packets of Opus. They are sent from another thread.
            settings: The options.

        Raises:
            ServiceError: The service refuses the stream, or does not answer.
        """
        connect = need("websockets.sync.client", extra="client", purpose=PURPOSE).connect
        try:
            with connect(self._stream_url(settings), additional_headers=self._headers) as connection:
                sender = threading.Thread(target=_send, args=(connection, chunks), daemon=True)
                sender.start()
                yield from _events(map(msgspec.json.decode, connection))
        except _stream_errors() as error:
            self._fail(error)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Base):
    """A client of a service for asyncio; arguments, methods and errors are those of `Client`."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, api_key: str = "", timeout: float = TIMEOUT, retries: int = 0
    ) -> None:
        super().__init__(url, api_key=api_key, timeout=timeout, retries=retries)
        self._client = self._httpx.AsyncClient(**self._settings())

    async def recognize(self, *sources: Upload, **settings: Unpack[RecognizeSettings]) -> list[Row]:
        """Return the rows of recordings, as `Client.recognize`."""
        files = [("file", await asyncio.to_thread(_read, source)) for source in sources]
        for attempt in range(self.retries + 1):
            try:
                response = await self._client.post("/v1/recognize", params=_parameters(settings), files=files)
            except self._httpx.HTTPError as error:
                self._fail(error)
            if (seconds := self._wait_before_retry(attempt, response)) is None:
                break
            await asyncio.sleep(seconds)
        return [Row.read(row) for row in _check(response)["results"]]

    async def models(self) -> list[ServedModel]:
        """Return the models of the service, as `Client.models`."""
        try:
            response = await self._client.get("/v1/models")
        except self._httpx.HTTPError as error:
            self._fail(error)
        return msgspec.convert(_check(response)["models"], list[ServedModel])

    async def stream(self, chunks: AsyncIterable[bytes], **settings: Unpack[LiveSettings]) -> AsyncIterator[Event]:
        """Yield the events of live speech, as `Client.stream`."""
        connect = need("websockets.asyncio.client", extra="client", purpose=PURPOSE).connect
        try:
            async with connect(self._stream_url(settings), additional_headers=self._headers) as connection:
                sender = asyncio.create_task(_send_async(connection, chunks))
                try:
                    async for message in connection:
                        for event in _events([msgspec.json.decode(message)]):
                            yield event
                finally:
                    sender.cancel()
        except _stream_errors() as error:
            self._fail(error)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _parameters(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return options as query parameters."""
    values = {name: ",".join(value) if name == "emotions" else value for name, value in settings.items()}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


def _read(source: Upload) -> tuple[str, bytes]:
    """Return the name and the bytes of a source."""
    if isinstance(source, tuple):
        return source
    if isinstance(source, bytes):
        return "bytes", source
    if isinstance(source, str | PathLike):
        try:
            return os.path.basename(source), Path(source).read_bytes()  # noqa: PTH119
        except OSError as error:
            raise BadAudio(
                f"{os.fspath(source)} cannot be read: {error.strerror or error}", code="unreadable"
            ) from error
    return os.path.basename(str(getattr(source, "name", "stream"))), source.read()  # noqa: PTH119


def _check(response: httpx2.Response) -> dict[str, Any]:
    """Return the content of an answer. Raises `ServiceError` if it has neither results nor models."""
    try:
        content: Any = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        content = None
    if isinstance(content, dict) and (response.is_success or "results" in content):
        return content
    error = content.get("error") if isinstance(content, dict) else None
    if not isinstance(error, dict):
        raise ServiceError(f"{response.url} answers with status {response.status_code}: is it a service of affekt?")
    raise ServiceError(error["message"], code=error["code"], status=response.status_code)


def _events(messages: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
    """Yield the events among the messages of a stream. Raises `ServiceError` for an error."""
    for message in messages:
        if message["kind"] == "error":
            raise ServiceError(message["error"]["message"], code=message["error"]["code"])
        if message["kind"] not in ("ready", END):
            row = message["row"]
            yield Event(
                message["kind"], message["start"], message["end"], row and Row.read(row), message["seconds_lost"]
            )


def _send(connection: Any, chunks: Iterable[bytes]) -> None:
    """Send the messages of a stream until it is closed."""
    try:
        for chunk in chunks:
            connection.send(chunk)
        connection.send(END)
    except need("websockets", extra="client", purpose=PURPOSE).ConnectionClosed:
        return  # the reason arrives as a message


async def _send_async(connection: Any, chunks: AsyncIterable[bytes]) -> None:
    async for chunk in chunks:
        await connection.send(chunk)
    await connection.send(END)


def _stream_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a connection."""
    return OSError, need("websockets.exceptions", extra="client", purpose=PURPOSE).WebSocketException
