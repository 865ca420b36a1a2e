"""A request: one prompt with its parameters, checked once at the door."""

from collections.abc import Sequence as Many
from dataclasses import dataclass, fields, replace
from typing import cast

import torch

from draftsmith.constraints.grammars import Grammar, grammars_of
from draftsmith.core.constraint import ConstrainedLaw
from draftsmith.core.demands import Demands
from draftsmith.core.laws import Law
from draftsmith.core.lenience import ArgmaxLenience, LenientVerifier
from draftsmith.core.params import DEFAULT_MAX_TOKENS, SamplingParams
from draftsmith.core.structured import StructuredOutputs
from draftsmith.core.values import is_whole
from draftsmith.core.verify import Verifier, verifier_named
from draftsmith.engine.requests.prompts import Prompt, plain_prompts
from draftsmith.engine.requests.sequence import Limits, Sequence
from draftsmith.engine.requests.text import OutputText
from draftsmith.errors import InvalidRequestError
from draftsmith.kernels.cpu.sampling import sampling_law
from draftsmith.models.contract import ModelTraits
from draftsmith.models.tokenizer import Message, Tokenizer

__all__ = ["Prompt", "Request", "check_demands", "make_request"]


@dataclass(frozen=True)
class Request:
    """A prompt that can be served."""

    prompt: list[int]
    """The decoder's first tokens: the prompt, or an encoder-decoder's start token."""
    source: list[int]
    """The encoder's tokens; empty for a decoder-only model."""
    params: SamplingParams
    """As asked, with what the model and the prompt settle: `max_tokens` is a number."""
    demands: Demands
    """The model's, with the request's own in their place."""
    law: Law
    draft_law: Law
    verifier: Verifier
    lenience: ArgmaxLenience | None
    limits: Limits
    grammar: Grammar | None = None
    """What the text must follow."""

    def sequence(
        self, sample: int, seed: int, device: torch.device, tokenizer: Tokenizer | None
    ) -> Sequence:
        """One sample of this request, ready for its first round."""
        walk = None if self.grammar is None else self.grammar.begin()

        def held(law: Law) -> Law:
            return law if walk is None else ConstrainedLaw(law, walk)

        lenience = self.lenience
        return Sequence(
            prompt=self.prompt,
            source=self.source,
            params=self.params,
            law=held(self.law),
            draft_law=held(self.draft_law),
            verifier=self.verifier,
            lenience=lenience and replace(lenience, law=held(lenience.law)),
            constraint=walk,
            seed=seed,
            sample_index=sample,
            limits=self.limits,
            output=OutputText(tokenizer, self.demands.stop, self.prompt),
            device=device,
        )


def make_request(
    prompt: Prompt,
    params: SamplingParams,
    traits: ModelTraits,
    tokenizer: Tokenizer | None,
    law: Law | None = None,
    most_tokens: int | None = None,
) -> Request:
    """Check a prompt and its parameters against a model, and the memory there is.

    Raises:
        InvalidRequestError: If the prompt is empty, too long, or of unknown ids, or a parameter
            or a demand of the model's files cannot be honoured.
    """
    check_demands(traits)
    ids = _encode(prompt, tokenizer)
    if not ids:
        raise InvalidRequestError("the prompt is empty: give at least one token")
    _check_ids(ids, "the prompt", traits)
    source: list[int] = []
    if traits.is_encoder_decoder:
        assert traits.decoder_start_token_id is not None
        ids, source = [traits.decoder_start_token_id], ids
    asked = params.max_tokens
    params = _with_length(params, traits, ids, source)
    params = _within_memory(params, asked, len(ids), most_tokens)
    params = _with_ids_of_words(params, traits.demands, tokenizer)
    _check_params(params, traits)
    demands, eos = params.over(traits.demands), traits.eos_token_ids
    _check_forced(params, demands, traits)
    shown = tuple(source or ids)
    endings = frozenset(() if params.ignore_eos else eos) | set(params.stop_token_ids)
    return Request(
        prompt=ids,
        source=source,
        params=params,
        demands=demands,
        law=law or sampling_law(params, eos, traits.demands, shown),
        draft_law=law or sampling_law(params.for_draft(), eos, traits.demands, shown),
        verifier=_verifier(params),
        lenience=_lenience(params, traits, shown),
        limits=Limits(params.longest_output, traits.context_length, endings),
        grammar=_grammar(params, demands, traits, tokenizer),
    )


