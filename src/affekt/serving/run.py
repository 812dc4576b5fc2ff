"""Run the service: bind the port, start the worker processes, and stop without losing what has been admitted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from affekt.errors import BadConfig
from affekt.serving.admission import Admission
from affekt.serving.app import create_app
from affekt.serving.guard import MAX_HEADERS
from affekt.serving.metrics import MULTIPROCESS, forget_worker
from affekt.serving.settings import ServiceSettings

MAX_MESSAGE = 256 * 1024
"""Bytes of a message of a WebSocket."""
MAX_CONNECTIONS = 1000
"""Connections of one worker process. Others are closed at once."""
KEEP_ALIVE = 5
"""Seconds for which a connection without requests is kept."""
GRACE = 15.0
"""Seconds that a stopping worker waits for its streams, and beyond the time limit of requests for these."""
POLL = 0.2
"""Seconds after which the first process looks after its workers."""
CANNOT_START = 2
"""The exit status of a worker that cannot start because of its settings: the next one could not either."""


def ignore(_: str) -> None:
    """Do nothing."""


def serve(settings: ServiceSettings, on_start: Callable[[str], None] = ignore) -> None:
    """Serve until the process gets SIGINT or SIGTERM.

    Args:
        settings: The settings.
        on_start: Called with the URL of the service, when it is about to answer.

    Raises:
        BadBundle: The bundle cannot be opened.
        BadConfig: A setting is invalid, the port is not free, a profile or the keys cannot be read, or a worker fails.
    """
    with bind(settings) as listener:
        if settings.workers == 1:
            run_worker(settings, listener, on_start)
            return
        if not hasattr(os, "fork"):
            raise BadConfig("this system cannot share a port among processes: use --workers 1")
        with tempfile.TemporaryDirectory(prefix="affekt-metrics-") as folder:
            on_start(url_of(listener))
            _Supervisor(settings, listener, folder).run()


def bind(settings: ServiceSettings) -> socket.socket:
    """Return a socket at the address and port of the settings. Raises `BadConfig` if that is not possible."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = f"{settings.host}, port {settings.port}: {error.strerror or error}"
        raise BadConfig(f"cannot listen on {reason}; choose another --port or --host") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of a service that listens on a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_worker(settings: ServiceSettings, listener: socket.socket, on_start: Callable[[str], None] = ignore) -> None:
    """Run one worker process; `on_start` and errors as for `serve`."""
    app = create_app(settings)
    on_start(url_of(listener))
    make_server(app, settings).run(sockets=[listener])


def make_server(app: Any, settings: ServiceSettings) -> uvicorn.Server:
    """Return the server of one worker process."""
    return _Server(_make_config(app, settings), app.state.service.admission)


class _Supervisor:
    """The first process of several: it starts the workers, replaces one that dies, and passes signals on."""

    def __init__(self, settings: ServiceSettings, listener: socket.socket, folder: str) -> None:
        self._settings, self._listener, self._folder = settings, listener, folder
        self._stopping = False

    def run(self) -> None:
        """Run until a signal arrives and all workers have ended."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        workers = [self._start() for _ in range(self._settings.workers)]
        try:
            while not self._stopping:
                time.sleep(POLL)
                for index, worker in enumerate(workers):
                    if worker.poll() == CANNOT_START:
                        raise BadConfig("the worker processes cannot start, for the reason above")
                    if worker.returncode is not None:
                        forget_worker(worker.pid, self._folder)
                        workers[index] = self._start()
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        worker = subprocess.Popen(
            [sys.executable, "-m", "affekt.serving.worker", str(descriptor)],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
            env={**os.environ, MULTIPROCESS: self._folder},
            start_new_session=True,  # Ctrl-C reaches this process only, which stops the workers
        )
        assert worker.stdin
        with worker.stdin:
            worker.stdin.write(self._settings.to_json().encode())
        return worker

    def _stop(self, *_: object) -> None:
        self._stopping = True


def _make_config(app: Any, settings: ServiceSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_make_protocol(settings.limits.idle_timeout),
        ws="websockets-sansio",
        workers=settings.workers,
        log_level="info" if settings.access_log else "warning",
        access_log=settings.access_log,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(settings.limits.timeout + GRACE),
        h11_max_incomplete_event_size=MAX_HEADERS,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
    )


class _Server(uvicorn.Server):
    """A server that lets its streams end by themselves before it closes the connections."""

    def __init__(self, config: uvicorn.Config, admission: Admission) -> None:
        super().__init__(config)
        self._admission = admission

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._admission.stopping = True
        end = time.monotonic() + GRACE
        while self._admission.streams and time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def _make_protocol(idle_timeout: float) -> type[H11Protocol]:
    """Return the protocol of HTTP, which also closes connections that do not complete the headers of a request in time."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > MAX_CONNECTIONS:
                transport.abort()
            self._check(None)

        def _check(self, cycle: Any) -> None:
            """Close the connection if no request has begun since the last check; then check again later."""
            if self not in self.connections:  # closed, or now a WebSocket
                return
            is_idle = self.cycle is None or self.cycle.response_complete
            if is_idle and self.cycle is cycle and self._checked:
                self.transport.close()
                return
            self._checked = True
            self.loop.call_later(idle_timeout, self._check, self.cycle)

        _checked = False

    return Protocol
