"""`/tokenize` and `/detokenize`, with vLLM's fields."""

import asyncio
from typing import Any

from fastapi import APIRouter

from draftsmith.models.tokenizer import Tokenizer
from draftsmith.serve.errors import refused
from draftsmith.serve.routes.at_hand import AtHand
from draftsmith.serve.schemas.answers import Detokenized, Tokenized
from draftsmith.serve.schemas.tokens import DetokenizeRequest, TokenizeRequest
from draftsmith.serve.service import Service
from draftsmith.serve.translation import model_messages, tokenizer_of

__all__ = ["router"]

router = APIRouter()


@router.post("/tokenize", response_model=Tokenized)
async def tokenize(body: TokenizeRequest, service: AtHand) -> dict[str, Any]:
    """The ids of a text, or of a conversation as its template writes it."""
    service.check_model(body.model)
    ids = await asyncio.to_thread(_encoded, tokenizer_of(service.engine), body)
    names = service.texts.names
    return {
        "count": len(ids),
        "max_model_len": service.engine.target.traits.context_length,
        "tokens": ids,
        "token_strs": [names.get(one, "") for one in ids] if body.return_token_strs else None,
    }


@router.post("/detokenize", response_model=Detokenized)
async def detokenize(body: DetokenizeRequest, service: AtHand) -> dict[str, Any]:
    """The text of ids; special tokens have none."""
    service.check_model(body.model)
    _check_ids(service, body.tokens)
    tokenizer = tokenizer_of(service.engine)
    return {"prompt": await asyncio.to_thread(tokenizer.decode, body.tokens)}


def _encoded(tokenizer: Tokenizer, body: TokenizeRequest) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise refused("prompt", "or messages must be given, and not both")
    if body.messages is not None:
        if body.add_special_tokens is not None:
            raise refused("add_special_tokens", "has no meaning with messages: leave it out")
        return tokenizer.encode_chat(model_messages(body.messages))
    assert body.prompt is not None
    is_plain = body.add_special_tokens is False
    return (tokenizer.encode_plain if is_plain else tokenizer.encode)(body.prompt)


def _check_ids(service: Service, ids: list[int]) -> None:
    most = service.engine.target.traits.vocab_size
    odd = next((one for one in ids if one >= most), None)
    if odd is not None:
        raise refused("tokens", f"must be ids from 0 to {most - 1}, got {odd}")
