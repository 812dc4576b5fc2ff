"""Who may ask: checks of the headers Host, Origin and Authorization of HTTP and WebSocket, before anything else.

The check of Host stops pages that reach the service by a name of their own (DNS rebinding); the check of Origin stops other
sites' pages, which a browser would let open a WebSocket. Keys are compared by their hashes in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from affekt.errors import BadConfig
from affekt.serving.refusal import Refusal
from affekt.serving.settings import LOCAL_HOSTS, ServiceSettings

PROBES = ("/healthz", "/readyz")
"""Paths that anyone may ask under any name: they disclose only whether the service works."""
MAX_HEADERS = 32 * 1024
"""Bytes of the headers of a request. The server stops reading them there, but may have read more at once."""
MIN_KEY = 16
"""Smallest number of characters of an API key."""
KEY_PROTOCOL = "affekt.key."
"""Prefix of the WebSocket subprotocol that has the key, since browsers cannot set headers of a WebSocket."""
SUBPROTOCOL = "affekt.v1"
"""The WebSocket subprotocol that the service speaks."""
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of all answers: nothing is loaded from elsewhere; WebAssembly may be compiled."""
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


class Guard:
    """ASGI middleware that refuses requests by their headers, and adds the security headers to all answers.

    Args:
        app: The application.
        settings: The settings.
        keys: The hashes of the API keys; empty if none is needed.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, keys: Sequence[bytes]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in (*LOCAL_HOSTS, *settings.hosts)}
        self._origins = {origin.lower() for origin in settings.origins}
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
        except Refusal as refusal:
            await _refuse(scope, receive, send_with_headers, refusal)
        else:
            await self._app(scope, receive, send_with_headers)

    def _check(self, path: str, headers: Headers) -> None:
        """Raise `Refusal` if a request may not be answered."""
        if sum(len(name) + len(value) for name, value in headers.raw) > MAX_HEADERS:
            raise Refusal(
                "headers_too_large", f"the headers of the request have more than {MAX_HEADERS} bytes, the limit"
            )
        if path in PROBES:
            return
        host = headers.get("host", "").lower()
        if "*" not in self._hosts and not {host, strip_port(host)} & self._hosts:
            raise Refusal(
                "unknown_host",
                f"the service has no host {host!r}: expected {', '.join(sorted(self._hosts))}; the operator can add "
                "others with --allow-host",
            )
        origin = headers.get("origin", "").lower()
        if origin and origin.partition("://")[2] != host and origin not in self._origins:
            raise Refusal(
                "forbidden_origin",
                f"pages of {origin} may not use this service; the operator can allow them with --allow-origin",
            )
        if self._keys and (path.startswith("/v1/") or path == "/metrics") and not self._has_key(headers):
            raise Refusal("unauthorized", "expected a valid API key in the header Authorization: Bearer KEY")

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        candidates = [key.strip()] if scheme.lower() == "bearer" else []
        for protocol in headers.get("sec-websocket-protocol", "").split(","):
            if protocol.strip().startswith(KEY_PROTOCOL):
                candidates.append(protocol.strip().removeprefix(KEY_PROTOCOL))
        # All keys are compared, so that the time does not depend on which one is right.
        matches = [hmac.compare_digest(hash_key(text), key) for text in candidates[:2] for key in self._keys]
        return any(matches)


def strip_port(host: str) -> str:
    """Return the value of the header Host without its port."""
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() else host


def hash_key(key: str) -> bytes:
    """Return the hash by which keys are compared."""
    return hashlib.sha256(key.encode()).digest()


def read_keys(path: str) -> list[bytes]:
    """Return the hashes of the keys in a file, one per line; empty lines and those that begin with # are skipped.

    Raises:
        BadConfig: The file cannot be read, has no keys, or a key that is too short or has spaces.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} cannot be read ({error}): expected a file with one API key per line") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise BadConfig(f"{path} has no API key: expected one per line")
    for number, key in enumerate(lines, 1):
        if key in keys and (len(key) < MIN_KEY or not key.isascii() or " " in key):
            raise BadConfig(
                f"{path}, line {number}: an API key has at least {MIN_KEY} characters of ASCII and no spaces; "
                "`openssl rand -hex 24` makes one"
            )
    return [hash_key(key) for key in keys]


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "http":
        await refusal.response()(scope, receive, send)
        return
    response = refusal.response()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        return
    await receive()  # websocket.connect
    await send(
        {"type": "websocket.http.response.start", "status": response.status_code, "headers": response.raw_headers}
    )
    await send({"type": "websocket.http.response.body", "body": response.body})
