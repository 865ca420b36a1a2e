"""An output token by token: the text that each added, and the draft that it replaced."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from draftsmith.cli.terminal import CONTROL_NAMES, harmless

if TYPE_CHECKING:
    from draftsmith.engine.requests.result import Completion, TokenTrace
    from draftsmith.models.tokenizer import Tokenizer

__all__ = ["KINDS", "Kind", "Names", "Piece", "pieces", "visible"]

Kind: TypeAlias = Literal["kept", "residual", "bonus", "plain"]

KINDS: dict[Kind, str] = {
    "kept": "kept draft",
    "residual": "emitted in the place of a rejected draft",
    "bonus": "emitted after a draft that was kept whole",
    "plain": "from a round that drafted nothing",
}
"""Where a token came from, as every legend says it."""

_LINES = CONTROL_NAMES | str.maketrans({"\n": "↵", "\t": "⇥"})
_BLANKS = _LINES | str.maketrans({" ": "␣"})


class Piece(NamedTuple):
    """One token of the output."""

    text: str
    """What it added; empty for a special token and for all but the last byte of a character."""
    rejected: str | None
    """The draft whose place it took, made visible."""
    label: str
    """The name of a special token; empty for any other."""
    kind: Kind
    token: "TokenTrace"


def pieces(completion: "Completion", tokenizer: "Tokenizer") -> Iterator[Piece]:
    """Split a completion's text by token; joined, the pieces are the text."""
    names = Names(tokenizer)
    left = len(completion.text)
    drafted = {one.round for one in completion.trace if one.origin.value != "bonus"}
    for text, token in _decoded(completion, tokenizer):
        rejected = None if token.rejected is None else names.shown(token.rejected)
        # What a stop string cut off is no part of the text.
        label = names.special(token.token_id)
        kind = _kind(token, drafted)
        yield Piece(text[: max(left, 0)], rejected, label, kind, token)
        left -= len(text)


def visible(text: str) -> str:
    """The text with control characters by their names; newlines and tabs stay."""
    return harmless(text)


def _kind(token: "TokenTrace", drafted: set[int]) -> Kind:
    """A draft is kept in part, or one of its tokens is rejected, or there was none."""
    origin = token.origin.value
    return "plain" if origin == "bonus" and token.round not in drafted else origin


class Names:
    """What to show for a token by itself.

    Args:
        tokenizer: The target's.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._strings: dict[int, str] | None = None

    def special(self, token: int) -> str:
        """The name of a token without a text of its own; else empty."""
        if self._tokenizer.decode([token]):
            return ""
        if self._strings is None:
            self._strings = self._tokenizer.token_strings()
        return self._strings.get(token, f"<{token}>")

    def shown(self, token: int) -> str:
        """The text of a token that has no place of its own on the page, never blank."""
        text = self._tokenizer.decode([token]) or self.special(token)
        return text.translate(_BLANKS if text.isspace() else _LINES)


def _decoded(
    completion: "Completion", tokenizer: "Tokenizer"
) -> Iterator[tuple[str, "TokenTrace"]]:
    from draftsmith.models.tokenizer import Detokenizer

    detokenizer = Detokenizer(tokenizer, completion.prompt_tail)
    for number, token in enumerate(completion.trace, start=1):
        text = detokenizer.push(token.token_id)
        is_last = number == len(completion.trace)
        yield text + (detokenizer.flush() if is_last else ""), token
