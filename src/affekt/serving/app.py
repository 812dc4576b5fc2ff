"""The application: the routes, the page, the middleware, and errors as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from affekt import __version__
from affekt.serving import health, models, recognize, stream
from affekt.serving.browser import PAGE
from affekt.serving.guard import Guard, read_keys
from affekt.serving.metrics import CountRequests
from affekt.serving.refusal import NOTICE, Refusal
from affekt.serving.schemas import ROW
from affekt.serving.service import Service
from affekt.serving.settings import ServiceSettings

CODES = {404: "not_found", 405: "method_not_allowed"}
DESCRIPTION = f"""
The emotion in speech, as rows: the same as those of `affekt recognize --json`.

`WS /v1/stream` recognizes live speech: binary messages with samples in, JSON out. Its parameters are `rate`, `channels`,
`format` (s16le or opus), `update`, `threshold`, `emotions`, `vad` and `profile`; the text message `end` ends it.

{NOTICE}
"""


def create_app(settings: ServiceSettings) -> FastAPI:
    """Return the application; `app.state.service` is its `Service`.

    Raises:
        BadBundle: The bundle cannot be opened.
        BadConfig: A setting is invalid, or a profile or the keys cannot be read.
    """
    # The middleware is made later, when an error would no longer end the program.
    keys = read_keys(settings.key_file) if settings.key_file else []
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.engine.close()

    app = FastAPI(
        title="affekt",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    for module in (recognize, models, health, stream):
        app.include_router(module.make_router(service))
    if PAGE.is_dir():
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    _add_errors(app, service)
    if settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Guard, settings=settings, keys=keys)
    app.add_middleware(CountRequests, metrics=service.metrics)
    return app


def _describe(app: FastAPI) -> dict[str, Any]:
    """Return the description in OpenAPI, with the example of a row, whose fields that are null FastAPI would leave out."""
    description = FastAPI.openapi(app)
    description["components"]["schemas"]["Results"]["examples"] = [{"results": [ROW], "notice": NOTICE}]
    return description


def _add_errors(app: FastAPI, service: Service) -> None:
    """Let the application answer each error as JSON."""

    def refuse(refusal: Refusal) -> Response:
        service.metrics.refusals.labels(refusal.code).inc()
        return refusal.response()

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return refuse(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return refuse(stream.describe_invalid(error.errors()))

    @app.exception_handler(HTTPException)
    async def unavailable(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "internal")
        response = refuse(Refusal(code, f"{request.method} {request.url.path}: {error.detail}"))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return refuse(Refusal("internal", "the service failed; its log has the reason"))
