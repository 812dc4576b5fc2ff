"""The files of a multipart request (RFC 7578), read into memory within the limits. Nothing is written to disk.

The body is read as a whole and then divided at its boundary, which takes the same time whatever the body contains. A file is
a stream of bytes: its name is a label of the row, and is never opened as a path.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request

from affekt.serving.admission import Admission
from affekt.serving.refusal import Refusal
from affekt.serving.settings import Limits

FIELD = "file"
"""The name of the field of the files."""
MAX_NAME = 255
"""Characters of a file's name that are kept."""
MAX_PART_HEADERS = 8192
"""Bytes of the headers of a part."""
CONTENT_TYPE = re.compile(r'multipart/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
DISPOSITION = re.compile(rb"^content-disposition:[ \t]*form-data[ \t]*(?=;|$)(.*)$", re.IGNORECASE | re.MULTILINE)
PARAMETER = re.compile(rb';\s*(name|filename|filename\*)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))', re.IGNORECASE)


class Upload(io.BytesIO):
    """An uploaded file. Its `name` is that of the row."""

    def __init__(self, data: bytes | memoryview, name: str) -> None:
        super().__init__(data)
        self.name = name


@asynccontextmanager
async def receive_uploads(request: Request, limits: Limits, admission: Admission) -> AsyncIterator[list[Upload]]:
    """Yield the files of a request.

    Raises:
        Refusal: The request is no multipart form with files, exceeds a limit, or does not arrive in time.
    """
    match = CONTENT_TYPE.match(request.headers.get("content-type", ""))
    if not match:
        raise Refusal(
            "unsupported_media_type",
            "expected multipart/form-data with a boundary and the field 'file', as `curl --form file=@hello.wav` sends it",
        )
    body, size = bytearray(), 0
    try:
        try:
            async with asyncio.timeout(limits.body_timeout):
                await _receive(request, body, limits, admission)
        except TimeoutError:
            raise Refusal(
                "slow_body", f"the body of the request did not arrive within {limits.body_timeout:g} s"
            ) from None
        except ClientDisconnect:
            raise Refusal("bad_body", "the connection was closed before the end of the body") from None
        finally:
            size = len(body)
        uploads = split_uploads(body, (match[1] or match[2]).encode("latin-1"), limits.max_files)
        del body
        yield uploads
    finally:
        admission.release(size)


async def _receive(request: Request, body: bytearray, limits: Limits, admission: Admission) -> None:
    """Append the body of a request to `body`."""
    declared = request.headers.get("content-length", "0")
    too_large = Refusal("body_too_large", f"the body of the request has more than {limits.max_body} bytes, the limit")
    if declared.isdigit() and int(declared) > limits.max_body:
        raise too_large
    async for chunk in request.stream():
        if len(body) + len(chunk) > limits.max_body:
            raise too_large
        admission.reserve(len(chunk))
        body += chunk


def split_uploads(body: bytes | bytearray, boundary: bytes, max_files: int) -> list[Upload]:
    """Return the files in a multipart body.

    Raises:
        Refusal: The body is not valid, has no file, too many, or another field.
    """
    uploads: list[Upload] = []
    for headers, content in _split_parts(body, b"--" + boundary):
        field, filename = _read_disposition(headers)
        if field != FIELD:
            raise Refusal("bad_body", f"the form has the field {field!r}: expected only {FIELD!r}")
        if len(uploads) == max_files:
            raise Refusal("too_many_files", f"the form has more than {max_files} files, the limit")
        uploads.append(Upload(content, filename or "<upload>"))
    if not uploads:
        raise Refusal("no_file", f"the form has no file: expected the field {FIELD!r}")
    return uploads


def _split_parts(body: bytes | bytearray, delimiter: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the headers and the content of each part."""
    invalid = Refusal("bad_body", "the body is not a valid multipart form, or is cut off")
    view = memoryview(body)
    start = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if start < 2 and not body.startswith(delimiter):
        raise invalid
    start += len(delimiter)
    while not body.startswith(b"--", start):
        start = _skip_line_end(body, start)
        headers_end = body.find(b"\r\n\r\n", start, start + MAX_PART_HEADERS)
        end = body.find(b"\r\n" + delimiter, start)
        if start < 0 or headers_end < 0 or end < headers_end + 2:
            raise invalid
        yield bytes(view[start:headers_end]), view[min(headers_end + 4, end) : end]
        start = end + 2 + len(delimiter)


def _skip_line_end(body: bytes | bytearray, start: int) -> int:
    """Return the position after the end of a line with white space only; -1 if something else follows."""
    end = start
    while body[end : end + 1] in (b" ", b"\t"):
        end += 1
    return end + 2 if body.startswith(b"\r\n", end) else -1


def _read_disposition(headers: bytes) -> tuple[str, str]:
    """Return the name of the field of a part and that of its file; "" without one."""
    match = DISPOSITION.search(headers.replace(b"\r\n", b"\n"))
    if not match:
        raise Refusal("bad_body", "a part of the form has no header Content-Disposition: form-data; name=...")
    values = {key.lower(): quoted or plain for key, quoted, plain in PARAMETER.findall(match[1])}
    filename = re.sub(rb"\\([\"\\])", rb"\1", values.get(b"filename", b"")).decode("utf-8", "replace")
    filename = filename.replace("%22", '"')  # as browsers write it
    if extended := values.get(b"filename*", b"").decode("ascii", "replace"):
        filename = unquote(extended.rpartition("'")[2], errors="replace")
    return values.get(b"name", b"").decode("utf-8", "replace"), clean_name(filename)


def clean_name(name: str) -> str:
    """Return the last part of a file's name, without control characters and of limited length."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[:MAX_NAME]
