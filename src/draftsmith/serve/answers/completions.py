"""Text completions: whole, and in chunks."""

from collections.abc import Sequence
from typing import Any

from draftsmith.engine.requests.result import Completion, TokenTrace
from draftsmith.models.tokenizer import Detokenizer
from draftsmith.serve.answers.about import About
from draftsmith.serve.answers.chunks import ChunkedShape

__all__ = ["CompletionShape"]


class CompletionShape(ChunkedShape):
    """OpenAI's text completion objects.

    Args:
        about: Which request, and what its answer tells.
        tails: The last tokens before each choice, which its first character depends on.
        echoes: What each choice's text begins with, if prompts are told again.
    """

    def __init__(
        self, about: About, tails: Sequence[tuple[int, ...]], echoes: Sequence[str]
    ) -> None:
        super().__init__(about, "text_completion", "text_completion")
        self._echoes = echoes
        self._offsets = [
            _Offsets(about, tail, len(echo)) for tail, echo in zip(tails, echoes, strict=True)
        ]

    def _opening(self, index: int) -> dict[str, Any]:
        return {"text": self._echoes[index]}

    def _piece(self, index: int, text: str, done: Completion | None) -> dict[str, Any]:
        return {"text": text}

    def _whole(self, index: int, done: Completion) -> dict[str, Any]:
        return {"text": self._echoes[index] + done.text}

    def _logprobs(self, index: int, traces: Sequence[TokenTrace]) -> dict[str, Any]:
        return self._offsets[index].logprobs(traces)


class _Offsets:
    """Where each token of one choice begins in its text, as the text grows."""

    def __init__(self, about: About, tail: tuple[int, ...], start: int) -> None:
        tokenizer = about.texts.tokenizer
        self._texts = about.texts
        self._detokenizer = None if tokenizer is None else Detokenizer(tokenizer, tail)
        self._place = start

    def logprobs(self, traces: Sequence[TokenTrace]) -> dict[str, Any]:
        """Of some tokens, in parallel lists."""
        offsets: list[int] = []
        for trace in traces:
            offsets.append(self._place)
            if self._detokenizer is not None:
                self._place += len(self._detokenizer.push(trace.token_id))
        entries = [self._texts.chat_logprobs(trace) for trace in traces]
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [
                # The likeliest come first: of two that share a text, the likelier stays.
                {top["token"]: top["logprob"] for top in reversed(entry["top_logprobs"])}
                for entry in entries
            ],
            "text_offset": offsets,
        }
