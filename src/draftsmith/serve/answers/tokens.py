"""Single tokens as the API shows them: their text, their bytes, where they came from."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from draftsmith.engine.requests.result import Completion, FinishReason, TokenTrace
from draftsmith.models.gguf.alphabet import BYTES
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["TokenTexts", "origin_of", "without_end"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_SPACE = "\u2581"
"""How SentencePiece spells a space."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_LEAST = -9999.0
"""OpenAI's stand-in for a log-probability that JSON cannot hold."""


class TokenTexts:
    """The text and the bytes of each id, made when they are first asked for.

    Args:
        tokenizer: None knows no texts.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self.tokenizer = tokenizer
        self.text: Callable[[int], str] = functools.cache(self._text)
        self.bytes: Callable[[int], list[int]] = functools.cache(self._bytes)

    @functools.cached_property
    def names(self) -> dict[int, str]:
        """The tokenizer's own name of each id."""
        return {} if self.tokenizer is None else self.tokenizer.token_strings()

    def entry(self, token: int, logprob: float) -> dict[str, Any]:
        """A token with its log-probability, as chat completions have it."""
        value = max(logprob, _LEAST)
        return {"token": self.text(token), "logprob": value, "bytes": self.bytes(token)}

    def chat_logprobs(self, trace: TokenTrace) -> dict[str, Any]:
        """The same with the likeliest beside it."""
        top = [self.entry(one.token_id, one.logprob) for one in trace.top_logprobs]
        return self.entry(trace.token_id, trace.logprob or 0.0) | {"top_logprobs": top}

    def _text(self, token: int) -> str:
        if self.tokenizer is None:
            return ""
        text, name = self.tokenizer.decode([token]), self.names.get(token, "")
        if name.startswith(_SPACE) and not text.startswith(" "):
            # As the first of a text it would lose its space.
            text = " " + text
        return text or name

    def _bytes(self, token: int) -> list[int]:
        text, name = self.text(token), self.names.get(token, "")
        if _REPLACEMENT not in text:
            return list(text.encode())
        spelled = _BYTE.fullmatch(name)
        if spelled is not None:
            return [int(spelled[1], 16)]
        if name and all(letter in BYTES for letter in name):
            return [BYTES[letter] for letter in name]
        return list(text.encode())


def origin_of(trace: TokenTrace, texts: TokenTexts) -> dict[str, Any]:
    """Where a token came from."""
    return {
        "token": texts.text(trace.token_id),
        "id": trace.token_id,
        "origin": trace.origin.value,
        "round": trace.round,
        "rejected": None if trace.rejected is None else texts.text(trace.rejected),
    }


def without_end(traces: Sequence[TokenTrace], done: Completion | None) -> Sequence[TokenTrace]:
    """The tokens of a text, without the id that ended it, which is no part of it."""
    is_ended_by_id = (
        done is not None
        and done.finish_reason is FinishReason.STOP
        and isinstance(done.stop_reason, int)
    )
    return traces[:-1] if is_ended_by_id else traces
