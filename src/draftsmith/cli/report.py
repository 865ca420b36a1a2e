"""How results look: a JSON object, a line of statistics, coloured tokens."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from draftsmith.cli.pieces import KINDS, pieces, visible
from draftsmith.cli.stdout import write_text

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.result import Completion, GenerationResult
    from draftsmith.models.tokenizer import Tokenizer

__all__ = [
    "as_json",
    "coloured",
    "console",
    "legend",
    "notes",
    "print_samples",
    "print_summary",
    "print_trace",
    "summary_line",
]

STYLES = {"kept": "green", "residual": "bold blue", "bonus": "cyan", "plain": "magenta"}
"""By kind of token; kept drafts are green, emitted ones blue, as in Figure 1 of Leviathan et al."""
REJECTED = "red strike"


def as_json(result: "GenerationResult", **about: object) -> dict[str, Any]:
    """One object with text, token ids, finish reason and statistics."""
    document = {
        **_completion(result.completions[0]),
        "statistics": result.statistics.to_dict(),
        "num_prompt_tokens": len(result.prompt_token_ids),
        "elapsed_s": round(result.elapsed_s, 4),
        "tokens_per_second": round(result.tokens_per_second, 3),
        **about,
    }
    if result.ledger is not None:
        document["ledger"] = result.ledger.to_dict()
    if len(result.completions) > 1:
        document["completions"] = [_completion(one) for one in result.completions]
    return document


def notes() -> Console:
    """Where remarks go: stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_summary(result: "GenerationResult") -> None:
    """Tell on stderr what a generation came to."""
    notes().print(summary_line(result), style="dim")


def summary_line(result: "GenerationResult") -> str:
    """What a generation came to, in one line."""
    counts = result.statistics
    parts = [f"{counts.num_committed} tokens", f"{result.tokens_per_second:.1f} tok/s"]
    if counts.alpha is not None and counts.tokens_per_pass is not None:
        parts += [f"alpha {counts.alpha:.2f}", f"{counts.tokens_per_pass:.2f} tokens per pass"]
    if result.ledger is not None and result.ledger.speedup is not None:
        parts.append(f"{result.ledger.speedup:.2f}x plain decoding")
    return " · ".join(parts)


def print_samples(result: "GenerationResult") -> None:
    """Write the texts to stdout, each with its number before it on stderr."""
    for completion in result.completions:
        _print_heading(completion, result)
        write_text(f"{completion.text}\n")


def print_trace(result: "GenerationResult", engine: "Engine") -> None:
    """Write the coloured texts to stdout."""
    assert engine.tokenizer is not None
    out = console()
    for completion in result.completions:
        _print_heading(completion, result)
        out.print(coloured(completion, engine.tokenizer))
    legend(notes())


def console() -> Console:
    """Where styled text goes: stdout, with its styles even in a pipe or a file.

    Without them a rejected draft could not be told from the text. NO_COLOR leaves them bold
    and struck.
    """
    plain = Console(highlight=False, soft_wrap=True)
    if plain.color_system is not None:
        return plain
    # What will show it is not known (`less -R`): the 16 colours are safe.
    return Console(highlight=False, soft_wrap=True, force_terminal=True, color_system="standard")


def coloured(completion: "Completion", tokenizer: "Tokenizer") -> Text:
    """The text with every token coloured by its origin, rejected drafts struck out."""
    text = Text()
    for piece in pieces(completion, tokenizer):
        if piece.rejected is not None:
            text.append(piece.rejected, style=REJECTED)
        text.append(visible(piece.text), style=STYLES[piece.kind])
    return text


def legend(out: Console) -> None:
    """Say what the colours mean."""
    out.print(
        Text.assemble(
            (KINDS["kept"], STYLES["kept"]),
            " · ",
            (KINDS["residual"], STYLES["residual"]),
            " (",
            ("rejected", REJECTED),
            ") · ",
            (KINDS["bonus"], STYLES["bonus"]),
            " · ",
            (KINDS["plain"], STYLES["plain"]),
        )
    )


def _print_heading(completion: "Completion", result: "GenerationResult") -> None:
    if len(result.completions) > 1:
        number = f"sample {completion.index + 1} of {len(result.completions)}"
        notes().print(f"{number} ({completion.finish_reason.value})", style="dim")


def _completion(completion: "Completion") -> dict[str, Any]:
    document: dict[str, Any] = {
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "finish_reason": completion.finish_reason.value,
        "stop_reason": completion.stop_reason,
        "error": completion.error,
    }
    if completion.trace and completion.trace[0].logprob is not None:
        document["logprobs"] = [
            {
                "token_id": token.token_id,
                "logprob": token.logprob,
                "top": {str(top.token_id): top.logprob for top in token.top_logprobs},
            }
            for token in completion.trace
        ]
    return document
