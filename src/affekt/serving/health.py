"""`/healthz`, `/readyz` and `/metrics`, for those who operate the service."""

from __future__ import annotations

from fastapi import APIRouter, Response

from affekt.serving.refusal import Refusal, json_response
from affekt.serving.schemas import State, describe_errors
from affekt.serving.service import Service


def make_router(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/healthz", operation_id="healthz", summary="Whether the process works", response_model=State)
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @router.get(
        "/readyz",
        operation_id="readyz",
        summary="Whether new requests are welcome",
        response_model=State,
        responses=describe_errors(Refusal("stopping", "the service is about to stop")),
    )
    async def readyz() -> Response:
        if service.admission.stopping:
            raise Refusal("stopping", "the service is about to stop")
        return json_response({"status": "ok"})

    @router.get(
        "/metrics",
        operation_id="metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return service.metrics.response()

    return router
