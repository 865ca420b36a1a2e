"""Two benchmarks side by side: aligned arms, and what changed around them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from draftsmith.bench.speed import Cost, Speedup, speedup
from draftsmith.bench.words import number
from draftsmith.errors import InvalidRequestError
from draftsmith.report.page import Table

__all__ = ["Comparison", "compare"]

_MACHINE = ("cpu", "num_cpus", "gpu", "system")
_ENVIRONMENT = (*_MACHINE, "num_threads", "memory_bytes", "python", "commit", "is_clean")
_NOT_COMPARED = ("drafts", "gammas", "branches", "workloads", "temperatures", "batch_sizes")
"""Settings that the arms and cells show."""


@dataclass(frozen=True)
class Pair:
    """One arm that both documents have."""

    cell: str
    arm: str
    before: float | None
    """Tokens per second of decoding in A."""
    after: float | None
    ratio: Speedup | None
    """B over A, over the prompts that both ran."""
    gain_before: float | None
    """Speed-up over plain decoding in A."""
    gain_after: float | None


@dataclass(frozen=True)
class Comparison:
    """What came of comparing B with A."""

    pairs: list[Pair]
    only_in_a: list[str]
    only_in_b: list[str]
    changes: dict[str, tuple[Any, Any]]
    """Of the environment and the settings: name to (A, B)."""
    warnings: list[str]

    def table(self) -> Table:
        """A row for each aligned arm."""
        columns = ("cell", "arm", "A tokens/s", "B tokens/s", "B/A", "A speed-up", "B speed-up")
        rows = [
            [
                one.cell,
                one.arm,
                number(one.before, 1),
                number(one.after, 1),
                _ratio(one.ratio),
                number(one.gain_before),
                number(one.gain_after),
            ]
            for one in self.pairs
        ]
        return Table("B beside A", columns, rows)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Align two documents.

    Args:
        a: What was before.
        b: What is compared with it.

    Raises:
        InvalidRequestError: If they have no arm in common.
    """
    ours, theirs = dict(_arms(a)), dict(_arms(b))
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise InvalidRequestError(
            "the two documents have no arm in common: measure the same workloads, drafts and gammas"
        )
    changes = _changes(a, b)
    return Comparison(
        pairs=[_pair(key, ours[key], theirs[key]) for key in shared],
        only_in_a=[", ".join(key) for key in ours if key not in theirs],
        only_in_b=[", ".join(key) for key in theirs if key not in ours],
        changes=changes,
        warnings=_warnings(a, b, changes),
    )


def _arms(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    for cell in document["cells"]:
        place = f"{cell['workload']}, temperature {cell['temperature']:g}"
        for arm in cell["arms"]:
            yield (f"{place}, batch {cell['batch_size']}", arm["name"]), arm


def _pair(key: tuple[str, str], a: Mapping[str, Any], b: Mapping[str, Any]) -> Pair:
    gains = [one["speedup"]["decode"] for one in (a, b)]
    return Pair(
        *key,
        a["tokens_per_second"]["decode"],
        b["tokens_per_second"]["decode"],
        # One pseudo-round: the rounds of two runs have nothing to do with each other.
        speedup(*_shared_costs(a, b)),
        *(None if gain is None else gain["median"] for gain in gains),
    )


def _shared_costs(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> tuple[dict[tuple[int, int], Cost], dict[tuple[int, int], Cost]]:
    """(B's, A's) tokens and seconds over all rounds, by the batches that both have."""
    theirs, ours = _by_items(b), _by_items(a)
    shared = [items for items in theirs if items in ours]
    numbered = list(enumerate(shared))
    return (
        {(0, number): theirs[items] for number, items in numbered},
        {(0, number): ours[items] for number, items in numbered},
    )


def _by_items(arm: Mapping[str, Any]) -> dict[tuple[str, ...], Cost]:
    costs: dict[tuple[str, ...], Cost] = {}
    for batch in arm["batches"]:
        before = costs.get(tuple(batch["items"]), Cost(0, 0.0))
        costs[tuple(batch["items"])] = Cost(
            before.num_tokens + batch["num_decode_tokens"], before.seconds + batch["decode_s"]
        )
    return costs


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    before, after = a["environment"], b["environment"]
    pairs = {name: (before.get(name), after.get(name)) for name in _ENVIRONMENT}
    for name in {**before["versions"], **after["versions"]}:
        pairs[name] = (before["versions"].get(name), after["versions"].get(name))
    for name in {**a["settings"], **b["settings"]}:
        if name not in _NOT_COMPARED:
            pairs[name] = (a["settings"].get(name), b["settings"].get(name))
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _warnings(
    a: Mapping[str, Any], b: Mapping[str, Any], changes: Mapping[str, tuple[Any, Any]]
) -> list[str]:
    said: list[str] = []
    if any(name in changes for name in _MACHINE):
        said.append(
            "The machines differ: compare the speed-ups over plain decoding, not tokens per second."
        )
    if "target" in changes:
        said.append("The targets differ: the two measure different models.")
    for name, document in (("A", a), ("B", b)):
        if not document["is_complete"]:
            said.append(f"{name} was not finished.")
    return said


def _ratio(found: Speedup | None) -> str:
    if found is None:
        return "-"
    if found.interval is None:
        return number(found.median)
    low, high = found.interval
    return f"{found.median:.2f} ({low:.2f} to {high:.2f})"
