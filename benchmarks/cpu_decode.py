"""Decoding, plain and speculative, ours beside llama.cpp's, on the same tokens of the same prompts.

First a sweep over all configurations on one prompt, which only selects; then the fastest of
each kind are measured, in turn for every prompt, over several rounds.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import humaneval_prompts
from benchmarks.editing import EDITS, edit_messages
from benchmarks.llamacpp import Peer, PeerConfig, peer_configs
from benchmarks.ours import OurConfig, Ours, gguf_path, our_configs
from benchmarks.summaries import settle, spread
from draftsmith import SamplingParams

HOT = 0.8
Config = OurConfig | PeerConfig


@dataclass(frozen=True)
class Task:
    """One prompt."""

    name: str
    ids: tuple[int, ...]
    max_tokens: int
    ignore_eos: bool


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    threads: int
    rounds: int
    num_prompts: int
    new_tokens: int
    edit_tokens: int
    num_edits: int
    sweep_tokens: int


def workloads(draft: str | None) -> tuple[str, ...]:
    """Of a target with this draft; one without is too small to edit a file as it is asked."""
    return ("humaneval",) if draft is None else ("humaneval", "editing")


def measure_workload(target: str, draft: str | None, workload: str, plan: Plan) -> dict[str, Any]:
    """One workload of one target."""
    ours = Ours(target, draft, threads=plan.threads)
    path = gguf_path(target)
    tasks = _tasks(ours, workload, plan)
    peers = peer_configs(gguf_path(draft) if draft else None)
    mine = our_configs(has_draft=draft is not None)
    sweep = _sweep(ours, path, tasks, [*mine, *peers], plan)
    finals = [*_finalists(mine, sweep["ours"]), *_finalists(peers, sweep["llama.cpp"])]
    if workload == "editing":
        finals = _without_slow_kinds(finals, sweep["llama.cpp"])
    cold = _measure(ours, path, tasks, finals, 0.0, plan.rounds, plan.threads)
    few = tasks[: max(2, len(tasks) // 2)]
    hot = _measure(ours, path, few, _hot(finals), HOT, max(1, plan.rounds // 2), plan.threads)
    return {
        "tasks": [(task.name, len(task.ids), task.max_tokens) for task in tasks],
        "sweep_tokens_per_second": sweep,
        "temperature_0": cold,
        f"temperature_{HOT}": hot,
    }


def _tasks(ours: Ours, workload: str, plan: Plan) -> list[Task]:
    if workload == "humaneval":
        return [
            Task(f"humaneval {index}", tuple(ours.encode(prompt)), plan.new_tokens, ignore_eos=True)
            for index, prompt in enumerate(humaneval_prompts(plan.num_prompts))
        ]
    return [
        Task(
            edit.name,
            tuple(ours.encode([dict(turn) for turn in edit_messages(edit)])),
            plan.edit_tokens,
            ignore_eos=False,
        )
        for edit in EDITS[: plan.num_edits]
    ]


def _sweep(
    ours: Ours, path: Path, tasks: list[Task], configs: list[Config], plan: Plan
) -> dict[str, dict[str, float]]:
    """Decode speed of each configuration on the first prompt, one after another."""
    few = [replace(task, max_tokens=min(task.max_tokens, plan.sweep_tokens)) for task in tasks]
    few = few[:1]
    speeds: dict[str, dict[str, float]] = {"ours": {}, "llama.cpp": {}}
    for config in configs:
        with ExitStack() as stack:
            runner = _Runner(ours, path, config, plan.threads, stack)
            runner.warm_up(few[0])
            records = [runner.run(task, 0.0, 0) for task in few]
        system = records[0]["system"]
        speeds[system][config.name] = round(_pooled(records), 3)
    return speeds


def _finalists(configs: Sequence[Config], speeds: dict[str, float]) -> list[Config]:
    """Plain, the fastest with a draft model and the fastest without one."""
    kinds: dict[str, Config] = {}
    for config in sorted(configs, key=lambda one: speeds[one.name]):
        kinds[_kind(config)] = config
    return [kinds[kind] for kind in ("plain", "draft", "lookup") if kind in kinds]


def _without_slow_kinds(finals: list[Config], peer_speeds: dict[str, float]) -> list[Config]:
    """Ours without the draft model; of llama.cpp's speculations only the fastest."""
    mine = [one for one in finals if isinstance(one, OurConfig) and one.draft != "model"]
    theirs = [one for one in finals if isinstance(one, PeerConfig)]
    best = max(theirs[1:], key=lambda one: peer_speeds[one.name])
    return [*mine, theirs[0], best]


def _hot(finals: list[Config]) -> list[Config]:
    """The same, and llama.cpp's rejection sampling, which it has for draft models only."""
    more = [
        replace(
            one, name=f"{one.name}, probabilistic", settings={**one.settings, "probabilistic": True}
        )
        for one in finals
        if isinstance(one, PeerConfig) and one.draft_path is not None
    ]
    return [*finals, *more]


def _measure(
    ours: Ours,
    path: Path,
    tasks: list[Task],
    configs: list[Config],
    temperature: float,
    rounds: int,
    threads: int,
) -> dict[str, Any]:
    """All configurations, in turn for every prompt, over several rounds."""
    records: list[dict[str, Any]] = []
    with ExitStack() as stack:
        runners = [_Runner(ours, path, config, threads, stack) for config in configs]
        for runner in runners:
            runner.warm_up(tasks[0])
        turn = 0
        for number in range(rounds):
            for task in tasks:
                # The order turns, so that none always runs first.
                for index in range(len(runners)):
                    runner = runners[(turn + index) % len(runners)]
                    settle()
                    record = runner.run(task, temperature, seed=turn)
                    records.append({"round": number, "turn": turn, **record})
                turn += 1
    return _summary(records)


