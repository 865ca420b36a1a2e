"""The coloured trace as one self-contained page, readable in light and dark."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from draftsmith.cli.report import token_pieces
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.result import Completion, GenerationResult, TokenTrace
    from draftsmith.models.tokenizer import Tokenizer

__all__ = ["write_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --muted: #5c5c5c;
  --kept: #d3efd8; --residual: #cfe0ff; --bonus: #e4f3f7; --rejected: #a3261b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181a; --muted: #a4a4a4;
  --kept: #1f4a2b; --residual: #24407a; --bonus: #213f49; --rejected: #ff9184; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.6 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } p.note { color: var(--muted); }
pre { font: 15px/1.75 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.kept, .residual, .bonus { border-radius: 3px; padding: 1px 0; }
.kept { background: var(--kept); } .residual { background: var(--residual); }
.bonus { background: var(--bonus); } s { color: var(--rejected); }
td { padding: 0.1rem 1.5rem 0.1rem 0; } td:first-child { color: var(--muted); }
"""


def write_page(
    path: Path, result: "GenerationResult", tokenizer: "Tokenizer", target: str, draft: str
) -> None:
    """Write the trace of a result.

    Raises:
        InvalidRequestError: If the file cannot be written.
    """
    try:
        path.write_text(_page(result, tokenizer, target, draft), encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"trace page {path} cannot be written: {error.strerror}") from error


def _page(result: "GenerationResult", tokenizer: "Tokenizer", target: str, draft: str) -> str:
    texts = "\n".join(f"<pre>{_text(one, tokenizer)}</pre>" for one in result.completions)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>draftsmith trace</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{escape(target)}, drafted by {escape(draft)}</h1>\n"
        '<p class="note"><span class="kept">kept draft</span> · '
        '<span class="residual">emitted in the place of a rejected draft</span> '
        '(<s>rejected</s>) · <span class="bonus">emitted after the draft</span></p>\n'
        f"{texts}\n{_table(result)}\n</body></html>\n"
    )


def _text(completion: "Completion", tokenizer: "Tokenizer") -> str:
    parts: list[str] = []
    left = len(completion.text)
    for piece, token in token_pieces(tokenizer, completion.trace):
        if token.rejected is not None and left > 0:
            parts.append(f"<s>{escape(tokenizer.decode([token.rejected]))}</s>")
        shown = escape(piece[:left])
        parts.append(f'<span class="{token.origin.value}" title="{_title(token)}">{shown}</span>')
        left -= len(piece)
    return "".join(parts)


def _title(token: "TokenTrace") -> str:
    parts = [f"id {token.token_id}", f"round {token.round}", token.origin.value]
    if token.logprob is not None:
        parts.append(f"logprob {token.logprob:.3f}")
    return escape(", ".join(parts))


def _table(result: "GenerationResult") -> str:
    counts = result.statistics
    rows = {
        "tokens": str(counts.num_committed),
        "target passes": str(counts.num_rounds),
        "tokens per pass": _number(counts.tokens_per_pass),
        "alpha (accepted / tested)": _number(counts.alpha),
        "kept share of drafts": _number(counts.draft_yield),
        "accepted per position": " ".join(map(_number, counts.acceptance_per_position)),
        "tokens per second": f"{result.tokens_per_second:.1f}",
    }
    cells = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
