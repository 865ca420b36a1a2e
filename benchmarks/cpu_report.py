"""The goals of the CPU benchmark, read off its JSON, and a table of them."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.cpu_passes import OTHER

_HOT = "temperature_0.8"
_COLD = "temperature_0"


class Goal(NamedTuple):
    """One line of the report."""

    name: str
    value: float
    goal: float
    at_least: bool
    detail: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the value is on the right side of the goal."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def goals(parts: dict[str, Any]) -> list[Goal]:
    """Every goal whose part was measured."""
    makers: dict[str, Callable[[dict[str, Any]], Iterator[Goal]]] = {
        "rows": _row_goals,
        "decode": _decode_goals,
        "prompt": _prompt_goals,
        "memory": _memory_goals,
    }
    return [goal for name, make in makers.items() if name in parts for goal in make(parts)]


def show(parts: dict[str, Any], reached: list[Goal]) -> None:
    """Print the decode speeds and the goals."""
    console = Console(width=120)
    for result in parts.get("decode", []):
        for workload, measured in result["workloads"].items():
            for temperature in (_COLD, _HOT):
                console.print(_speeds(result["target"], workload, temperature, measured))
    table = Table(title="goals", title_justify="left")
    for heading in ("what", "measured", "goal", "met", "detail"):
        table.add_column(heading)
    for goal in reached:
        sign = ">=" if goal.at_least else "<="
        met = "yes" if goal.is_met else "no"
        table.add_row(goal.name, f"{goal.value:.3f}", f"{sign} {goal.goal:g}", met, goal.detail)
    console.print(table)


def _row_goals(parts: dict[str, Any]) -> Iterator[Goal]:
    bandwidth = parts.get("bandwidth", {}).get("gb_per_s")
    for result in parts["rows"]:
        name, ours = result["model"], result["systems"]["ours"]
        peer = result["systems"]["llama.cpp"]
        for width, limit in ((4, 1.25), (8, 1.7)):
            if str(width) in ours["over_one_row"]:
                detail = ", ".join(
                    f"{system} {curve['over_one_row'][str(width)]:.2f}"
                    for system, curve in result["systems"].items()
                    if system != "ours"
                )
                value = ours["over_one_row"][str(width)]
                yield Goal(f"T({width})/T(1) {name}", value, limit, False, detail)
        for system in ("llama.cpp", OTHER):
            if system in result["systems"]:
                times = [result["systems"][s]["seconds"]["1"]["median"] for s in (system, "ours")]
                detail = f"{times[0] * 1000:.1f} ms / {times[1] * 1000:.1f} ms"
                yield Goal(f"T(1) {system}/ours {name}", times[0] / times[1], 1.0, True, detail)
        if bandwidth:
            speed, other = ours["gb_per_s"]["1"], peer["gb_per_s"]["1"]
            detail = f"{speed:.1f} of {bandwidth:.1f} GB/s; llama.cpp {other:.1f}"
            yield Goal(f"GB/s of one row {name}", speed / bandwidth, 0.75, True, detail)


def _decode_goals(parts: dict[str, Any]) -> Iterator[Goal]:
    for result in parts["decode"]:
        for workload, measured in result["workloads"].items():
            if workload == "humaneval":
                yield _plain(result["target"], measured[_COLD])
            kind, goal = {"humaneval": ("", 1.3), "editing": ("lookup", 2.0)}[workload]
            for temperature, limit in ((_COLD, goal), (_HOT, 0.85 * goal)):
                name = f"{workload} {temperature.replace('_', ' ')} {result['target']}"
                yield _speculation(name, measured[temperature], kind, limit)


def _plain(target: str, measured: dict[str, Any]) -> Goal:
    line = _lines(measured, "ours", "plain")[0]
    ratio = line["over_llama.cpp_plain"]
    return Goal(f"plain ours/llama.cpp {target}", ratio["median"], 1.0, True, _range(ratio))


def _speculation(name: str, measured: dict[str, Any], kind: str, limit: float) -> Goal:
    """Our fastest (of a kind) over llama.cpp's fastest of any kind."""
    lines = _lines(measured, "ours", kind)
    best = max(lines, key=lambda line: line["pooled_decode_tokens_per_s"])
    ratio = best["over_best_llamacpp"]
    detail = f"{best['config']} / {measured['best_llamacpp']} {_range(ratio)}"
    return Goal(f"speculation {name}", ratio["median"], limit, True, detail)


def _prompt_goals(parts: dict[str, Any]) -> Iterator[Goal]:
    for result in parts["prompt"]:
        for length, ratio in result["ours_over_llamacpp"].items():
            name = f"prompt of {length} {result['model']}"
            speed = result["systems"]["llama.cpp"][length]["median"]
            detail = f"llama.cpp {speed:.0f} tokens/s {_range(ratio)}"
            yield Goal(name, ratio["median"], 0.8, True, detail)
            if OTHER in result["systems"]:
                speeds = [result["systems"][s][length]["median"] for s in ("ours", OTHER)]
                detail = f"{OTHER} {speeds[1]:.0f} tokens/s"
                yield Goal(f"{name}, other build", speeds[0] / speeds[1], 0.8, True, detail)


def _memory_goals(parts: dict[str, Any]) -> Iterator[Goal]:
    for result in parts["memory"]:
        shares = result["peak_over_file_and_cache"]
        peak = result["peak_bytes"]["ours"] / 1e6
        base = max(run["base_bytes"] for run in result["runs"]["ours"]) / 1e6
        detail = f"{peak:.0f} MB ({base:.0f} of imports); llama.cpp {shares['llama.cpp']:.2f}"
        yield Goal(f"memory {result['model']}", shares["ours"], 1.2, False, detail)


def _speeds(target: str, workload: str, temperature: str, measured: dict[str, Any]) -> Table:
    title = f"{target}, {workload}, {temperature.replace('_', ' ')}: new tokens/s"
    table = Table(title=title, title_justify="left")
    for heading in (
        "system",
        "configuration",
        "median",
        "p10-p90",
        "kept",
        "own plain text",
        "x best",
    ):
        table.add_column(heading)
    for line in measured[temperature]["configurations"]:
        speed = line["decode_tokens_per_s"]
        kept = "" if line["draft_yield"] is None else f"{line['draft_yield']:.2f}"
        table.add_row(
            line["system"],
            line["config"],
            f"{speed['median']:.2f}",
            f"{speed['p10']:.2f}-{speed['p90']:.2f}",
            kept,
            f"{line['num_same_as_own_plain']}/{speed['n']}",
            f"{line['over_best_llamacpp']['median']:.2f}",
        )
    return table


def _lines(measured: dict[str, Any], system: str, kind: str) -> list[dict[str, Any]]:
    """Lines of a system, of one kind or (if empty) of all but plain decoding."""
    mine = [line for line in measured["configurations"] if line["system"] == system]
    return [one for one in mine if one["kind"] == kind or (not kind and one["kind"] != "plain")]


def _range(ratio: dict[str, Any]) -> str:
    return f"(p10 {ratio['p10']:.2f}, p90 {ratio['p90']:.2f}, n {ratio['n']})"
