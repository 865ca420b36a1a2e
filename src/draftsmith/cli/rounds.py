"""An output round by round, as Figure 1 of Leviathan et al. (arXiv:2211.17192) shows it."""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from draftsmith.cli.pieces import Piece, pieces, visible
from draftsmith.cli.report import REJECTED, STYLES

if TYPE_CHECKING:
    from draftsmith.engine.requests.result import Completion
    from draftsmith.models.tokenizer import Tokenizer

__all__ = ["as_rounds", "round_lines", "title"]


def title(completion: "Completion") -> str:
    """What the figure's caption counts."""
    counts = completion.statistics
    return f"{counts.num_committed} tokens in {counts.num_rounds} target runs"


def round_lines(completion: "Completion", tokenizer: "Tokenizer") -> Iterator[Text]:
    """One coloured line a target run: kept drafts, the rejected one struck out, the emitted."""
    for number, parts in _rounds(completion, tokenizer):
        line = Text.assemble((f"{number + 1:>3}  ", "dim"))
        for piece in parts:
            if piece.rejected is not None:
                line.append(piece.rejected, style=REJECTED)
            line.append(_on_a_line(piece), style=STYLES[piece.kind])
        yield line


def as_rounds(completion: "Completion", tokenizer: "Tokenizer") -> list[dict[str, Any]]:
    """The same as data: texts of the kept drafts, of the rejected one and of the emitted one."""
    return [_as_data(parts) for _, parts in _rounds(completion, tokenizer)]


def _as_data(parts: list[Piece]) -> dict[str, Any]:
    *kept, last = parts
    is_kept = last.token.origin.value == "kept"  # the text ended inside the draft
    return {
        "kept": [_text(piece) for piece in (parts if is_kept else kept)],
        "rejected": last.rejected,
        "emitted": None if is_kept else _text(last),
    }


def _rounds(completion: "Completion", tokenizer: "Tokenizer") -> Iterator[tuple[int, list[Piece]]]:
    for number, parts in groupby(pieces(completion, tokenizer), lambda piece: piece.token.round):
        yield number, list(parts)


def _text(piece: Piece) -> str:
    return piece.text or piece.label


def _on_a_line(piece: Piece) -> str:
    return visible(_text(piece)).replace("\n", "↵")
