"""One text that grows, and where it ran like its end before."""

from collections.abc import Sequence

from draftsmith.drafters.memory import BOUNDS, common_with
from draftsmith.drafters.suffix_automaton import Cursor, SuffixAutomaton

__all__ = ["GrowingText"]


class GrowingText:
    """The automaton of one sequence.

    Args:
        most_tokens: Kept at most; the newer half is read anew when there are more.

    Example:
        >>> text = GrowingText()
        >>> text.read([1, 2, 3, 1, 2])
        0
        >>> text.automaton.copied(text.match, 2)
        [3, 1]
    """

    def __init__(self, most_tokens: int = BOUNDS.text) -> None:
        self._most = most_tokens
        self._read: list[int] = []
        self._begin([], [])

    @property
    def match(self) -> Cursor:
        """The longest end of the text that occurred before."""
        return self.automaton.shorter((self.automaton.last, len(self._read)))

    @property
    def tokens(self) -> list[int]:
        """What was read."""
        return self._read

    def read(self, tokens: Sequence[int], source: Sequence[int] = ()) -> int:
        """Take in the tokens that are new, and go back where some are gone.

        Tokens go where a drafter that is checked itself asks: its own drafts come and go. What is
        gone leaves its occurrences, which cost a guess at most.

        Args:
            tokens: The text.
            source: Of an encoder, a text before; always the same one.

        Returns:
            How many tokens at the beginning are as they were.
        """
        same = common = common_with(self._read, tokens)
        is_new = not self._read or common < self._first
        if is_new or len(self.automaton) + len(tokens) - common > self._most:
            self._begin(tokens, source)
            common = self._first
        elif common < len(self._read):
            del self._states[common - self._first + 1 :]
            self.automaton.go_to(self._states[-1])
        automaton, states = self.automaton, self._states
        for token in tokens[common:]:
            automaton.append(token)
            states.append(automaton.last)
        self._read[common:] = tokens[common:]
        return same

    def _begin(self, tokens: Sequence[int], source: Sequence[int]) -> None:
        half = self._most // 2
        self.automaton = SuffixAutomaton()
        self.automaton.add(source[-half:])
        self._first = max(0, len(tokens) - half)
        """Tokens at the beginning that are forgotten."""
        self._read[:] = tokens[: self._first]
        self._states = [0]
        """After each token from there on."""
