"""One self-contained page of a report: no script, no network, readable in light and dark."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

from draftsmith.errors import InvalidRequestError
from draftsmith.report.figure import Figure
from draftsmith.report.html import shell
from draftsmith.report.plots import Theme, svg
from draftsmith.report.status import Outcome, Status, marked

__all__ = ["Section", "Table", "page"]

_STYLE = """
:root { --pass: #17692f; --fail: #a3261b; --info: #1d5a8f; --untested: #755200;
  --band: #f5f5f5; }
@media (prefers-color-scheme: dark) { :root { --pass: #7fd695; --fail: #ff9184; --info: #8ec5f2;
  --untested: #e8c25a; --band: #1e2123; } }
body { max-width: 76rem; }
h1 { margin-bottom: 0.3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 0.4rem; }
p { max-width: 46rem; margin: 0.4rem 0; overflow-wrap: anywhere; }
.verdict { font-size: 1.1rem; border-left: 4px solid var(--info); padding-left: 0.8rem; }
.outcome { max-width: 46rem; margin: 0.8rem 0; border: 2px solid; border-radius: 6px;
  padding: 0.5rem 0.9rem; }
.outcome strong { font-size: 1.5rem; letter-spacing: 0.04em; }
.outcome .verdict { border: 0; padding: 0; color: var(--ink); }
.outcome.fail { border: 6px double var(--fail); }
.outcome.fail strong { background: var(--fail); color: var(--paper); padding: 0 0.5rem; }
.outcome.untested { border-style: dashed; }
.status { font-size: 0.8rem; font-weight: 600; border: 1px solid; border-radius: 4px;
  padding: 0.05rem 0.45rem; margin-left: 0.5rem; vertical-align: middle; white-space: nowrap; }
.status.fail { background: var(--fail); color: var(--paper); border-color: var(--fail); }
.status.untested { border-style: dashed; }
.status.pass, .outcome.pass { color: var(--pass); } .fail { color: var(--fail); }
.status.info, .outcome.info { color: var(--info); } .untested { color: var(--untested); }
tr.fail td { font-weight: 600; } tr.untested td { font-style: italic; }
tr.fail td:first-child::before { content: "✗ "; }
tr.untested td:first-child::before { content: "? "; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 14px; line-height: 1.45; }
caption { text-align: left; color: var(--muted); padding-bottom: 0.3rem; caption-side: top; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
tbody tr:nth-child(even) { background: var(--band); }
th:first-child, td:first-child { text-align: left; padding-left: 0.3rem; }
.figures { display: grid; gap: 1.2rem 2rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
figure { margin: 0; max-width: 34rem; } figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--muted); font-size: 14px; line-height: 1.45; margin-top: 0.3rem; }
.dark { display: none; }
@media (prefers-color-scheme: dark) { .dark { display: block; } .light { display: none; } }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; font-size: 14px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 0.4rem; } }
@media print { :root { color-scheme: light; --ink: #000000; --paper: #ffffff; --muted: #444444;
  --line: #bbbbbb; --pass: #17692f; --fail: #a3261b; --info: #1d5a8f; --untested: #755200;
  --band: #ffffff; }
  .outcome.fail strong, .status.fail { background: none; color: var(--fail); }
  body { max-width: none; margin: 0; font-size: 11pt; } .scroll { overflow: visible; }
  .light { display: block; } .dark { display: none; }
  table { font-size: 8pt; } th, td { white-space: normal; }
  figure, tr, dl { break-inside: avoid; } h2 { break-after: avoid; } }
"""


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns; the first column is words, the others are numbers.

    Raises:
        InvalidRequestError: If a row has not as many cells as there are columns, or there are
            statuses, but not one for each row.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    statuses: Sequence[Status | None] = ()
    """Of each row, for rows that must not be overlooked; empty where no row has one."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                need = f"{len(self.columns)} columns, but a row of {len(row)}"
                raise InvalidRequestError(f"table {self.caption!r} has {need}")
        if self.statuses and len(self.statuses) != len(self.rows):
            need = f"{len(self.rows)} rows, but {len(self.statuses)} statuses"
            raise InvalidRequestError(f"table {self.caption!r} has {need}")


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    status: Status | None = None
    """Shown as a mark and a word beside the heading."""


def page(
    title: str,
    verdict: str,
    sections: Sequence[Section],
    facts: Mapping[str, str],
    outcome: Outcome | None = None,
) -> str:
    """Write a report as HTML; every text is escaped.

    Args:
        title: The heading.
        verdict: What came out, in a sentence or two; stands first.
        sections: In reading order.
        facts: Hardware, versions, date, command; stands last.
        outcome: What the whole came to, in a word that cannot be overlooked: it begins the title
            of the window, too. None is a report that nothing can fail.
    """
    ids = count(1)
    body = [
        f"<h1>{escape(title)}</h1>",
        _verdict(verdict, outcome),
        *(_section(one, ids) for one in sections),
    ]
    if facts:
        items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
        body.append(f"<h2>Measured on</h2>\n<dl>{items}</dl>")
    named = title if outcome is None else f"{outcome.shown}: {title}"
    return shell(named, _STYLE, "\n".join(body))


def _verdict(text: str, outcome: Outcome | None) -> str:
    said = f'<p class="verdict">{escape(text)}</p>'
    if outcome is None:
        return said
    word = f"<strong>{escape(outcome.shown)}</strong>"
    return f'<div class="outcome {outcome.status}" role="status">{word}\n{said}</div>'


def _section(section: Section, ids: "count[int]") -> str:
    status = section.status
    badge = f'<span class="status {status}">{marked(status)}</span>' if status else ""
    parts = [f"<h2>{escape(section.title)}{badge}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
    parts += [_table(table) for table in section.tables]
    if section.figures:
        drawn = "\n".join(_figure(figure, next(ids)) for figure in section.figures)
        parts.append(f'<div class="figures">\n{drawn}\n</div>')
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    statuses = table.statuses or [None] * len(table.rows)
    rows = "\n".join(map(_row, table.rows, statuses))
    # Focusable, so that the keyboard can scroll it.
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(cells: Sequence[str], status: Status | None) -> str:
    start = f'<tr class="{status}">' if status else "<tr>"
    return start + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _figure(figure: Figure, number: int) -> str:
    drawn = "\n".join(_drawing(figure, theme, number) for theme in ("light", "dark"))
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return f"<figure>\n{drawn}\n{caption}</figure>"


def _drawing(figure: Figure, theme: Theme, number: int) -> str:
    # Ids are the whole page's: two drawings must not share one.
    prefix = f"f{number}{theme[0]}-"
    text = re.sub(r'\bid="', f'id="{prefix}', svg(figure, theme))
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", text)
    label = escape(f"{figure.title}: {figure.y_label} by {figure.x_label}")
    return text.replace("<svg", f'<svg class="{theme}" role="img" aria-label="{label}"', 1)
