"""`/v1/chat/completions`."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from draftsmith.serve.answers.about import About
from draftsmith.serve.answers.chat import ChatShape
from draftsmith.serve.generating import generate
from draftsmith.serve.routes.asked import asked_of
from draftsmith.serve.routes.at_hand import AtHand
from draftsmith.serve.schemas.answers import ChatChunk, ChatCompletion
from draftsmith.serve.schemas.chat import ChatRequest
from draftsmith.serve.schemas.documented import generation
from draftsmith.serve.translation import chat_work

__all__ = ["router"]

router = APIRouter()


@router.post("/v1/chat/completions", responses=generation(ChatCompletion, ChatChunk))
async def chat_completions(body: ChatRequest, request: Request, service: AtHand) -> Response:
    """Answer a conversation."""
    service.check_model(body.model)
    work = await asyncio.to_thread(chat_work, service.engine, body, service.settings.limits)
    speculation = body.speculation
    about = About(
        prefix="chatcmpl",
        model=service.model,
        fingerprint=service.fingerprint,
        texts=service.texts,
        has_logprobs=bool(body.logprobs),
        has_origins=speculation is not None and speculation.origins,
        has_usage=body.is_usage_streamed,
    )
    has_prediction = body.prediction is not None
    asked = asked_of(service, body, has_prediction=has_prediction)
    return await generate(service, request, work, ChatShape(about, work.calling), asked)
