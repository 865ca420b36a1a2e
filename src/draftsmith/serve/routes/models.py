"""`/v1/models`: the one model that is served."""

from typing import Any

from fastapi import APIRouter

from draftsmith.serve.routes.at_hand import AtHand
from draftsmith.serve.schemas.answers import Model, ModelList
from draftsmith.serve.service import Service

__all__ = ["router"]

router = APIRouter()


@router.get("/v1/models", response_model=ModelList)
async def list_models(service: AtHand) -> dict[str, Any]:
    """List the models that are served."""
    return {"object": "list", "data": [_model(service)]}


@router.get("/v1/models/{name:path}", response_model=Model)
async def retrieve_model(name: str, service: AtHand) -> dict[str, Any]:
    """Describe a model."""
    service.check_model(name)
    return _model(service)


def _model(service: Service) -> dict[str, Any]:
    traits = service.engine.target.traits
    return {
        "id": service.model,
        "object": "model",
        "created": service.started_at,
        "owned_by": "draftsmith",
        "max_model_len": traits.context_length,
    }
