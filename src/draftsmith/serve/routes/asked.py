"""How a request is answered, by what every kind of generation knows."""

from draftsmith.serve.generating import Asked
from draftsmith.serve.schemas.common import SamplingBody
from draftsmith.serve.service import Service

__all__ = ["asked_of"]


def asked_of(service: Service, body: SamplingBody, *, has_prediction: bool = False) -> Asked:
    """Streamed or whole, what its usage tells, and its time."""
    speculation = body.speculation
    return Asked(
        is_streamed=body.is_streamed,
        has_statistics=speculation is not None and speculation.statistics,
        has_prediction=has_prediction,
        timeout_s=service.timeout_s(body.timeout),
    )
