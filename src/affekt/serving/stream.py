"""`WS /v1/stream`: live speech in, events out.

The client sends samples in binary messages, and the text "end" when there are no more. The service sends JSON: first
{"kind": "ready"}, then the events of `affekt listen --json` ("segment", "provisional", "gap"), at last {"kind": "end"}, or
{"kind": "error"} with an error as that of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from affekt.errors import AffektError
from affekt.serving.guard import SUBPROTOCOL
from affekt.serving.options import StreamOptions
from affekt.serving.recognize import count_rows
from affekt.serving.refusal import NOTICE, Refusal
from affekt.serving.samples import OPUS_RATE, Decode, make_decoder
from affekt.serving.service import Service
from affekt.timeline.stream import Event, Stream, StreamSettings

PATH = "/v1/stream"
END = "end"
"""The text message that ends a stream."""
TICK = 0.5
"""Seconds after which a stream that waits for samples checks whether the service is about to stop."""
NORMAL, TOO_MUCH, REFUSED, BROKEN, STOPPING, TRY_LATER = 1000, 1009, 1008, 1011, 1012, 1013
"""Codes with which a WebSocket is closed (RFC 6455)."""
CLOSE_CODES = {"busy": TRY_LATER, "stopping": STOPPING, "too_long": TOO_MUCH, "internal": BROKEN}


def make_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.websocket(PATH)
    async def stream(websocket: WebSocket) -> None:
        requested = websocket.scope.get("subprotocols", [])
        await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in requested else None)
        with contextlib.suppress(WebSocketDisconnect):  # a client that has gone reads nothing
            try:
                with service.admission.stream(), service.metrics.streams.track_inprogress():
                    await _Session(websocket, service).run()
            except (Refusal, AffektError) as error:
                refusal = error if isinstance(error, Refusal) else Refusal(error.code, str(error))
                service.metrics.refusals.labels(refusal.code).inc()
                await _send(websocket, {"kind": "error", **refusal.content})
                await websocket.close(CLOSE_CODES.get(refusal.code, REFUSED), refusal.code)

    return router


class _Session:
    """One stream."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._websocket, self._service = websocket, service
        options = _parse(websocket)
        recognizer = service.engine.variant(options)
        is_opus = options.format == "opus"
        self._decode: Decode = make_decoder(options.format)
        self._stream = Stream(
            recognizer,
            StreamSettings(
                sample_rate=OPUS_RATE if is_opus else options.rate,
                channels=1 if is_opus else options.channels,
                update=options.update,
            ),
        )
        self._ready = {"kind": "ready", "model": recognizer.model, "emotions": recognizer.emotions, "notice": NOTICE}

    async def run(self) -> None:
        """Recognize until the client ends the stream, or the service stops."""
        await _send(self._websocket, self._ready)
        while (data := await self._receive()) is not None:
            await self._send_events(await self._service.engine.run_stream(self._add, data))
            if self._stream.seconds > self._service.settings.limits.max_stream_duration:
                raise Refusal("too_long", "the stream is longer than the limit; open another one")
        await self._send_events(await self._service.engine.run_stream(self._stream.finish))
        stopping = self._service.admission.stopping
        await _send(self._websocket, {"kind": "end", "seconds": round(self._stream.seconds, 4), "stopping": stopping})
        await self._websocket.close(STOPPING if stopping else NORMAL)

    def _add(self, data: bytes) -> list[Event]:
        return self._stream.add(self._decode(data))

    async def _receive(self) -> bytes | None:
        """Return the content of the next binary message; None at the end of the stream, or if the service stops."""
        limit, waited = self._service.settings.limits.idle_timeout, 0.0
        task = asyncio.create_task(self._websocket.receive())
        try:
            while not (await asyncio.wait({task}, timeout=TICK))[0]:
                if self._service.admission.stopping:
                    return None
                if (waited := waited + TICK) >= limit:
                    raise Refusal("slow_body", f"no samples arrived for {limit:g} s")
        finally:
            task.cancel()
        message = task.result()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", NORMAL))
        if (data := message.get("bytes")) is not None:
            return data
        if message.get("text") == END:
            return None
        raise Refusal("bad_body", f"expected samples in binary messages, or the text {END!r} at the end")

    async def _send_events(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.row is not None and event.kind == "segment":
                count_rows(self._service.metrics, PATH, [event.row])
            await _send(self._websocket, {**asdict(event), "row": event.row})


def _parse(websocket: WebSocket) -> StreamOptions:
    """Return the options of a stream. Raises `Refusal` if they are invalid."""
    try:
        return StreamOptions.model_validate(dict(websocket.query_params))
    except ValidationError as error:
        raise describe_invalid(error.errors()) from None


def describe_invalid(errors: Any) -> Refusal:
    """Return the refusal of invalid options."""
    parts = [f"{'.'.join(map(str, error['loc'][-1:]))}: {error['msg']}" for error in errors]
    return Refusal("bad_option", "; ".join(parts))


async def _send(websocket: WebSocket, content: dict[str, Any]) -> None:
    if websocket.application_state is WebSocketState.CONNECTED:
        await websocket.send_text(msgspec.json.encode(content).decode())
