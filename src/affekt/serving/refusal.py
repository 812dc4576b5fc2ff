"""Refusals: the errors of the service, each with a status of HTTP and a code, as {"error": {"code", "message"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

NOTICE = (
    "These results infer emotions from a voice. People must be informed when their emotions are inferred "
    "(Regulation (EU) 2024/1689, Article 50(3)); the probabilities are those of acted speech and no statement about "
    "what a person feels."
)
"""The notice in all results, on the page, and in the description of the model."""

STATUS = {
    "bad_body": 400,
    "no_file": 400,
    "unauthorized": 401,
    "forbidden_origin": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "slow_body": 408,
    "body_too_large": 413,
    "too_long": 413,
    "too_many_files": 413,
    "unsupported_media_type": 415,
    "unknown_host": 421,
    "bad_option": 422,
    "headers_too_large": 431,
    "internal": 500,
    "busy": 503,
    "timeout": 503,
    "stopping": 503,
}
"""Code -> status of HTTP. Audio that cannot be read has the codes of `affekt.audio.read.CODES` and the status 422."""
UNREADABLE = 422


class Refusal(Exception):
    """A request that is refused. `retry_after` is the number of seconds after which it may succeed."""

    def __init__(self, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code, self.retry_after = code, retry_after

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return STATUS.get(self.code, UNREADABLE)

    @property
    def content(self) -> dict[str, Any]:
        """The content of the answer."""
        return {"error": {"code": self.code, "message": str(self)}}

    @property
    def headers(self) -> dict[str, str]:
        """The further headers of the answer."""
        headers = {}
        if self.status == STATUS["busy"]:
            headers["Retry-After"] = str(self.retry_after or 1)
        if self.status == STATUS["unauthorized"]:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def response(self) -> Response:
        """Return the answer."""
        return json_response(self.content, self.status, self.headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer as JSON, which is not to be stored by caches."""
    return Response(
        msgspec.json.encode(content),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )
