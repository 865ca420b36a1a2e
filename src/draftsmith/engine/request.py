"""A request: one prompt with its parameters, checked once at the door."""

from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import torch

from draftsmith.core.laws import Law
from draftsmith.core.lenience import ArgmaxLenience, LenientVerifier
from draftsmith.core.params import SamplingParams
from draftsmith.core.verify import Verifier, verifier_named
from draftsmith.engine.sequence import Limits, Sequence
from draftsmith.engine.text import OutputText
from draftsmith.errors import InvalidRequestError
from draftsmith.kernels.cpu.sampling import sampling_law
from draftsmith.models.contract import ModelTraits
from draftsmith.models.tokenizer import Message, Tokenizer

__all__ = ["Prompt", "Request", "is_single", "make_request"]

Prompt: TypeAlias = str | Many[int] | Many[Message]
"""Text, token ids, or a conversation."""


@dataclass(frozen=True)
class Request:
    """A prompt that can be served."""

    prompt: list[int]
    """The decoder's first tokens: the prompt, or an encoder-decoder's start token."""
    source: list[int]
    """The encoder's tokens; empty for a decoder-only model."""
    params: SamplingParams
    law: Law
    draft_law: Law
    verifier: Verifier
    lenience: ArgmaxLenience | None
    limits: Limits

    def sequence(
        self, sample: int, seed: int, device: torch.device, tokenizer: Tokenizer | None
    ) -> Sequence:
        """One sample of this request, ready for its first round."""
        return Sequence(
            prompt=self.prompt,
            source=self.source,
            params=self.params,
            law=self.law,
            draft_law=self.draft_law,
            verifier=self.verifier,
            lenience=self.lenience,
            seed=seed,
            sample_index=sample,
            limits=self.limits,
            output=OutputText(tokenizer, self.params.stop_strings),
            device=device,
        )


def is_single(prompts: Prompt | Many[Prompt]) -> bool:
    """Whether this is one prompt: a text, ids, or one conversation."""
    return isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int | Mapping))


def make_request(
    prompt: Prompt,
    params: SamplingParams,
    traits: ModelTraits,
    tokenizer: Tokenizer | None,
    law: Law | None = None,
) -> Request:
    """Check a prompt and its parameters against a model.

    Raises:
        InvalidRequestError: If the prompt is empty, too long, or of unknown ids, or a parameter
            cannot be honoured with this model.
    """
    ids = _encode(prompt, tokenizer)
    if not ids:
        raise InvalidRequestError("the prompt is empty: give at least one token")
    _check_ids(ids, "the prompt", traits)
    _check_params(params, traits, tokenizer)
    source: list[int] = []
    if traits.is_encoder_decoder:
        assert traits.decoder_start_token_id is not None
        ids, source = [traits.decoder_start_token_id], ids
    # A source may fill the encoder; a prompt must leave room for a token.
    longest = traits.source_length if source else traits.context_length
    if longest is not None and len(source or ids) + (not source) > longest:
        raise InvalidRequestError(
            f"the prompt has {len(source or ids)} tokens, but {traits.name} has a context "
            f"of {longest}: shorten it"
        )
    eos = () if params.ignore_eos else traits.eos_token_ids
    limits = Limits(
        params.max_tokens, traits.context_length, frozenset(eos) | set(params.stop_token_ids)
    )
    return Request(
        prompt=ids,
        source=source,
        params=params,
        law=law or sampling_law(params, traits.eos_token_ids),
        draft_law=law or sampling_law(params.for_draft(), traits.eos_token_ids),
        verifier=_verifier(params),
        lenience=_lenience(params, traits.eos_token_ids),
        limits=limits,
    )


def _verifier(params: SamplingParams) -> Verifier:
    # Checks at temperature 0 are lenient in another way.
    is_lenient = params.lossy_lenience < 1 and not params.is_greedy
    if is_lenient:
        return LenientVerifier(params.lossy_lenience)
    return verifier_named(params.verifier_name)


def _lenience(params: SamplingParams, eos: tuple[int, ...]) -> ArgmaxLenience | None:
    if params.lossy_lenience == 1 or not params.is_greedy:
        return None
    # Leniency looks at the model's own law, before the argmax and the cut-offs leave one token.
    law = replace(params, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    return ArgmaxLenience(params.lossy_lenience, sampling_law(law, eos))


def _encode(prompt: Prompt, tokenizer: Tokenizer | None) -> list[int]:
    is_ids = not isinstance(prompt, str) and all(isinstance(token, int) for token in prompt)
    if is_ids:
        return [int(cast(int, token)) for token in prompt]
    if tokenizer is None:
        raise InvalidRequestError("a text prompt needs a tokenizer: give token ids, or a tokenizer")
    if isinstance(prompt, str):
        return tokenizer.encode(prompt) if prompt else []
    return tokenizer.encode_chat(cast(Many[Message], prompt))


def _check_ids(ids: Many[int], what: str, traits: ModelTraits) -> None:
    bad = next((token for token in ids if not 0 <= token < traits.vocab_size), None)
    if bad is not None:
        raise InvalidRequestError(
            f"{what} has id {bad}, but {traits.name} has ids 0 … {traits.vocab_size - 1}"
        )


def _check_params(params: SamplingParams, traits: ModelTraits, tokenizer: Tokenizer | None) -> None:
    for name in ("banned_token_ids", "stop_token_ids", "allowed_token_ids"):
        _check_ids(getattr(params, name) or (), name, traits)
    _check_ids(tuple(params.logit_bias), "logit_bias", traits)
    if params.stop_strings and tokenizer is None:
        raise InvalidRequestError("stop strings need a tokenizer: use stop_token_ids")
    if params.logprobs is not None and params.logprobs > traits.vocab_size:
        raise InvalidRequestError(f"logprobs must be at most {traits.vocab_size}")
