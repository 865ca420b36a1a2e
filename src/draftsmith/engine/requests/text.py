"""The text of one output: whole characters, stop strings cut off, nothing shown too early."""

from collections.abc import Sequence

from draftsmith.models.tokenizer import Detokenizer, Tokenizer, prompt_tail

__all__ = ["OutputText"]


class OutputText:
    """Grows token by token; knows when a stop string has come, and what may be shown.

    Args:
        tokenizer: None for requests that live in token ids alone; the text is then empty.
        stop: Strings that end the text. The earliest wins, and is cut off with all after it.
        prompt: Tokens that the text goes on from: its first space depends on them.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, stop: Sequence[str], prompt: Sequence[int] = ()
    ) -> None:
        self.prompt_tail = prompt_tail(tokenizer, prompt) if tokenizer else ()
        self._detokenizer = Detokenizer(tokenizer, self.prompt_tail) if tokenizer else None
        self._stop = tuple(stop)
        self._num_shown = 0
        self.text = ""
        self.stopped_by: str | None = None
        """The stop string that ended the text."""

    @property
    def has_text(self) -> bool:
        """Whether tokens become text."""
        return self._detokenizer is not None

    def push(self, token: int) -> bool:
        """Append a token; return whether a stop string is now complete."""
        return self._append(self._detokenizer.push(token) if self._detokenizer else "")

    def close(self) -> bool:
        """Append what the detokenizer still holds; return whether that completes a stop string."""
        if self.stopped_by is not None:
            return True
        return self._append(self._detokenizer.flush() if self._detokenizer else "")

    def take(self, is_final: bool) -> str:
        """The text that was not shown yet and can no longer become part of a stop string."""
        end = len(self.text) if is_final else self._num_safe()
        piece = self.text[self._num_shown : end]
        self._num_shown = max(self._num_shown, end)
        return piece

    def _append(self, piece: str) -> bool:
        if not piece:
            return False
        # A stop string may begin in the old text, but cannot end there.
        start = max(0, len(self.text) - max(map(len, self._stop), default=1) + 1)
        self.text += piece
        found = [(at, stop) for stop in self._stop if (at := self.text.find(stop, start)) >= 0]
        if not found:
            return False
        at, self.stopped_by = min(found, key=lambda pair: pair[0])
        self.text = self.text[:at]
        return True

    def _num_safe(self) -> int:
        """Length of the text without an ending that may be the beginning of a stop string."""
        if not self._stop:
            return len(self.text)
        longest = max(
            (
                size
                for stop in self._stop
                for size in range(1, len(stop))
                if self.text.endswith(stop[:size])
            ),
            default=0,
        )
        return len(self.text) - longest
