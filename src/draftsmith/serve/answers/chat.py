"""Chat completions: whole, and in chunks."""

from collections.abc import Sequence
from typing import Any

from draftsmith.engine.requests.result import Completion, TokenTrace
from draftsmith.serve.answers.about import About
from draftsmith.serve.answers.chunks import ChunkedShape

__all__ = ["ChatShape"]


class ChatShape(ChunkedShape):
    """OpenAI's chat completion objects.

    Args:
        about: Which request, and what its answer tells.
    """

    def __init__(self, about: About) -> None:
        super().__init__(about, "chat.completion", "chat.completion.chunk")

    def _opening(self, index: int) -> dict[str, Any]:
        # Only here: clients join a role that comes again.
        return {"delta": {"role": "assistant", "content": ""}}

    def _piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def _whole(self, index: int, done: Completion) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": done.text, "refusal": None}}

    def _logprobs(self, index: int, traces: Sequence[TokenTrace]) -> dict[str, Any]:
        texts = self._about.texts
        return {"content": [texts.chat_logprobs(trace) for trace in traces], "refusal": None}
