"""The tables of a benchmark, for the terminal and for the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from draftsmith.bench.words import cell_name, interval, number, same_text
from draftsmith.report.page import Table

__all__ = ["detail_table", "latency_table", "main_table"]

_SHOWN_RATES = 8


def main_table(cell: Mapping[str, Any]) -> Table:
    """What most want to know of each arm of a cell."""
    columns = (
        "arm",
        "tokens/s",
        "speed-up",
        "alpha",
        "tokens/pass",
        "p50 ms",
        "p90",
        "p99",
        "same text",
    )
    rows = [_main_row(arm) for arm in cell["arms"]]
    return Table(cell_name(cell), columns, rows)


def _main_row(arm: Mapping[str, Any]) -> list[str]:
    if arm["error"] is not None and not arm["num_requests"]:
        return [arm["name"], "failed", *["-"] * 7]
    counts, times = arm["statistics"], arm["time_per_token_ms"] or {}
    return [
        arm["name"],
        number(arm["tokens_per_second"]["decode"], 1),
        interval(arm["speedup"]["decode"]),
        number(counts["alpha"]),
        number(counts["tokens_per_pass"]),
        *(number(times.get(name), 1) for name in ("p50", "p90", "p99")),
        same_text(arm),
    ]


def latency_table(cell: Mapping[str, Any]) -> Table:
    """Whole requests, prompts included."""
    columns = (
        "arm",
        "tokens/s",
        "speed-up",
        "first tokens, ms: p50",
        "p99",
        "a text, ms: mean",
        "deviation",
        "tokens",
    )
    rows: list[list[str]] = []
    for arm in cell["arms"]:
        first, text = arm["first_token_ms"] or {}, arm["time_per_request_ms"] or {}
        row = [arm["name"], number(arm["tokens_per_second"]["request"], 1)]
        row += [interval(arm["speedup"]["request"])]
        row += [number(first.get(name), 1) for name in ("p50", "p99")]
        row += [number(text.get(name), 1) for name in ("mean", "std")]
        rows.append([*row, str(text.get("num_tokens", "-"))])
    return Table("Whole requests, prompts included", columns, rows)


def detail_table(cell: Mapping[str, Any]) -> Table:
    """What speculation did, and where the time of a round went."""
    columns = (
        "arm",
        "alpha (interval)",
        "draft yield",
        "Chen's efficiency",
        "accepted by position",
        "draft, ms a round",
        "target pass",
        "rest",
    )
    rows: list[list[str]] = []
    for arm in cell["arms"]:
        counts, parts = arm["statistics"], arm["parts_ms"] or {}
        found = arm["alpha_interval"] and {"alpha": counts["alpha"], **arm["alpha_interval"]}
        by_position = counts["acceptance_per_position"]
        row = [arm["name"], interval(found, key="alpha"), number(counts["draft_yield"])]
        row += [number(counts["chen_efficiency"])]
        row += [_first_rates(by_position)]
        rows.append([*row, *(number(parts.get(k)) for k in ("draft", "target_pass", "rest"))])
    return Table("Speculation", columns, rows)


def _first_rates(rates: Sequence[float | None]) -> str:
    """As many as a column holds; the plot has them all."""
    shown = [number(rate) for rate in rates[:_SHOWN_RATES]]
    more = ["..."] if len(rates) > _SHOWN_RATES else []
    return " ".join([*shown, *more]) or "-"
