"""The target's residual streams, kept until a drafter that reads them asks.

A head is a draft that goes on from what the target has computed: at some boundaries (0 the
embeddings, b the stream behind b layers, before the final norm) the streams of every committed
token are handed to it, once and in order.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["StateLog", "States"]

States = Float[Tensor, "tokens boundaries hidden"]


class _Text:
    """Of one sequence."""

    __slots__ = ("parts", "start", "stop")

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self.start = 0
        """The first token whose streams were not handed out yet."""
        self.stop = 0
        """The token behind the last whose streams are here."""


class StateLog:
    """Streams of tokens that were read, by sequence.

    Args:
        boundaries: Which.

    Example:
        >>> import torch
        >>> log = StateLog((0, 4))
        >>> log.note(7, 0, torch.zeros(3, 2, 8))
        >>> log.take(7, 2).shape, log.take(7, 3).shape, log.take(7, 3).shape
        (torch.Size([2, 2, 8]), torch.Size([1, 2, 8]), torch.Size([0, 2, 8]))
    """

    def __init__(self, boundaries: Sequence[int]) -> None:
        self.boundaries = tuple(boundaries)
        self._texts: dict[int, _Text] = {}
        self._width = 0

    def note(self, sequence: int, position: int, states: States) -> None:
        """Keep the streams of tokens that were read from a position on.

        Args:
            sequence: Its id.
            position: Of the first; what was kept of it and of those behind is forgotten. Streams
                that were handed out are not kept again: a text that was let go of and read once
                more has the same.
            states: Of the tokens, in order. Where those of tokens in between are missing, they are
                not kept: all are read again when they are wanted.
        """
        self._width = states.shape[-1]
        text = self._texts.setdefault(sequence, _Text())
        if position < text.stop:
            self.cut(sequence, position)
        if position > text.stop:
            return
        # Amid passes a call of torch takes 20 us, also for a slice of everything.
        new = states[text.start - position :] if position < text.start else states
        if len(new):
            text.parts.append(new)
        text.stop = max(text.stop, position + len(states))

    def stop(self, sequence: int) -> int:
        """The token behind the last whose streams were noted."""
        text = self._texts.get(sequence)
        return 0 if text is None else text.stop

    def pass_over(self, sequence: int, length: int) -> None:
        """Count the streams of the first `length` tokens as handed out: they went another way."""
        text = self._texts.setdefault(sequence, _Text())
        if length <= text.start:
            return
        if text.parts:
            held = self._joined(text)[length - text.start :]
            text.parts = [held] if len(held) else []
        text.start, text.stop = length, max(length, text.stop)

    def limit(self, num_tokens: int) -> None:
        """Forget streams, those of the oldest texts first, until so many tokens' or fewer are held.

        Who wants them later has them read again.
        """
        held = sum(len(part) for text in self._texts.values() for part in text.parts)
        for text in self._texts.values():
            if held <= num_tokens:
                break
            held -= sum(map(len, text.parts))
            text.parts, text.stop = [], min(text.start, text.stop)

    def cut(self, sequence: int, length: int) -> None:
        """Forget the streams behind the first `length` tokens."""
        text = self._texts.get(sequence)
        if text is None or length >= text.stop:
            return
        kept = self._joined(text)[: max(0, length - text.start)]
        text.parts = [kept] if len(kept) else []
        text.stop = length

    def keep(self, sequence: int, position: int, path: Sequence[int]) -> None:
        """Of the streams from a position on keep some, as one text.

        Args:
            sequence: Its id.
            position: Of the first token of its last pass.
            path: Which of that pass, rising.
        """
        text = self._texts[sequence]
        assert text.start <= position
        held = self._joined(text)
        before, new = held[: position - text.start], held[position - text.start :]
        text.parts = [torch.cat((before, new[list(path)]))]
        text.stop = position + len(path)

    def take(self, sequence: int, stop: int) -> States:
        """Hand out, once, the streams of the tokens before `stop` that were not yet."""
        text = self._texts.get(sequence)
        if text is None:
            return torch.empty(0, len(self.boundaries), self._width)
        held = self._joined(text)
        count = max(0, min(stop, text.stop) - text.start)
        text.parts = [held[count:]] if count < len(held) else []
        text.start += count
        return held[:count]

    def release(self, sequence: int) -> None:
        """Forget a sequence that has ended."""
        self._texts.pop(sequence, None)

    def _joined(self, text: _Text) -> States:
        if not text.parts:
            return torch.empty(0, len(self.boundaries), self._width)
        if len(text.parts) > 1:
            text.parts = [torch.cat(text.parts)]
        return text.parts[0]
