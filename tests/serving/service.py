"""Services for the tests: in this process, and with a real port."""

import contextlib
import socket
import threading
import time

from starlette.testclient import TestClient

from affekt.serving.app import create_app
from affekt.serving.run import make_server
from affekt.serving.settings import Limits, ServiceSettings

RECOGNIZE = "/v1/recognize"


def make_client(bundle, limits=None, **settings):
    """Return a client of a service in this process."""
    configuration = ServiceSettings(model=str(bundle), limits=Limits(**limits or {}), **settings)
    return TestClient(create_app(configuration), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def form(*contents, name="a.wav"):
    """Return files as the client sends them."""
    return [("file", (name, content)) for content in contents]


@contextlib.contextmanager
def running(bundle, limits=None, **settings):
    """Yield the port, the application and the server of a service that listens."""
    configuration = ServiceSettings(model=str(bundle), limits=Limits(**limits or {}), **settings)
    app = create_app(configuration)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(app, configuration)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield listener.getsockname()[1], app, server
        finally:
            server.should_exit = True
            thread.join()


def exchange(port, data, timeout=10.0, *, leave=False):
    """Send bytes to a service, and return its answer until it closes the connection; `leave` closes this side first."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
            if leave:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                answer += part
        return answer


def hold(app):
    """Let the engine of a service wait; return what lets it go on, and what is set as soon as it works."""
    engine, go, works = app.state.service.engine, threading.Event(), threading.Event()
    recognize = engine._recognize_all

    def wait(*arguments):
        works.set()
        go.wait(20)
        return recognize(*arguments)

    engine._recognize_all = wait
    return go, works