class _Runner:
    """One configuration, ready to run."""

    def __init__(
        self, ours: Ours, path: Path, config: Config, threads: int, stack: ExitStack
    ) -> None:
        self._ours = ours
        self._config = config
        self._peer: Peer | None = None
        if isinstance(config, PeerConfig):
            self._peer = stack.enter_context(Peer(path, config, threads=threads))

    def warm_up(self, task: Task) -> None:
        """A short request."""
        short = replace(task, ids=task.ids[:32], max_tokens=16, ignore_eos=True)
        self.run(short, 0.0, 0)

    def run(self, task: Task, temperature: float, seed: int) -> dict[str, Any]:
        """Generate once; a record of the times and counts."""
        record = {"task": task.name, "config": self._config.name, "kind": _kind(self._config)}
        if self._peer is None:
            return {**record, "system": "ours", **self._run_ours(task, temperature, seed)}
        return {**record, "system": "llama.cpp", **self._run_peer(task, temperature, seed)}

    def _run_ours(self, task: Task, temperature: float, seed: int) -> dict[str, Any]:
        assert isinstance(self._config, OurConfig)
        params = SamplingParams(
            max_tokens=task.max_tokens,
            temperature=temperature,
            seed=seed,
            ignore_eos=task.ignore_eos,
        )
        done = self._ours.complete(task.ids, self._config, params)
        return {
            "num_tokens": len(done.token_ids),
            "num_decoded": len(done.token_ids) - done.num_first_tokens,
            "decode_s": done.decode_s,
            "wall_s": done.wall_s,
            "num_drafted": done.num_drafted,
            "num_accepted": done.num_accepted,
            "output": list(done.token_ids),
            "text": done.text,
        }

    def _run_peer(self, task: Task, temperature: float, seed: int) -> dict[str, Any]:
        assert self._peer is not None
        done = self._peer.complete(
            task.ids,
            max_tokens=task.max_tokens,
            temperature=temperature,
            seed=seed,
            ignore_eos=task.ignore_eos,
        )
        return {
            "num_tokens": done.num_tokens,
            "num_decoded": done.num_tokens - 1,
            "decode_s": done.decode_s,
            "wall_s": done.wall_s,
            "not_in_timings_s": done.wall_s - done.prompt_s - done.decode_s,
            "num_drafted": done.num_drafted,
            "num_accepted": done.num_accepted,
            "output": done.text,
            "text": done.text,
        }


def _summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Speeds, ratios and whether the texts agree."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["system"], record["config"]), []).append(record)
    outputs = {
        (system, record["turn"]): record["output"]
        for (system, _), group in groups.items()
        for record in group
        if record["kind"] == "plain"
    }
    texts = {r["turn"]: r["text"] for r in records if (r["system"], r["kind"]) == ("ours", "plain")}
    lines = [_line(system, group, outputs, texts) for (system, _), group in groups.items()]
    best = _fastest(lines, "llama.cpp")
    for line in lines:
        line["over_best_llamacpp"] = _ratio(groups, line, best)
        for system in ("ours", "llama.cpp"):
            plain = next(one for one in lines if (one["system"], one["kind"]) == (system, "plain"))
            line[f"over_{system}_plain"] = _ratio(groups, line, plain)
    for record in records:
        del record["output"], record["text"]
    return {
        "configurations": lines,
        "best_llamacpp": best["config"],
        "best_ours": _fastest(lines, "ours")["config"],
        "records": records,
    }


def _line(
    system: str,
    group: list[dict[str, Any]],
    outputs: dict[tuple[str, int], Any],
    texts: dict[int, str],
) -> dict[str, Any]:
    drafted = sum(record["num_drafted"] for record in group)
    accepted = sum(record["num_accepted"] for record in group)
    return {
        "system": system,
        "config": group[0]["config"],
        "kind": group[0]["kind"],
        "decode_tokens_per_s": spread([r["num_decoded"] / r["decode_s"] for r in group]),
        "pooled_decode_tokens_per_s": round(_pooled(group), 3),
        "end_to_end_tokens_per_s": spread([r["num_tokens"] / r["wall_s"] for r in group]),
        "num_tokens": [record["num_tokens"] for record in group],
        "num_drafted": drafted,
        "num_accepted": accepted,
        "draft_yield": round(accepted / drafted, 4) if drafted else None,
        "num_same_as_own_plain": sum(r["output"] == outputs[system, r["turn"]] for r in group),
        "num_same_text_as_our_plain": sum(r["text"] == texts[r["turn"]] for r in group),
    }


def _ratio(
    groups: dict[tuple[str, str], list[dict[str, Any]]], one: dict[str, Any], two: dict[str, Any]
) -> dict[str, Any]:
    """Decode speeds of two configurations, request by request."""
    pair = [
        [r["num_decoded"] / r["decode_s"] for r in groups[line["system"], line["config"]]]
        for line in (one, two)
    ]
    return spread([a / b for a, b in zip(*pair, strict=True)])


def _fastest(lines: list[dict[str, Any]], system: str) -> dict[str, Any]:
    mine = [line for line in lines if line["system"] == system]
    return max(mine, key=lambda line: line["pooled_decode_tokens_per_s"])


def _pooled(records: list[dict[str, Any]]) -> float:
    """All tokens over all seconds."""
    return sum(r["num_decoded"] for r in records) / sum(r["decode_s"] for r in records)


def _kind(config: Config) -> str:
    if isinstance(config, OurConfig):
        return {None: "plain", "model": "draft"}.get(config.draft, "lookup")
    if config.draft_path is not None:
        return "draft"
    return "plain" if config.speculation == "none" else "lookup"
