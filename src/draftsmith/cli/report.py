"""How results look: a JSON object, a line of statistics, coloured tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from draftsmith.cli.messages import notes, warn
from draftsmith.cli.pieces import KINDS, pieces, visible
from draftsmith.cli.stdout import rich_console, write_text
from draftsmith.core.statistics import SpeculationStatistics

if TYPE_CHECKING:
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.requests.result import Completion, GenerationResult
    from draftsmith.models.tokenizer import Tokenizer

__all__ = [
    "as_json",
    "coloured",
    "console",
    "legend",
    "print_labelled",
    "print_lossy",
    "print_samples",
    "print_summary",
    "print_trace",
    "summary_line",
]

STYLES = {"kept": "green", "residual": "bold blue", "bonus": "cyan", "plain": "magenta"}
"""By kind of token; kept drafts are green, emitted ones blue, as in Figure 1 of Leviathan et al."""
REJECTED = "red strike"


def as_json(result: "GenerationResult") -> dict[str, Any]:
    """One object with text, token ids, finish reason and statistics."""
    document: dict[str, Any] = {
        **_completion(result.completions[0]),
        "statistics": result.statistics.to_dict(),
        "num_prompt_tokens": len(result.prompt_token_ids),
        "elapsed_s": round(result.elapsed_s, 4),
        "tokens_per_second": round(result.tokens_per_second, 3),
    }
    if result.ledger is not None:
        document["ledger"] = result.ledger.to_dict()
    if len(result.completions) > 1:
        document["completions"] = [_completion(one) for one in result.completions]
    return document


def print_summary(results: "Sequence[GenerationResult]") -> None:
    """Tell on stderr what a generation came to."""
    lines = [summary_line(one) for one in results]
    text = lines[0] if len(lines) == 1 else _total(results)
    notes().print(text, style="dim")


def print_lossy(params: "SamplingParams") -> None:
    """Say on stderr that a text is not the target's, where a lossy setting made it."""
    if params.lossy_lenience < 1:
        warn(
            f"not exact: --lossy-lenience {params.lossy_lenience:g} keeps drafts that the exact "
            "check rejects; the text is not the target's"
        )


def _total(results: "Sequence[GenerationResult]") -> str:
    """What a batch came to; its prompts share the time."""
    counts = sum((one.statistics for one in results), SpeculationStatistics())
    parts = [f"{len(results)} prompts", f"{counts.num_committed} tokens"]
    if counts.alpha is not None and counts.tokens_per_pass is not None:
        parts += [f"alpha {counts.alpha:.2f}", f"{counts.tokens_per_pass:.2f} tokens per pass"]
    return " · ".join(parts)


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


def print_labelled(result: "GenerationResult", label: str) -> None:
    """Write the texts to stdout, each under a line that names it."""
    for completion in result.completions:
        write_text(f"{_label_line(label, completion, result)}{completion.text}\n\n")


def print_trace(result: "GenerationResult", engine: "Engine", label: str = "") -> None:
    """Write the coloured texts to stdout, under their labels in a batch."""
    assert engine.tokenizer is not None
    out = console()
    for completion in result.completions:
        if label:
            write_text(_label_line(label, completion, result))
        else:
            _print_heading(completion, result)
        out.print(coloured(completion, engine.tokenizer))
    legend(notes())


def console() -> Console:
    """Where styled text goes: stdout, with its styles even in a pipe or a file.

    Without them a rejected draft could not be told from the text. NO_COLOR leaves them bold
    and struck.
    """
    plain = rich_console(highlight=False, soft_wrap=True)
    if plain.color_system is not None:
        return plain
    # What will show it is not known (`less -R`): the 16 colours are safe.
    options = {"force_terminal": True, "color_system": "standard"}
    return rich_console(highlight=False, soft_wrap=True, **options)


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


def _label_line(label: str, completion: "Completion", result: "GenerationResult") -> str:
    number, total = completion.index + 1, len(result.completions)
    sample = f", sample {number} of {total}" if total > 1 else ""
    failed = f", {completion.finish_reason.value}" if completion.error is not None else ""
    return f"--- {label}{sample}{failed} ---\n"


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
