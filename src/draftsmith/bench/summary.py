"""What the batches of one arm come to."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.batch import Batch, Request
from draftsmith.bench.clock import Clock
from draftsmith.bench.resample import bootstrap
from draftsmith.bench.run import CellRun, Track
from draftsmith.bench.speed import Scope, cost_table, speedup, tokens_per_second
from draftsmith.core.statistics import Interval, SpeculationStatistics
from draftsmith.engine.control.contract import Ledger

__all__ = ["summarise"]

_PERCENTILES = (50, 90, 99)
_SCOPES: tuple[Scope, ...] = ("decode", "request")


def summarise(
    run: CellRun, track: Track, *, is_promised: bool, is_synchronous: bool
) -> dict[str, Any]:
    """Everything that is reported of an arm, ready for JSON.

    Args:
        run: The cell, for its plain arm.
        track: The arm.
        is_promised: Whether its texts must be plain decoding's, token for token.
        is_synchronous: Whether a pass of the target is over when it returns (a CPU's).
    """
    batches = list(track.batches.values())
    requests = [request for batch in batches for request in batch.requests]
    counts = _total(requests)
    return {
        "name": track.arm.name,
        "draft": track.arm.draft,
        "gamma": track.arm.gamma,
        "branches": track.arm.branches,
        "error": track.error,
        "num_requests": len(requests),
        "num_tokens": counts.num_committed,
        "tokens_per_second": {
            scope: tokens_per_second(cost_table(track.batches, scope)) for scope in _SCOPES
        },
        "speedup": {scope: _speedup(track, run.plain, scope) for scope in _SCOPES},
        "first_token_ms": _percentiles(1000 * np.array([batch.first_s for batch in batches])),
        "time_per_token_ms": _percentiles(_time_per_token_ms(requests)),
        "time_per_request_ms": _time_per_request_ms(requests),
        "alpha_interval": _alpha_interval(run, track),
        "statistics": counts.to_dict(),
        "parts_ms": _parts_ms(track.clock, is_synchronous=is_synchronous),
        "ledger": _ledger(requests),
        **_identity(run, track, is_promised=is_promised),
        "batches": [_raw(run, batch) for batch in batches],
    }


def _total(requests: Iterable[Request]) -> SpeculationStatistics:
    return sum((one.statistics for one in requests), SpeculationStatistics())


def _speedup(track: Track, plain: Track, scope: Scope) -> dict[str, Any] | None:
    found = speedup(cost_table(track.batches, scope), cost_table(plain.batches, scope))
    if found is None:
        return None
    return {
        "median": found.median,
        **_bounds(found.interval),
        "per_round": list(found.per_round),
    }


def _bounds(interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def _percentiles(values: NDArray[np.float64]) -> dict[str, float] | None:
    if not len(values):
        return None
    found = np.percentile(values, _PERCENTILES)
    named = {f"p{rank}": float(value) for rank, value in zip(_PERCENTILES, found, strict=True)}
    return {**named, "mean": float(values.mean())}


def _time_per_token_ms(requests: Sequence[Request]) -> NDArray[np.float64]:
    """A value a token: its share of the round that brought it."""
    pairs = [pair for request in requests for pair in request.shares]
    seconds = np.array([seconds for seconds, _ in pairs])
    return 1000 * np.repeat(seconds, [count for _, count in pairs])


def _time_per_request_ms(requests: Sequence[Request]) -> dict[str, float | int | None] | None:
    """Mean and spread of the time of a text, as in Figure 1 (left) of Chen et al.

    Texts end where they end; each is brought to the length of the longest, at its own speed.
    """
    done = [one for one in requests if one.num_decode_tokens > 0]
    if not done:
        return None
    length = max(one.num_tokens for one in done)
    times = np.array([1000 * length * one.decode_s / one.num_decode_tokens for one in done])
    spread = float(times.std(ddof=1)) if len(times) > 1 else None
    return {"num_tokens": length, "mean": float(times.mean()), "std": spread, "n": len(times)}


def _alpha_interval(run: CellRun, track: Track) -> dict[str, Any] | None:
    """Of accepted / tested, with prompts drawn anew; where they do not differ, Wilson's."""
    counts = _counts_per_item(run, track)
    tested, accepted = (
        np.array([getattr(one, name) for one in counts], dtype=np.float64)
        for name in ("num_tested", "num_accepted")
    )
    if not tested.sum():
        return None
    rates = accepted[tested > 0] / tested[tested > 0]
    if len(set(rates)) < 2:
        # Where all prompts are alike, drawing them anew would give an interval of no width.
        return {"method": "wilson", **_bounds(_sum(counts).alpha_interval())}

    def alphas(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return accepted[draws].sum(axis=1) / tested[draws].sum(axis=1)

    return {"method": "bootstrap over prompts", **_bounds(bootstrap(len(counts), alphas))}


def _counts_per_item(run: CellRun, track: Track) -> list[SpeculationStatistics]:
    counts = [SpeculationStatistics() for _ in run.item_ids]
    for (_, number), batch in track.batches.items():
        for offset, request in enumerate(batch.requests):
            counts[number * run.cell.batch_size + offset] += request.statistics
    return counts


def _sum(counts: Sequence[SpeculationStatistics]) -> SpeculationStatistics:
    return sum(counts, SpeculationStatistics())


def _parts_ms(clock: Clock, *, is_synchronous: bool) -> dict[str, float | None] | None:
    """Means over rounds; on an accelerator a pass ends when it is read, which is in the rest."""
    if not clock.num_rounds:
        return None
    draft, total = (1000 * s / clock.num_rounds for s in (clock.draft_s, clock.total_s))
    passes = 1000 * clock.pass_s / clock.num_rounds if is_synchronous else None
    return {
        "draft": draft,
        "target_pass": passes,
        "rest": total - draft - (passes or 0.0),
        "round": total,
        "num_rounds": clock.num_rounds,
    }


def _ledger(requests: Iterable[Request]) -> dict[str, Any] | None:
    ledgers = [one.ledger for one in requests if one.ledger is not None]
    return sum(ledgers, Ledger()).to_dict() if ledgers else None


def _identity(run: CellRun, track: Track, *, is_promised: bool) -> dict[str, Any]:
    """Whether every text is plain decoding's of the same round, and where it is not."""
    differences: list[dict[str, Any]] = []
    shared = sorted(track.batches.keys() & run.plain.batches.keys())
    for key in shared:
        pairs = zip(track.batches[key].requests, run.plain.batches[key].requests, strict=True)
        for offset, (ours, plain) in enumerate(pairs):
            if ours.token_ids != plain.token_ids:
                item = run.item_ids[key[1] * run.cell.batch_size + offset]
                position = _first_difference(ours.token_ids, plain.token_ids)
                differences.append({"item": item, "round": key[0], "position": position})
    return {
        "is_identical": not differences if shared else None,
        "is_promised_identical": is_promised,
        "differences": differences,
    }


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _raw(run: CellRun, batch: Batch) -> dict[str, Any]:
    first = batch.number * run.cell.batch_size
    return {
        "round": batch.round,
        "items": run.item_ids[first : first + len(batch.requests)],
        "num_tokens": batch.num_tokens,
        "num_decode_tokens": batch.num_decode_tokens,
        "first_s": batch.first_s,
        "decode_s": batch.decode_s,
        "wall_s": batch.wall_s,
    }
