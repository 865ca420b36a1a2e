"""What a check came to: a word and a mark, so that no colour is needed to read it."""

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["MARKS", "WORDS", "Outcome", "Status", "marked"]

Status: TypeAlias = Literal["pass", "fail", "info", "untested"]

WORDS: dict[Status, str] = {
    "pass": "pass",
    "fail": "FAIL",
    "info": "info",
    "untested": "not tested",
}
"""How each status is written."""

MARKS: dict[Status, str] = {"pass": "✓", "fail": "✗", "info": "•", "untested": "?"}
"""What stands before the word, for a glance."""


class Outcome(NamedTuple):
    """What a whole page came to.

    Example:
        >>> Outcome("fail", "FAILED").shown
        '✗ FAILED'
    """

    status: Status
    word: str
    """In capitals, such as `FAILED`."""

    @property
    def shown(self) -> str:
        """The mark and the word."""
        return f"{MARKS[self.status]} {self.word}"


def marked(status: Status) -> str:
    """A status with its mark.

    Example:
        >>> marked("untested")
        '? not tested'
    """
    return f"{MARKS[status]} {WORDS[status]}"
