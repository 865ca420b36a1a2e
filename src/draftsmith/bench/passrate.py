"""Pass rates with and without speculation, as in Table 1 of Chen et al. (arXiv:2302.01318)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from draftsmith.bench.programs import Program, PromptStyle, as_program
from draftsmith.bench.resample import bootstrap
from draftsmith.bench.run import CellRun, Track
from draftsmith.bench.sandbox import Limits, Outcome, isolation, run_program
from draftsmith.bench.speed import cost_table, speedup, tokens_per_second
from draftsmith.bench.words import interval, number
from draftsmith.core.statistics import Interval, wilson_interval
from draftsmith.report.page import Table
from draftsmith.workloads import Problem

__all__ = ["SCHEMA", "VERSION", "pass_rates", "pass_table"]

SCHEMA = "draftsmith.passrate"
VERSION = 1
Judge = Callable[[Program], Outcome]
"""Runs a program."""


def pass_rates(
    run: CellRun,
    problems: Sequence[Problem],
    style: PromptStyle,
    limits: Limits,
    on_program: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run every program of every arm, and count.

    Args:
        run: One cell over the problems, in this order; a round is a sample of each.
        problems: What was asked.
        style: How.
        limits: Of each program.
        on_program: Called before each text; equal programs are run once.

    Returns:
        The arms with pass@1, its interval, and ms per token, ready for JSON; `is_judged` is
        False if the user stopped it, and what was judged until then is counted.
    """
    judged: dict[Program, Outcome] = {}

    def judge(program: Program) -> Outcome:
        on_program()
        if program not in judged:
            judged[program] = run_program(program, limits)
        return judged[program]

    outcomes: list[Outcomes] = [[[] for _ in problems] for _ in run.tracks]
    is_judged = True
    try:
        for track, found in zip(run.tracks, outcomes, strict=True):
            _judge_texts(run, track, problems, style, judge, found)
    except KeyboardInterrupt:
        is_judged = False
    return {
        "is_isolated": all(isolation().values()),
        "isolation": dict(isolation()),
        "is_judged": is_judged,
        "arms": [
            _arm(run, track, mine, outcomes[0])
            for track, mine in zip(run.tracks, outcomes, strict=True)
        ],
    }


def pass_table(document: Mapping[str, Any]) -> Table:
    """Table 1 of Chen et al., with intervals."""
    columns = ("arm", "pass@1", "less plain's", "samples", "ms/token", "speed-up", "same text")
    rows: list[list[str]] = []
    for arm in document["arms"]:
        rate, difference = arm["pass_at_1"], arm["difference"]
        same = f"{arm['num_identical']} of {arm['num_compared']}"
        row = [arm["name"], interval(rate, 3, key="rate"), interval(difference, 3, key="mean")]
        row += [str(arm["num_samples"]), number(arm["ms_per_token"], 2)]
        rows.append([*row, interval(arm["speedup"]), same])
    return Table("HumanEval", columns, rows)


Outcomes = list[list[Outcome]]
"""Of each problem, the samples."""


def _judge_texts(
    run: CellRun,
    track: Track,
    problems: Sequence[Problem],
    style: PromptStyle,
    judge: Judge,
    found: Outcomes,
) -> None:
    """Add the outcomes of an arm to `found` as they come."""
    for (_, number_), batch in sorted(track.batches.items()):
        for offset, request in enumerate(batch.requests):
            index = number_ * run.cell.batch_size + offset
            found[index].append(judge(as_program(problems[index], request.text, style)))


def _arm(run: CellRun, track: Track, ours: Outcomes, plain: Outcomes) -> dict[str, Any]:
    decode, base = cost_table(track.batches, "decode"), cost_table(run.plain.batches, "decode")
    speed, gain = tokens_per_second(decode), speedup(decode, base)
    identical, compared = _same_texts(track, run.plain)
    bounds = gain.interval if gain is not None else None
    return {
        "name": track.arm.name,
        "draft": track.arm.draft,
        "gamma": track.arm.gamma,
        "branches": track.arm.branches,
        "error": track.error,
        "num_samples": sum(map(len, ours)),
        "pass_at_1": _pass_at_1(ours),
        "difference": _difference(ours, plain) if not track.arm.is_plain else None,
        "outcomes": dict(Counter(one.value for samples in ours for one in samples)),
        "ms_per_token": None if speed is None else 1000 / speed,
        "speedup": None if gain is None else {"median": gain.median, **_bounds(bounds)},
        "num_identical": identical,
        "num_compared": compared,
        "per_problem": {
            item: [one.value for one in samples]
            for item, samples in zip(run.item_ids, ours, strict=True)
        },
    }


def _pass_at_1(outcomes: Outcomes) -> dict[str, Any] | None:
    """Mean over problems of the share of samples that pass; problems are what was drawn."""
    shares = _shares(outcomes)
    if not len(shares):
        return None
    rate = float(shares.mean())
    num_samples = max(map(len, outcomes))
    found, method = None, "bootstrap over problems"
    if num_samples > 1 and len(set(shares)) > 1:
        found = bootstrap(len(shares), lambda draws: shares[draws].mean(axis=1))
    if found is None:
        # One sample a problem is a coin each; and all alike would give an interval of no width.
        method = "wilson over problems"
        found = wilson_interval(round(float(shares.sum())), len(shares))
    return {"rate": rate, **_bounds(found), "method": method, "num_problems": len(shares)}


def _difference(ours: Outcomes, plain: Outcomes) -> dict[str, Any] | None:
    """Our pass@1 less plain decoding's, problem by problem."""
    both = [i for i, pair in enumerate(zip(ours, plain, strict=True)) if all(pair)]
    if not both:
        return None
    mine, base = (_shares([some[i] for i in both]) for some in (ours, plain))
    gaps = mine - base
    found = bootstrap(len(gaps), lambda draws: gaps[draws].mean(axis=1))
    return {"mean": float(gaps.mean()), **_bounds(found)}


def _shares(outcomes: Outcomes) -> NDArray[np.float64]:
    """Of each problem that was tried, the share of samples that passed."""
    tried = [samples for samples in outcomes if samples]
    return np.array([samples.count(Outcome.PASSED) / len(samples) for samples in tried])


def _bounds(found: Interval | None) -> dict[str, float | None]:
    low, high = found or (None, None)
    return {"low": low, "high": high}


def _same_texts(track: Track, plain: Track) -> tuple[int, int]:
    pairs = [
        (ours.token_ids, theirs.token_ids)
        for key in track.batches.keys() & plain.batches.keys()
        for ours, theirs in zip(
            track.batches[key].requests, plain.batches[key].requests, strict=True
        )
    ]
    return sum(one == other for one, other in pairs), len(pairs)