def _grammar(
    params: SamplingParams, demands: Demands, traits: ModelTraits, tokenizer: Tokenizer | None
) -> Grammar | None:
    """The compiled form of the text, if it must have one."""
    if params.structured_outputs is None:
        return None
    form = StructuredOutputs.from_value(params.structured_outputs)
    name = f"structured_outputs.{form.kind}"
    if tokenizer is None:
        raise InvalidRequestError(f"{name} needs a tokenizer: load the model with its own")
    _check_ends_of_form(name, params, demands, traits)
    ends = {*traits.eos_token_ids}
    if params.stop_token_ids:
        # What has no text cannot be part of the form: it can only end it.
        ends.update({*tokenizer.special_tokens().values()} & {*params.stop_token_ids})
    return grammars_of(tokenizer, traits.vocab_size, frozenset(ends)).compiled(form)


def _check_ends_of_form(
    name: str, params: SamplingParams, demands: Demands, traits: ModelTraits
) -> None:
    """Refuse what would end a text elsewhere than where its form ends."""
    if params.ignore_eos:
        raise InvalidRequestError(
            f"ignore_eos cannot be honoured with {name}, whose text ends by an end token: leave "
            "one of them out"
        )
    for field in ("forced_bos_token_id", "forced_eos_token_id"):
        if getattr(demands, field) not in (None, ()):
            raise InvalidRequestError(
                f"{field} cannot be honoured with {name}, which alone says what comes: use "
                f"{field}=-1"
            )
    if not traits.eos_token_ids:
        raise InvalidRequestError(
            f"{name} needs an end-of-sequence id, and {traits.name} has none: name it in its files"
        )


def check_demands(traits: ModelTraits) -> None:
    """Refuse a model whose files ask what cannot be honoured.

    Raises:
        InvalidRequestError: Naming what they ask.
    """
    if traits.demands.refused:
        raise InvalidRequestError(f"{traits.name}: {traits.demands.refused}")


# --- what the model and the prompt settle -----------------------------------------------------


def _with_length(
    params: SamplingParams, traits: ModelTraits, ids: list[int], source: list[int]
) -> SamplingParams:
    """The longest output as a number: as asked, if the context has room for it."""
    # A source may fill the encoder; a prompt must leave room for a token.
    longest = traits.source_length if source else traits.context_length
    if longest is not None and len(source or ids) + (not source) > longest:
        raise InvalidRequestError(
            f"the prompt has {len(source or ids)} tokens, but {traits.name} has a context "
            f"of {longest}: shorten it"
        )
    if traits.context_length is None:
        if params.max_tokens == params.longest_output:
            return params
        return replace(params, max_tokens=params.longest_output)
    room = traits.context_length - len(ids)
    if params.max_tokens is not None and params.max_tokens > room:
        before = "its decoder's first token" if source else f"the prompt's {len(ids)} tokens"
        raise InvalidRequestError(
            f"max_tokens must be at most {room}, which {traits.name}'s context of "
            f"{traits.context_length} leaves after {before}, got {params.max_tokens}"
        )
    longest = min(DEFAULT_MAX_TOKENS, room) if params.max_tokens is None else params.max_tokens
    return replace(params, max_tokens=longest)


def _within_memory(
    params: SamplingParams, asked: int | None, num_prompt: int, most_tokens: int | None
) -> SamplingParams:
    """The longest output that there is memory for, if no other was asked for."""
    if most_tokens is None:
        return params
    wanted = num_prompt + params.longest_output
    if wanted <= most_tokens:
        return params
    if asked is None and num_prompt < most_tokens:
        return replace(params, max_tokens=most_tokens - num_prompt)
    raise InvalidRequestError(
        f"the prompt's {num_prompt} tokens and max_tokens={params.longest_output} take {wanted} "
        f"tokens of cache, and there is room for {most_tokens}: shorten one of them, or raise "
        "cache_tokens where it is set"
    )


def _with_ids_of_words(
    params: SamplingParams, demands: Demands, tokenizer: Tokenizer | None
) -> SamplingParams:
    """Bad words as ids, and stop strings that are one special token as stop ids."""
    words = params.bad_words or ()
    needs = [word for word in words if isinstance(word, str)]
    stop = params.over(demands).stop
    if not needs and not stop:
        return params
    if tokenizer is None:
        name = "bad_words" if needs else "stop strings"
        other = "token ids in bad_words" if needs else "stop_token_ids"
        raise InvalidRequestError(f"{name} in letters need a tokenizer: use {other}")
    if needs:
        params = replace(params, bad_words=[one for w in words for one in _spelled(w, tokenizer)])
    ids = [*params.stop_token_ids, *_special_ids(stop, tokenizer)]
    return replace(params, stop_token_ids=tuple(dict.fromkeys(ids)))


