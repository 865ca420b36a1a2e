"""The plots of a benchmark."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from draftsmith.bench.words import cell_name
from draftsmith.report.figure import Figure, Series

__all__ = ["batch_figures", "cell_figures"]

_Arm = Mapping[str, Any]
_SPREAD = 0.4
"""Of the arms about a position, on an axis with a position a unit."""


def cell_figures(cell: Mapping[str, Any]) -> dict[str, Figure]:
    """The plots of one cell, by short names; a caption names the arms that could not be drawn."""
    arms: Sequence[_Arm] = cell["arms"]
    found = {
        "speedup": _speedup(cell, arms),
        "acceptance": _acceptance(arms),
        "kept": _kept(arms),
        "parts": _parts(arms),
        "text-time": _text_time(arms),
    }
    return {name: figure for name, figure in found.items() if figure.series}


def batch_figures(document: Mapping[str, Any]) -> dict[str, Figure]:
    """Throughput against batch size, where there are several."""
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for cell in document["cells"]:
        groups.setdefault((cell["workload"], cell["temperature"]), []).append(cell)
    found: dict[str, Figure] = {}
    for (workload, temperature), cells in groups.items():
        if len(cells) < 2:
            continue
        names = [arm["name"] for arm in cells[0]["arms"]]
        series = [_throughput(name, index, cells) for index, name in enumerate(names)]
        title = f"Throughput by batch size: {workload}, temperature {temperature:g}"
        found[f"throughput-{workload}-{temperature:g}"] = Figure(
            title, "sequences in the batch", "tokens per second", series
        )
    return found


def _throughput(name: str, index: int, cells: Sequence[Mapping[str, Any]]) -> Series:
    sizes = [cell["batch_size"] for cell in cells]
    arms = [cell["arms"][index] for cell in cells]
    speeds = [arm["tokens_per_second"]["decode"] if _is_run(arm) else None for arm in arms]
    return Series(name, sizes, [math.nan if speed is None else speed for speed in speeds])


def _speedup(cell: Mapping[str, Any], arms: Sequence[_Arm]) -> Figure:
    """Against gamma where a draft has several, else a bar an arm."""
    ranked = [arm for arm in arms[1:] if _is_run(arm) and arm["speedup"]["decode"] is not None]
    title = f"Speed-up: {cell_name(cell)}"
    caption = (
        "Tokens per second of decoding over plain decoding's in the same round: the median of the "
        "rounds, with a 95 % bootstrap interval over prompts."
    )
    caption += _without("No speed-up is known of", arms[1:], ranked)
    fixed = [arm for arm in ranked if arm["gamma"] != "auto"]
    drafts = list(dict.fromkeys(map(_drafted_by, fixed)))
    by_draft = {draft: [arm for arm in fixed if _drafted_by(arm) == draft] for draft in drafts}
    if by_draft and min(map(len, by_draft.values())) >= 3:
        lines = [_against_gamma(draft, some) for draft, some in by_draft.items()]
        last = max(arm["gamma"] for arm in fixed)
        lines += [
            Series(arm["name"], [0, last], [arm["speedup"]["decode"]["median"]] * 2, style="dashed")
            for arm in ranked
            if arm["gamma"] == "auto"
        ]
        return Figure(title, "gamma", "times plain decoding", lines, caption, reference=1)
    names = [arm["name"] for arm in ranked]
    bars = [Series("", range(len(ranked)), *_with_interval(ranked), style="bars")] if ranked else []
    return Figure(title, "", "times plain decoding", bars, caption, names, reference=1)


def _drafted_by(arm: _Arm) -> str:
    """The draft, and its branches where it has some."""
    branches = arm.get("branches", 1)
    return arm["draft"] if branches == 1 else f"{arm['draft']}, {branches} branches"


def _against_gamma(draft: str, arms: Sequence[_Arm]) -> Series:
    some = sorted(arms, key=lambda arm: arm["gamma"])
    return Series(draft, [arm["gamma"] for arm in some], *_with_interval(some))


def _with_interval(arms: Sequence[_Arm]) -> tuple[list[float], list[float], list[float]]:
    """Medians, lower and upper ends; an end that is not known is the median."""
    found = [arm["speedup"]["decode"] for arm in arms]
    middle = [one["median"] for one in found]
    ends = (
        [one[end] if one[end] is not None else one["median"] for one in found]
        for end in ("low", "high")
    )
    low, high = ends
    return middle, low, high


def _acceptance(arms: Sequence[_Arm]) -> Figure:
    """By position, for every arm that had a draft tested."""
    tested = [arm for arm in arms[1:] if _is_run(arm) and _reach(arm)]
    # Side by side, so that equal rates do not hide each other.
    shifts = [_SPREAD * (index / max(1, len(tested) - 1) - 0.5) for index in range(len(tested))]
    series = [
        Series(arm["name"], [place + shift for place in range(_reach(arm))], _rates(arm))
        for arm, shift in zip(tested, shifts, strict=True)
    ]
    caption = (
        "The share of the drafts tested at a position that were kept; a position is tested where "
        "all before it were kept. Arms stand side by side at a position."
    )
    caption += _without("Nothing was drafted by", arms[1:], tested)
    ticks = [str(position) for position in range(1, 1 + max(map(_reach, tested), default=0))]
    title, x_label, y_label = "Acceptance by position", "position in the draft", "kept of tested"
    return Figure(title, x_label, y_label, series, caption, ticks)


def _is_run(arm: _Arm) -> bool:
    return bool(arm["num_requests"])


def _without(why: str, arms: Sequence[_Arm], drawn: Sequence[_Arm]) -> str:
    """A sentence that names the arms that are not drawn; empty if all are."""
    names = {arm["name"] for arm in drawn}
    failed = [arm["name"] for arm in arms if not _is_run(arm)]
    others = [arm["name"] for arm in arms if _is_run(arm) and arm["name"] not in names]
    said = f" {why}: {'; '.join(others)}." if others else ""
    return said + (f" Not run: {'; '.join(failed)}." if failed else "")


def _reach(arm: _Arm) -> int:
    """Positions up to the last that was ever tested."""
    rates = arm["statistics"]["acceptance_per_position"]
    return max((i for i, rate in enumerate(rates, 1) if rate is not None), default=0)


def _rates(arm: _Arm) -> list[float]:
    rates = arm["statistics"]["acceptance_per_position"][: _reach(arm)]
    return [math.nan if rate is None else rate for rate in rates]


def _kept(arms: Sequence[_Arm]) -> Figure:
    """How many drafts a round keeps: stacked shares, an arm a bar."""
    shown = [arm for arm in arms[1:] if _is_run(arm)]
    groups = (
        ("none", 1, 2),
        ("1", 2, 3),
        ("2 or 3", 3, 5),
        ("4 to 7", 5, 9),
        ("8 and more", 9, None),
        ("nothing drafted", 0, 1),
    )
    counts = [_round_counts(arm) for arm in shown]
    series: list[Series] = []
    for label, low, high in groups:
        shares = [sum(one[low:high]) / max(1, sum(one)) for one in counts]
        if any(shares):
            series.append(Series(label, range(len(shares)), shares, style="stacked"))
    caption = "A round that drafted nothing decoded plainly." + _without("", arms[1:], shown)
    names = [arm["name"] for arm in shown]
    return Figure("Drafts kept in a round", "", "share of rounds", series, caption, names)


def _round_counts(arm: _Arm) -> list[int]:
    """Rounds that drafted nothing, that kept none of a draft, that kept 1, 2 and so on."""
    statistics = arm["statistics"]
    idle = statistics["num_rounds"] - statistics["num_drafting_rounds"]
    kept_none, *kept = statistics["accepted_histogram"]
    return [idle, kept_none - idle, *kept]


def _parts(arms: Sequence[_Arm]) -> Figure:
    timed = [arm for arm in arms if _is_run(arm) and arm["parts_ms"] is not None]
    labels = {"draft": "draft", "target_pass": "target pass", "rest": "rest"}
    series: list[Series] = []
    for part, label in labels.items():
        times = [arm["parts_ms"][part] or 0.0 for arm in timed]
        if any(times):
            series.append(Series(label, range(len(timed)), times, style="stacked"))
    caption = "Means over the rounds after the first; the rest is sampling, verdict and commit."
    caption += _without("No round was timed of", arms, timed)
    names = [arm["name"] for arm in timed]
    return Figure("Time of a round", "", "ms", series, caption, names)


def _text_time(arms: Sequence[_Arm]) -> Figure:
    timed = [arm for arm in arms if _is_run(arm) and arm["time_per_request_ms"] is not None]
    found = [arm["time_per_request_ms"] for arm in timed]
    means = [one["mean"] / 1000 for one in found]
    spread = [(one["std"] or 0.0) / 1000 for one in found]
    low = [max(0.0, mean - by) for mean, by in zip(means, spread, strict=True)]
    high = [mean + by for mean, by in zip(means, spread, strict=True)]
    length = max((one["num_tokens"] for one in found), default=0)
    bars = [Series("", range(len(timed)), means, low, high, style="bars")] if timed else []
    caption = (
        "Mean and standard deviation over requests, as in Figure 1 of Chen et al.; a text that "
        "ended sooner is brought to this length at its own speed."
    )
    caption += _without("No text was long enough of", arms, timed)
    names = [arm["name"] for arm in timed]
    return Figure(f"Time of a text of {length} tokens", "", "seconds", bars, caption, names)
