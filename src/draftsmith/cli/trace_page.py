"""The coloured trace as one self-contained page, readable in light and dark."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from draftsmith.cli.pieces import KINDS, Names, Piece, pieces, visible
from draftsmith.report.html import shell, write_text

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.requests.result import Completion, GenerationResult
    from draftsmith.models.tokenizer import Tokenizer

__all__ = ["write_page"]

_STYLE = """
:root { --kept: #c5ebcd; --residual: #c3d6ff; --bonus: #d3eef4; --plain: #e7e7e7;
  --kept-line: #17692f; --residual-line: #1d3f9e; --bonus-line: #146a7c; --rejected: #a3261b; }
@media (prefers-color-scheme: dark) { :root { --kept: #1f4f2d; --residual: #2a4684;
  --bonus: #1f4853; --plain: #3a3d40; --kept-line: #7fd695; --residual-line: #a9c1ff;
  --bonus-line: #7fd0e2; --rejected: #ff9184; } }
h2 { font-size: 1rem; margin: 1.5rem 0 0; }
.note, h2 { color: var(--muted); } .note span { color: var(--ink); }
pre { font: 15px/1.75 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  border-left: 3px solid var(--line); margin: 0.5rem 0 1rem; padding: 0.25rem 0 0.25rem 1rem; }
pre.prompt { color: var(--muted); }
.kept, .residual, .bonus, .plain { border-radius: 3px 3px 0 0; padding: 2px 0 3px;
  box-shadow: inset 1px 0 0 var(--paper); print-color-adjust: exact; }
.kept { background: var(--kept); border-bottom: 2px solid var(--kept-line); }
.residual { background: var(--residual); border-bottom: 4px double var(--residual-line); }
.bonus { background: var(--bonus); border-bottom: 2px dotted var(--bonus-line); }
.plain { background: var(--plain); } s { color: var(--rejected); }
.note span, .note s { padding: 2px 0.3em 0; white-space: nowrap; }
ul.note { list-style: none; padding: 0; margin: 0.4rem 0; display: flex; flex-wrap: wrap;
  gap: 0.35rem 1.4rem; }
pre span:empty { padding: 2px 0.3em; }
i { opacity: 0.75; font-style: normal; user-select: none; }
i.newline::before { content: "↵"; }
table { border-collapse: collapse; font-size: 15px; }
td { padding: 0.1rem 1.5rem 0.1rem 0; } td:first-child { color: var(--muted); }
@media print { :root { color-scheme: light; --ink: #000000; --paper: #ffffff; --muted: #444444;
  --line: #bbbbbb; --kept: #c5ebcd; --residual: #c3d6ff; --bonus: #d3eef4; --plain: #e7e7e7;
  --kept-line: #17692f; --residual-line: #1d3f9e; --bonus-line: #146a7c; --rejected: #a3261b; }
  body { max-width: none; margin: 0; } }
"""
_HOW = "Point at a token for its text, its id and its round."


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
        f"<h1>{escape(engine.target.traits.name)}, {escape(how)}</h1>\n{_legend()}\n"
        f'<h2>prompt</h2>\n<pre class="prompt"><span>{escape(visible(prompt))}</span></pre>\n'
        f"{samples}\n{_table(result)}"
    )
    return shell(f"draftsmith trace: {engine.target.traits.name}", _STYLE, body)


def _legend() -> str:
    kinds = [f'<li><span class="{kind}">{said}</span></li>' for kind, said in KINDS.items()]
    struck = "<li><s>rejected draft</s></li>"
    return f'<ul class="note">{"".join(kinds)}{struck}</ul>\n<p class="note">{_HOW}</p>'


def _sample(completion: "Completion", result: "GenerationResult", tokenizer: "Tokenizer") -> str:
    number = f"sample {completion.index + 1}" if len(result.completions) > 1 else "output"
    reason = completion.error or completion.finish_reason.value
    names = Names(tokenizer)
    text = "".join(_token(piece, names) for piece in pieces(completion, tokenizer))
    return f"<h2>{number} ({escape(reason)})</h2>\n<pre>{text}</pre>"


def _token(piece: Piece, names: Names) -> str:
    rejected = "" if piece.rejected is None else _struck(piece)
    label = f"<i>{escape(piece.label)}</i>" if piece.label else ""
    # A newline alone has no width, so it gets a mark, which is not copied with the text.
    text = escape(visible(piece.text)).replace("\n", '<i class="newline"></i>\n')
    title = escape("\n".join(_told(piece, names)))
    return f'{rejected}<span class="{piece.kind}" title="{title}">{text}{label}</span>'


def _struck(piece: Piece) -> str:
    assert piece.rejected is not None
    return f'<s title="{escape(_rejected(piece))}">{escape(piece.rejected)}</s>'


def _rejected(piece: Piece) -> str:
    return f"rejected: “{piece.rejected}” (id {piece.token.rejected})"


def _told(piece: Piece, names: Names) -> Iterator[str]:
    """What a token's tooltip says, a line each."""
    token = piece.token
    yield f"“{names.shown(token.token_id)}” (id {token.token_id})"
    yield f"round {token.round}: {KINDS[piece.kind]}"
    if token.rejected is not None:
        yield _rejected(piece)
    if token.logprob is not None:
        yield f"log-probability {token.logprob:.3f}"
    if token.top_logprobs:
        yield "likeliest:"
    for top in token.top_logprobs:
        yield f"  {top.logprob:.3f} “{names.shown(top.token_id)}” (id {top.token_id})"


def _table(result: "GenerationResult") -> str:
    counts = result.statistics
    rows = {
        "tokens": str(counts.num_committed),
        "target passes": str(counts.num_rounds),
        "rounds that drafted nothing": str(counts.num_rounds - counts.num_drafting_rounds),
        "tokens per pass": _number(counts.tokens_per_pass),
        "alpha (accepted / tested)": _number(counts.alpha),
        "draft yield (accepted / drafted)": _number(counts.draft_yield),
        "accepted per position": " ".join(map(_number, counts.acceptance_per_position)) or "-",
        "tokens per second": f"{result.tokens_per_second:.1f}",
    }
    cells = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
