"""One text's way through a grammar: which tokens may come next, after any prefix.

A matcher stands somewhere in the grammar; it is fed tokens, and taken back where a prefix parts
from what it was fed. What it says of a prefix is kept while the matcher stands behind it, since
the draft, the check and the next round ask for the same prefixes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from draftsmith.models.follower import common_prefix

__all__ = ["Matcher", "Walk"]

_MOST_KEPT = 72
"""Prefixes whose masks are kept: two of the longest drafts, and some."""


@runtime_checkable
class Matcher(Protocol):
    """Where a text stands in a grammar. End tokens are no part of it, and are never fed."""

    def feed(self, token: int) -> bool:
        """Go one token on, which is in the mask; False where that met a limit."""
        ...

    def take_back(self, count: int) -> None:
        """Undo the last so many tokens."""
        ...

    def mask(self) -> Bool[Tensor, " vocab"]:
        """The tokens that may come next, end tokens among them where the text may end."""
        ...

    def spelled(self) -> list[int]:
        """Tokens for the letters that must come next; none where there is a choice."""
        ...

    @property
    def failure(self) -> str:
        """The limit that it has met, and can tell nothing any more; empty while it can."""
        ...


class _Step(NamedTuple):
    """What may follow one prefix."""

    mask: Tensor
    next: int | None
    """The one token that may; or the one that spells what must, where letters must follow."""


class Walk:
    """The constraint of one text.

    A prefix is part of a text if each of its tokens is in the mask before it. What else a matcher
    would swallow (llguidance takes any split of the bytes that a grammar forces, and its mask holds
    the tokenizer's own) plain decoding could never write.

    A matcher that meets a limit of its own is done with. Another begins in its place where the text
    goes on elsewhere, so that a rejected draft that met the limit leaves no trace.

    Args:
        begin: Makes a matcher at the beginning of the grammar.
        ends: The tokens that end the text.
        vocab_size: The model's.
        name: Of the form, for messages.
    """

    def __init__(
        self, begin: Callable[[], Matcher], ends: frozenset[int], vocab_size: int, name: str
    ) -> None:
        self._begin = begin
        self._matcher = begin()
        self._failure = ""
        """Of the last matcher that met a limit."""
        self.ends = ends
        """The tokens that end the text."""
        self._name = name
        self._fed: list[int] = []
        """What the matcher has been fed."""
        self._steps: dict[int, _Step] = {}
        """By length, what may follow the prefixes of what was fed."""
        self._outside = _Step(torch.ones(vocab_size, dtype=torch.bool), None)
        """Behind an end, or a token that was refused: no text comes there."""
        self._beyond = _Step(torch.zeros(vocab_size, dtype=torch.bool), None)
        """Where a matcher met a limit: a text may come there, and cannot go on."""

    def allowed(self, tokens: Sequence[int], rows: int) -> Bool[Tensor, "{rows} vocab"]:
        """The tokens that may follow each of the last prefixes.

        Args:
            tokens: Output and drafts: all that the last row follows.
            rows: How many prefixes.

        Returns:
            A row for each; all tokens behind an end, or behind a token that was refused.
        """
        text, first = list(tokens), len(tokens) - (rows - 1)
        return torch.stack([self._step(text, first + row).mask for row in range(rows)])

    def forced(self, tokens: Sequence[int], most: int) -> list[int]:
        """The tokens that must follow a prefix, one after the other, as far as any must.

        Args:
            tokens: The prefix.
            most: At most so many.
        """
        text, end = list(tokens), len(tokens) + most
        while len(text) < end:
            following = self._step(text, len(text)).next
            if following is None:
                break
            text.append(following)
        return text[len(tokens) :]

    def num_allowed(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        """How many drafted tokens may follow a prefix, up to the one that is refused.

        Args:
            tokens: The prefix.
            drafted: Tokens behind it; those behind an end are refused.
        """
        text = [*tokens, *drafted]
        for count, token in enumerate(drafted):
            step = self._step(text, len(tokens) + count)
            if step is self._outside or not step.mask[token]:
                return count
        return len(drafted)

    @property
    def complaint(self) -> str:
        """Why nothing may follow, where nothing may."""
        if self._failure:
            return (
                f"structured_outputs.{self._name} cannot be followed any further "
                f"({self._failure}): make it simpler"
            )
        return (
            f"no token is allowed here by structured_outputs.{self._name} and the other rules at "
            "once: loosen bans, allowed_token_ids or min_tokens"
        )

    # --- where the matcher stands -------------------------------------------------------------

    def _step(self, tokens: list[int], length: int) -> _Step:
        """What may follow the first so many tokens."""
        common = common_prefix(self._fed, tokens)
        step = self._steps.get(length) if length <= common else None
        if step is not None:
            return step
        if self._matcher.failure:
            self._matcher = self._begin()
            self._fed.clear()
            self._steps.clear()
        if self._go_to(tokens[:length]):
            return self._here()
        return self._beyond if self._matcher.failure else self._outside

    def _go_to(self, prefix: list[int]) -> bool:
        """Feed the matcher a prefix; False where it is no part of any text."""
        common = common_prefix(self._fed, prefix)
        if common < len(self._fed):
            self._matcher.take_back(len(self._fed) - common)
            for length in range(common + 1, len(self._fed) + 1):
                self._steps.pop(length, None)
            del self._fed[common:]
        for token in prefix[common:]:
            if token in self.ends or not self._here().mask[token]:
                return False
            if not self._matcher.feed(token):
                self._failure = self._matcher.failure
                return False
            self._fed.append(token)
        return True

    def _here(self) -> _Step:
        """What may follow where the matcher stands."""
        length = len(self._fed)
        if length not in self._steps:
            mask = self._matcher.mask()
            self._failure = self._matcher.failure
            self._steps[length] = _Step(mask, self._next(mask))
            self._steps.pop(length - _MOST_KEPT, None)
        return self._steps[length]

    def _next(self, mask: Bool[Tensor, " vocab"]) -> int | None:
        count = int(mask.sum())
        if count == 1:
            return int(mask.byte().argmax())
        spelled = self._matcher.spelled() if count else []
        return spelled[0] if spelled and mask[spelled[0]] else None
