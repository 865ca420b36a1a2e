"""`/health`, `/ready` and `/version`: whether the server lives, takes requests, and what it is."""

from typing import Any

from fastapi import APIRouter

from draftsmith import __version__
from draftsmith.serve.errors import ApiError
from draftsmith.serve.routes.at_hand import AtHand
from draftsmith.serve.schemas.answers import Health, Version

__all__ = ["router"]

router = APIRouter()


@router.get("/health", response_model=Health)
async def health(service: AtHand) -> dict[str, Any]:
    """Whether the engine's thread lives."""
    if not service.worker.is_alive:
        raise ApiError(503, "the engine's thread has ended: restart the server", code="dead")
    return {"status": "ok"}


@router.get("/ready", response_model=Health)
async def ready(service: AtHand) -> dict[str, Any]:
    """Whether requests are taken."""
    if service.worker.is_refusing or not service.worker.is_alive:
        raise ApiError(503, "the server is shutting down: ask another", code="stopping")
    return {"status": "ready"}


@router.get("/version", response_model=Version)
async def version() -> dict[str, Any]:
    """The version of draftsmith."""
    return {"version": __version__}
