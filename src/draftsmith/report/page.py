"""One self-contained page of a report: no script, no network, readable in light and dark."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from typing import Literal

from draftsmith.errors import InvalidRequestError
from draftsmith.report.figure import Figure
from draftsmith.report.html import shell
from draftsmith.report.plots import Theme, svg

__all__ = ["Section", "Table", "page"]

_STYLE = """
:root { --pass: #17692f; --fail: #a3261b; --info: #1d5a8f; --band: #f5f5f5; }
@media (prefers-color-scheme: dark) { :root { --pass: #7fd695; --fail: #ff9184; --info: #8ec5f2;
  --band: #1e2123; } }
body { max-width: 76rem; }
h1 { margin-bottom: 0.3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 0.4rem; }
p { max-width: 46rem; margin: 0.4rem 0; overflow-wrap: anywhere; }
.verdict { font-size: 1.1rem; border-left: 4px solid var(--info); padding-left: 0.8rem; }
.status { font-size: 0.8rem; font-weight: 600; border: 1px solid; border-radius: 4px;
  padding: 0.05rem 0.45rem; margin-left: 0.5rem; vertical-align: middle; }
.pass { color: var(--pass); } .fail { color: var(--fail); } .info { color: var(--info); }
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
  --line: #bbbbbb; --pass: #17692f; --fail: #a3261b; --info: #1d5a8f; --band: #ffffff; }
  body { max-width: none; margin: 0; font-size: 11pt; } .scroll { overflow: visible; }
  .light { display: block; } .dark { display: none; }
  table { font-size: 8pt; } th, td { white-space: normal; }
  figure, tr, dl { break-inside: avoid; } h2 { break-after: avoid; } }
"""


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns; the first column is words, the others are numbers.

    Raises:
        InvalidRequestError: If a row has not as many cells as there are columns.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                need = f"{len(self.columns)} columns, but a row of {len(row)}"
                raise InvalidRequestError(f"table {self.caption!r} has {need}")


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    status: Literal["pass", "fail", "info"] | None = None
    """Shown as a word beside the heading."""


def page(title: str, verdict: str, sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """Write a report as HTML; every text is escaped.

    Args:
        title: The heading.
        verdict: What came out, in a sentence or two; stands first.
        sections: In reading order.
        facts: Hardware, versions, date, command; stands last.
    """
    ids = count(1)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict">{escape(verdict)}</p>',
        *(_section(one, ids) for one in sections),
    ]
    if facts:
        items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
        body.append(f"<h2>Measured on</h2>\n<dl>{items}</dl>")
    return shell(title, _STYLE, "\n".join(body))


def _section(section: Section, ids: "count[int]") -> str:
    status = section.status
    badge = f'<span class="status {status}">{status}</span>' if status else ""
    parts = [f"<h2>{escape(section.title)}{badge}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
    parts += [_table(table) for table in section.tables]
    if section.figures:
        drawn = "\n".join(_figure(figure, next(ids)) for figure in section.figures)
        parts.append(f'<div class="figures">\n{drawn}\n</div>')
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    # Focusable, so that the keyboard can scroll it.
    return (
        f'<div class="scroll" tabindex="0"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


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
