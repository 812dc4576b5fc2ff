"""The metrics of the service for Prometheus."""

from __future__ import annotations

import os
import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable of the folder in which the worker processes add up their metrics."""
ROUTES = ("/v1/recognize", "/v1/stream", "/v1/models", "/metrics", "/healthz", "/readyz")
"""Routes that are counted by name; all others are "other", so that clients cannot create labels."""
BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    """The counters of one worker process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "affekt_requests", "Answered requests, by route and status", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "affekt_request_seconds", "Seconds from request to answer", ["route"], buckets=BUCKETS, registry=registry
        )
        self.rows = Counter("affekt_rows", "Rows by status", ["status"], registry=registry)
        self.audio = Counter("affekt_audio_seconds", "Seconds of audio recognized", ["route"], registry=registry)
        self.refusals = Counter(
            "affekt_refusals", "Refused requests and streams, by the code of the error", ["code"], registry=registry
        )
        self.requests = Gauge(
            "affekt_requests_in_progress", "Admitted requests", multiprocess_mode="livesum", registry=registry
        )
        self.streams = Gauge(
            "affekt_streams_in_progress", "Open streams", multiprocess_mode="livesum", registry=registry
        )

    def response(self) -> Response:
        """Return the metrics of all worker processes as Prometheus reads them."""
        registry = self._registry
        if os.environ.get(MULTIPROCESS):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        route = path if path in ROUTES else "other"
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


def forget_worker(process: int, folder: str) -> None:
    """Leave out the gauges of a worker process that has ended."""
    mark_process_dead(process, folder)  # type: ignore[no-untyped-call]


class CountRequests:
    """ASGI middleware that counts the answers of HTTP."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.count(scope["path"], message["status"], time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, send_and_count)
