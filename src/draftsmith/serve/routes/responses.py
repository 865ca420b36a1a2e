"""`/v1/responses`."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from draftsmith.serve.answers.about import About
from draftsmith.serve.answers.responses import ResponseShape
from draftsmith.serve.generating import generate
from draftsmith.serve.routes.asked import asked_of
from draftsmith.serve.routes.at_hand import AtHand
from draftsmith.serve.schemas.answers import ResponseEvent, ResponseObject
from draftsmith.serve.schemas.documented import generation
from draftsmith.serve.schemas.responses import ResponseRequest
from draftsmith.serve.translation import response_work

__all__ = ["router"]

router = APIRouter()


@router.post("/v1/responses", responses=generation(ResponseObject, ResponseEvent))
async def responses(body: ResponseRequest, request: Request, service: AtHand) -> Response:
    """Answer a text or a conversation, without keeping it."""
    service.check_model(body.model)
    work = await asyncio.to_thread(response_work, service.engine, body, service.settings.limits)
    speculation = body.speculation
    about = About(
        prefix="resp",
        separator="_",
        model=service.model,
        fingerprint=service.fingerprint,
        texts=service.texts,
        has_logprobs=bool(body.include),
        has_origins=speculation is not None and speculation.origins,
    )
    shape = ResponseShape(about, _told_again(body))
    return await generate(service, request, work, shape, asked_of(service, body))


def _told_again(body: ResponseRequest) -> dict[str, Any]:
    """What a response repeats of its request, and what is the same for all."""
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "text": {"format": _format(body)},
        "tools": [],
        "tool_choice": body.tool_choice or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "background": False,
        "truncation": "disabled",
        "metadata": body.metadata or {},
        "user": body.user,
    }


def _format(body: ResponseRequest) -> dict[str, Any]:
    asked = None if body.text is None else body.text.format
    return (
        {"type": "text"} if asked is None else asked.model_dump(by_alias=True, exclude_unset=True)
    )
