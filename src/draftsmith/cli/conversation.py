"""A conversation with a model: its turns, and what becomes of them when the context is full."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.requests.result import GenerationResult
    from draftsmith.models.tokenizer import Message

__all__ = ["Conversation", "Totals"]

_ROOM_SHARE = 4
"""A quarter of the context is kept for the answer, if it may be that long."""


class Totals(NamedTuple):
    """What a conversation came to."""

    num_answers: int = 0
    num_forgotten: int = 0
    """Turns that are no longer seen."""
    num_prompt_tokens: int = 0
    """Of the last prompt, its answer not counted."""
    statistics: SpeculationStatistics = SpeculationStatistics()


class Conversation:
    """The turns so far. A turn that is refused, or stopped before its answer began, is forgotten.

    A stopped answer stays as far as it came.
    """

    def __init__(self, engine: "Engine", params: "SamplingParams", system: str) -> None:
        self.engine = engine
        self._params = params
        self.system = system
        self.totals = Totals()
        self._turns: list[Message] = []

    @property
    def context_length(self) -> int | None:
        """Of the model; None where there is no end."""
        return self.engine.target.traits.context_length

    def clear(self) -> None:
        """Begin anew; the system's turn stays."""
        self._turns = []
        self.totals = Totals()

    def say(self, text: str, run: "Callable[..., GenerationResult]") -> "GenerationResult":
        """Get the answer to a turn.

        Args:
            text: The user's.
            run: Runs the engine on a conversation, and shows the text as it grows.

        Raises:
            DraftsmithError: If the turn cannot be answered; the conversation is as before.
        """
        turns: list[Message] = [*self._turns, {"role": "user", "content": text}]
        num_dropped, num_tokens = self._fit(turns)
        turns = turns[num_dropped:]
        result = run(self._with_system(turns), self._with_room(num_tokens))
        if result.error is not None:
            raise InvalidRequestError(result.error)
        before = self.totals
        self.totals = Totals(
            num_answers=before.num_answers + 1,
            num_forgotten=before.num_forgotten + num_dropped,
            num_prompt_tokens=num_tokens,
            statistics=before.statistics + result.statistics,
        )
        if result.token_ids:
            self._turns = [*turns, {"role": "assistant", "content": result.text}]
        return result

    def _with_system(self, turns: "list[Message]") -> "list[Message]":
        return [{"role": "system", "content": self.system}, *turns] if self.system else turns

    def _fit(self, turns: "list[Message]") -> tuple[int, int]:
        """How many of the oldest turns must go, and the tokens of what is left.

        Raises:
            InvalidRequestError: If the last turn alone is too long.
        """
        tokenizer, length = self.engine.tokenizer, self.context_length
        assert tokenizer is not None
        num_tokens = 0
        for num_dropped in range(0, len(turns), 2):
            num_tokens = len(tokenizer.encode_chat(self._with_system(turns[num_dropped:])))
            if length is None or num_tokens + self._room(length) <= length:
                return num_dropped, num_tokens
            if num_dropped + 2 >= len(turns) and num_tokens < length:
                return num_dropped, num_tokens  # less room than one would like
        raise InvalidRequestError(
            f"the turn has {num_tokens} tokens, but the model has a context of {length}: shorten it"
        )

    def _room(self, length: int) -> int:
        return max(1, min(self._params.longest_output, length // _ROOM_SHARE))

    def _with_room(self, num_tokens: int) -> "SamplingParams":
        """The parameters, with no more tokens than there is room for."""
        if self.context_length is None:
            return self._params
        longest = min(self._params.longest_output, self.context_length - num_tokens)
        least = self._params.min_tokens
        shortest = None if least is None else min(least, longest)
        return replace(self._params, max_tokens=longest, min_tokens=shortest)
