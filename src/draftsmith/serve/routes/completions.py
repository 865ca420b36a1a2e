"""`/v1/completions`."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from draftsmith.serve.answers.about import About
from draftsmith.serve.answers.completions import CompletionShape
from draftsmith.serve.generating import generate
from draftsmith.serve.routes.asked import asked_of
from draftsmith.serve.routes.at_hand import AtHand
from draftsmith.serve.schemas.answers import TextCompletion
from draftsmith.serve.schemas.completions import CompletionRequest
from draftsmith.serve.schemas.documented import generation
from draftsmith.serve.translation import completion_work

__all__ = ["router"]

router = APIRouter()


@router.post("/v1/completions", responses=generation(TextCompletion, TextCompletion))
async def completions(body: CompletionRequest, request: Request, service: AtHand) -> Response:
    """Go on from a text, or from several."""
    service.check_model(body.model)
    work = await asyncio.to_thread(completion_work, service.engine, body, service.settings.limits)
    speculation = body.speculation
    about = About(
        prefix="cmpl",
        model=service.model,
        fingerprint=service.fingerprint,
        texts=service.texts,
        has_logprobs=body.logprobs is not None,
        has_origins=speculation is not None and speculation.origins,
        has_usage=body.is_usage_streamed,
    )
    tails = [sample.output.prompt_tail for sample in work.samples]
    shape = CompletionShape(about, tails, work.echoes)
    asked = asked_of(service, body, has_prediction=body.prediction is not None)
    return await generate(service, request, work, shape, asked)
