"""`POST /v1/recognize`: the rows of uploaded recordings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response

from affekt.inference.row import Row
from affekt.serving.metrics import Metrics
from affekt.serving.options import RecognizeOptions
from affekt.serving.refusal import NOTICE, UNREADABLE, Refusal, json_response
from affekt.serving.schemas import FailedResults, Results, describe_errors
from affekt.serving.service import Service
from affekt.serving.uploads import FIELD, receive_uploads

PATH = "/v1/recognize"
ERRORS = describe_errors(
    Refusal("bad_body", "the body is not a valid multipart form, or is cut off"),
    Refusal("no_file", "the form has no file: expected the field 'file'"),
    Refusal("slow_body", "the body of the request did not arrive within 30 s"),
    Refusal("body_too_large", "the body of the request has more than 67108864 bytes, the limit"),
    Refusal("too_long", "call.opus lasts more than 3600 s, the limit"),
    Refusal("too_many_files", "the form has more than 32 files, the limit"),
    Refusal("unsupported_media_type", "expected multipart/form-data with a boundary and the field 'file'"),
    Refusal("busy", "34 requests are in progress; try again in 2 s"),
    Refusal("timeout", "the recordings were not recognized within 120 s"),
)
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "additionalProperties": False,
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "An audio file of any format that `affekt recognize` reads. Repeatable.",
                        }
                    },
                }
            }
        },
    }
}
Result = TypeVar("Result")


class Disconnected(Exception):
    """The client has closed the connection, and no longer waits for the answer."""


def make_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post(
        PATH,
        operation_id="recognize",
        summary="Recognize the emotion in recordings",
        response_model=Results,
        responses={**ERRORS, UNREADABLE: {"model": FailedResults, "description": "no file is readable, or bad_option"}},
        openapi_extra=FORM,
    )
    async def recognize(request: Request, options: Annotated[RecognizeOptions, Query()]) -> Response:
        """Recognize one or more uploaded recordings.

        A file that cannot be read has a row with the status `error`; if all are such, the status of the answer is 422.
        """
        with service.admission.request(), service.metrics.requests.track_inprogress():
            service.engine.variant(options)  # an invalid option is refused before the body arrives
            async with receive_uploads(request, service.settings.limits, service.admission) as uploads:
                try:
                    rows = await _unless_disconnected(request, service.engine.recognize(uploads, options))
                except Disconnected:
                    return Response(status_code=499)  # nobody reads it; it is counted
        count_rows(service.metrics, PATH, rows)
        return answer(rows)

    return router


def answer(rows: list[Row]) -> Response:
    """Return the answer with rows; it has an error if no file could be read."""
    content: dict[str, Any] = {"results": rows, "notice": NOTICE}
    if rows and all(row.error for row in rows):
        return json_response({"error": rows[0].error, **content}, UNREADABLE)
    return json_response(content)


def count_rows(metrics: Metrics, route: str, rows: list[Row]) -> None:
    """Count rows and their seconds of audio."""
    for row in rows:
        metrics.rows.labels(row.status).inc()
        metrics.audio.labels(route).inc(row.duration)


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of some work; cancel it and raise `Disconnected` if the client closes the connection."""
    task = asyncio.create_task(work)
    left = asyncio.create_task(_wait_until_disconnected(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Disconnected
        return task.result()
    finally:
        for each in (task, left):
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await each


async def _wait_until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
