"""What every route has at hand."""

from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from draftsmith.serve.service import Service

__all__ = ["AtHand"]


def _service(request: Request) -> Service:
    return request.app.state.service


AtHand: TypeAlias = Annotated[Service, Depends(_service)]
"""The service of the app that a request came to."""
