"""The page of a benchmark."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from draftsmith.bench.figures import batch_figures, cell_figures
from draftsmith.bench.tables import detail_table, latency_table, main_table
from draftsmith.bench.words import broken_arms, cell_name, verdict
from draftsmith.report.document import facts
from draftsmith.report.page import Section, page
from draftsmith.report.plots import save
from draftsmith.report.status import Outcome

__all__ = ["as_page", "save_plots"]

_HOW = (
    "Plain decoding runs in the same rounds, batch by batch, the order of the arms turning. "
    "tokens/s is of decoding: from the first round's tokens to the last token. The speed-up is the "
    "median over rounds of the ratio to plain decoding in the same round, with a 95 % bootstrap "
    "interval over prompts. p50, p90 and p99 are of the time per token in ms: each token has an "
    "equal share of the round that brought it."
)


def as_page(document: Mapping[str, Any]) -> str:
    """The report as HTML."""
    sections = [_cell_section(cell) for cell in document["cells"]]
    throughput = list(batch_figures(document).values())
    if throughput:
        sections.insert(0, Section("Batches", figures=throughput))
    sections.insert(0, Section("How it was measured", [_HOW, _settings(document)]))
    target = document["settings"]["target"]
    shown = facts(document["environment"], document["command"])
    title = f"draftsmith bench: {target}"
    return page(title, verdict(document), sections, shown, _outcome(document))


def save_plots(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every plot as SVG and as PNG; return the files."""
    figures = dict(batch_figures(document))
    for cell in document["cells"]:
        name = f"{cell['workload']}-{cell['temperature']:g}-{cell['batch_size']}"
        figures |= {f"{kind}-{name}": figure for kind, figure in cell_figures(cell).items()}
    paths = [folder / f"{name}{end}" for name in figures for end in (".svg", ".png")]
    for path in paths:
        save(figures[path.name.removesuffix(path.suffix)], path)
    return paths


def _cell_section(cell: Mapping[str, Any]) -> Section:
    decoding = replace(main_table(cell), caption="Decoding")
    tables = [decoding, latency_table(cell), detail_table(cell)]
    notes = [f"{arm['name']} failed: {arm['error']}" for arm in cell["arms"] if arm["error"]]
    if cell["is_flattened"]:
        notes.append("The model has no chat template: conversations were written as plain text.")
    if not cell["is_complete"] and not notes:
        notes.append("This part was not finished.")
    failed = broken_arms({"cells": [cell]}) or any(arm["error"] for arm in cell["arms"])
    status = "fail" if failed else "pass" if cell["is_complete"] else "info"
    figures = list(cell_figures(cell).values())
    return Section(cell_name(cell), notes, tables, figures, status)


def _outcome(document: Mapping[str, Any]) -> Outcome | None:
    """A benchmark is no test, but a broken promise or an arm without numbers must be seen."""
    if broken_arms(document):
        return Outcome("fail", "OTHER TEXTS THAN PLAIN DECODING'S")
    if any(arm["error"] for cell in document["cells"] for arm in cell["arms"]):
        return Outcome("fail", "ARMS FAILED")
    return None if document["is_complete"] else Outcome("info", "NOT FINISHED")


def _settings(document: Mapping[str, Any]) -> str:
    settings = document["settings"]
    named = (f"{name.replace('_', ' ')} {_shown(value)}" for name, value in settings.items())
    return "Settings: " + "; ".join(named) + "."


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast(list[object], value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "default" if value is None else str(value)
