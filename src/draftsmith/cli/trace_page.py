"""The coloured trace as one self-contained page, readable in light and dark."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from draftsmith.cli.pieces import Piece, pieces, visible
from draftsmith.report.html import shell, write_text

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.result import Completion, GenerationResult, TokenTrace
    from draftsmith.models.tokenizer import Tokenizer

__all__ = ["write_page"]

_STYLE = """
:root { --kept: #c5ebcd; --residual: #c3d6ff; --bonus: #d3eef4; --rejected: #a3261b; }
@media (prefers-color-scheme: dark) { :root { --kept: #1f4f2d; --residual: #2a4684;
  --bonus: #1f4853; --rejected: #ff9184; } }
h2 { font-size: 1rem; margin: 1.5rem 0 0; }
.note, h2 { color: var(--muted); } .note span { color: var(--ink); }
pre { font: 15px/1.75 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  border-left: 3px solid var(--line); margin: 0.5rem 0 1rem; padding: 0.25rem 0 0.25rem 1rem; }
pre.prompt { color: var(--muted); }
.kept, .residual, .bonus { border-radius: 3px; padding: 2px 0;
  box-shadow: inset 1px 0 0 var(--paper); }
.kept { background: var(--kept); } .residual { background: var(--residual); }
.bonus { background: var(--bonus); } s { color: var(--rejected); }
pre span:empty { padding: 2px 0.3em; }
i { opacity: 0.75; font-style: normal; user-select: none; }
i.newline::before { content: "↵"; }
table { border-collapse: collapse; font-size: 15px; }
td { padding: 0.1rem 1.5rem 0.1rem 0; } td:first-child { color: var(--muted); }
"""
_LEGEND = (
    '<p class="note"><span class="kept">kept draft</span> · '
    '<span class="residual">emitted in the place of a rejected draft</span> '
    '(<s>rejected</s>) · <span class="bonus">emitted after the draft</span></p>'
)


def write_page(path: Path, result: "GenerationResult", engine: "Engine", draft: str) -> None:
    """Write the trace of a result.

    Args:
        path: The file, which is replaced.
        result: What was generated.
        engine: What generated it.
        draft: How the user named what drafted.

    Raises:
        InvalidRequestError: If the file cannot be written.
    """
    write_text(path, _page(result, engine, draft), "trace page")


def _page(result: "GenerationResult", engine: "Engine", draft: str) -> str:
    assert engine.tokenizer is not None
    prompt = engine.tokenizer.decode(result.prompt_token_ids)
    how = f"drafted by {draft}, gamma {engine.gamma}" if engine.gamma else "decoded plainly"
    samples = "\n".join(_sample(one, result, engine.tokenizer) for one in result.completions)
    body = (
        f"<h1>{escape(engine.target.traits.name)}, {escape(how)}</h1>\n{_LEGEND}\n"
        f'<h2>prompt</h2>\n<pre class="prompt"><span>{escape(visible(prompt))}</span></pre>\n'
        f"{samples}\n{_table(result)}"
    )
    return shell("draftsmith trace", _STYLE, body)


def _sample(completion: "Completion", result: "GenerationResult", tokenizer: "Tokenizer") -> str:
    number = f"sample {completion.index + 1}" if len(result.completions) > 1 else "output"
    reason = completion.error or completion.finish_reason.value
    text = "".join(map(_token, pieces(completion, tokenizer)))
    return f"<h2>{number} ({escape(reason)})</h2>\n<pre>{text}</pre>"


def _token(piece: Piece) -> str:
    rejected = "" if piece.rejected is None else f"<s>{escape(piece.rejected)}</s>"
    label = f"<i>{escape(piece.label)}</i>" if piece.label else ""
    # A newline alone has no width, so it gets a mark, which is not copied with the text.
    text = escape(visible(piece.text)).replace("\n", '<i class="newline"></i>\n')
    origin = piece.token.origin.value
    return f'{rejected}<span class="{origin}" title="{_title(piece.token)}">{text}{label}</span>'


def _title(token: "TokenTrace") -> str:
    parts = [f"id {token.token_id}", f"round {token.round}", token.origin.value]
    if token.rejected is not None:
        parts.append(f"rejected id {token.rejected}")
    if token.logprob is not None:
        parts.append(f"logprob {token.logprob:.3f}")
    parts += [f"{top.token_id}: {top.logprob:.3f}" for top in token.top_logprobs]
    return escape(", ".join(parts))


def _table(result: "GenerationResult") -> str:
    counts = result.statistics
    rows = {
        "tokens": str(counts.num_committed),
        "target passes": str(counts.num_rounds),
        "tokens per pass": _number(counts.tokens_per_pass),
        "alpha (accepted / tested)": _number(counts.alpha),
        "kept share of drafts": _number(counts.draft_yield),
        "accepted per position": " ".join(map(_number, counts.acceptance_per_position)) or "-",
        "tokens per second": f"{result.tokens_per_second:.1f}",
    }
    cells = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