def _spelled(word: str | Many[int], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """A word as a text begins with it, and as it stands after a space."""
    if not isinstance(word, str):
        return [tuple(word)]
    ways = [tokenizer.encode_plain(text) for text in (word, f" {word.lstrip()}")]
    return list(dict.fromkeys(tuple(ids) for ids in ways if ids))


def _special_ids(stop: Many[str], tokenizer: Tokenizer) -> list[int]:
    """The ids of stop strings that are one special token, which is no part of any text.

    Raises:
        InvalidRequestError: If a stop string has a special token in it: it could never be found.
    """
    if not stop:
        return []
    specials, found = tokenizer.special_tokens(), list[int]()
    for text in stop:
        if text in specials:
            found.append(specials[text])
            continue
        inside = next((name for name in specials if name and name in text), None)
        if inside is not None:
            raise InvalidRequestError(
                f"stop must be without special tokens, which are no text, got {text!r} with "
                f"{inside!r}: use stop_token_ids=[{specials[inside]}], or {inside!r} alone"
            )
    return found


def _verifier(params: SamplingParams) -> Verifier:
    # Checks at temperature 0 are lenient in another way.
    is_lenient = params.lossy_lenience < 1 and not params.is_greedy
    if is_lenient:
        return LenientVerifier(params.lossy_lenience)
    return verifier_named(params.verifier_name)


def _lenience(
    params: SamplingParams, traits: ModelTraits, source: tuple[int, ...]
) -> ArgmaxLenience | None:
    if params.lossy_lenience == 1 or not params.is_greedy:
        return None
    # Leniency looks at the model's own law, before the argmax and the cut-offs leave one token.
    own = replace(params, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    law = sampling_law(own, traits.eos_token_ids, traits.demands, source)
    return ArgmaxLenience(params.lossy_lenience, law)


def _encode(prompt: Prompt, tokenizer: Tokenizer | None) -> list[int]:
    if isinstance(prompt, list | tuple) and not prompt:
        return []
    plain, is_single = plain_prompts(prompt)
    if not is_single:
        raise InvalidRequestError(f"one prompt is wanted, got {len(plain)}")
    [one] = plain
    if not isinstance(one, str) and all(is_whole(token) for token in one):
        return cast(list[int], one)
    if tokenizer is None:
        raise InvalidRequestError("a text prompt needs a tokenizer: give token ids, or a tokenizer")
    if isinstance(one, str):
        return tokenizer.encode(one) if one else []
    return tokenizer.encode_chat(cast(Many[Message], one))


def _check_ids(ids: Many[int], what: str, traits: ModelTraits) -> None:
    bad = next((token for token in ids if not 0 <= token < traits.vocab_size), None)
    if bad is not None:
        raise InvalidRequestError(
            f"{what} has id {bad}, but {traits.name} has ids 0 … {traits.vocab_size - 1}"
        )


def _check_params(params: SamplingParams, traits: ModelTraits) -> None:
    for item in fields(params):
        if item.name.endswith("token_ids"):
            _check_ids(getattr(params, item.name) or (), item.name, traits)
    _check_ids(tuple(params.logit_bias), "logit_bias", traits)
    for name in ("sequence_bias", "bad_words"):
        for word in getattr(params, name) or ():
            _check_ids(word, name, traits)
    if params.logprobs is not None and params.logprobs > traits.vocab_size:
        raise InvalidRequestError(f"logprobs must be at most {traits.vocab_size}")
    forced = params.forced_bos_token_id
    if forced not in (None, -1) and not traits.is_encoder_decoder:
        raise InvalidRequestError(
            f"forced_bos_token_id is for encoder-decoder models, and {traits.name} is none: put "
            f"token {forced} at the end of the prompt"
        )


def _check_forced(params: SamplingParams, demands: Demands, traits: ModelTraits) -> None:
    """Refuse a forced token that is banned as well: no law could have both."""
    first, last = demands.forced_bos_token_id, demands.forced_eos_token_id
    banned = {*params.banned_token_ids, *demands.suppress_token_ids}
    allowed = params.allowed_token_ids
    begin = () if first is None else (first,)
    for name, ids in (("forced_bos_token_id", begin), ("forced_eos_token_id", last)):
        _check_ids(ids, name, traits)
        left = [t for t in ids if t not in banned and (allowed is None or t in allowed)]
        if ids and not left:
            raise InvalidRequestError(
                f"{name} must be allowed, got {ids[0]}, which is banned or suppressed as well: "
                f"lift one, or use {name}=-1"
            )
