"""`/metrics`."""

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from draftsmith.serve.routes.at_hand import AtHand

__all__ = ["router"]

router = APIRouter()


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"application/openmetrics-text": {}}}},
)
async def metrics(request: Request, service: AtHand) -> Response:
    """What Prometheus scrapes."""
    text, media_type = service.metrics.exposition(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})
