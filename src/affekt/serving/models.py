"""`GET /v1/models`, and the files with which a browser recognizes on its own."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.responses import FileResponse

from affekt.serving.browser import SETTINGS, browser_files, browser_settings, read_card
from affekt.serving.refusal import NOTICE, Refusal, json_response
from affekt.serving.schemas import Models, describe_errors
from affekt.serving.service import Service

PATH = "/v1/models"
FILES_PATH = f"{PATH}/default/files"


def make_router(service: Service) -> APIRouter:
    """Return the routes."""
    router, graph = APIRouter(), service.engine.recognizer.graph
    paths, settings = browser_files(graph), browser_settings(graph)
    description = {
        "id": graph.bundle.id,
        "name": graph.bundle.name,
        "emotions": graph.bundle.emotions,
        "profiles": list(service.engine.profiles),
        "card": read_card(graph),
        "files": [f"{FILES_PATH}/{name}" for name in (*paths, SETTINGS)],
    }

    @router.get(PATH, operation_id="models", summary="Describe the model, with its card", response_model=Models)
    async def models() -> Response:
        return json_response({"models": [description], "notice": NOTICE})

    @router.get(
        f"{FILES_PATH}/{{name}}",
        operation_id="model_file",
        summary="Return a file with which a browser recognizes on its own",
        response_class=Response,
        responses={
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            **describe_errors(Refusal("not_found", "there is no model.bin")),
        },
    )
    async def model_file(name: str) -> Response:
        if name == SETTINGS:
            return json_response(settings)
        if name not in paths:
            raise Refusal("not_found", f"there is no {name}: expected {', '.join((*paths, SETTINGS))}")
        return FileResponse(paths[name], media_type="application/octet-stream", headers={"Cache-Control": "no-cache"})

    return router
