"""A plan as a document, a table and a page."""

from collections.abc import Mapping
from typing import Any

from draftsmith.bench.plan import DraftPlan, Plan
from draftsmith.bench.predict import Prediction
from draftsmith.bench.words import interval, number
from draftsmith.core.statistics import Interval
from draftsmith.report.document import environment, facts
from draftsmith.report.figure import Figure, Series
from draftsmith.report.page import Section, Table, page

__all__ = ["as_document", "as_page", "table"]

_SCHEMA = 1
_FEW, _SHOWN = 10, 8
"""Tests that a plotted rate has at least; positions that are plotted."""
_HOW = (
    "The target wrote a text for every prompt, plainly. Each drafter was then asked for a guess at "
    "every position of these texts; right or wrong there is what the rounds of a run would have "
    "met. Overlap is the sum over ids of the smaller of the two laws' probabilities, averaged over "
    "positions (Leviathan et al., corollary 3.6), with a 95 % bootstrap interval over texts. Costs "
    "are medians of real rounds over 1 to 32 rows. The speed-up is of decoding, without prompts; "
    "its interval draws the prompts anew. The batch size takes all sequences to be alike."
)


def as_document(found: Plan, settings: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Everything that was measured and predicted, ready for JSON."""
    return {
        "kind": "draftsmith plan",
        "schema": _SCHEMA,
        "command": command,
        "environment": environment(),
        "settings": dict(settings),
        "verdict": found.verdict,
        "pays": found.best is not None,
        "target": found.target,
        "num_texts": found.num_texts,
        "num_tokens": found.num_tokens,
        "check": found.costs.check.to_dict(),
        "passes": found.costs.passes.to_dict(),
        "drafts": [_draft(draft) for draft in found.drafts],
    }


def table(found: Plan) -> Table:
    """One row for each drafter."""
    columns = (
        "drafter", "overlap", "guesses", "cost ratio", "best gamma", "tokens/pass",
        "speed-up", "measured", "pays up to",
    )  # fmt: skip
    return Table(
        f"{found.target}: what each drafter brings", columns, list(map(_row, found.drafts))
    )


def as_page(found: Plan, document: Mapping[str, Any]) -> str:
    """The report as HTML."""
    sections = [
        Section("What each drafter brings", [_HOW], [table(found)], status=None),
        Section("Speed", figures=[_speedups(found), _acceptance(found)]),
        Section("Costs", figures=[_costs(found), _parts(found)]),
        Section("Every draft length", tables=[_lengths(draft) for draft in found.drafts]),
    ]
    shown = facts(document["environment"], document["command"])
    return page(f"draftsmith plan: {found.target}", found.verdict, sections, shown)


def _row(draft: DraftPlan) -> list[str]:
    best = draft.best
    observed = draft.observed.get(best.gamma)
    limit = draft.batch_limit
    return [
        draft.name,
        interval(_mean(draft.overlap, draft.overlap_interval)),
        f"{100 * draft.proposed:.0f} %",
        f"{draft.cost_ratio:.3f}",
        str(best.gamma),
        number(best.tokens_per_pass),
        interval(_mean(best.speedup, best.interval)),
        "-" if observed is None else number(observed.median),
        "64 sequences" if limit is None else "-" if limit == 1 else f"under {limit} sequences",
    ]


def _mean(value: float, bounds: Interval | None) -> dict[str, float | None]:
    low, high = bounds or (None, None)
    return {"median": value, "low": low, "high": high}


def _draft(draft: DraftPlan) -> dict[str, Any]:
    return {
        "name": draft.name,
        "overlap": draft.overlap,
        "overlap_interval": draft.overlap_interval,
        "proposed": draft.proposed,
        "step_s": draft.step_s,
        "cost_ratio": draft.cost_ratio,
        "best_gamma": draft.best.gamma,
        "pays": draft.pays,
        "batch_limit": draft.batch_limit,
        "predictions": [_prediction(one) for one in draft.predictions],
        "observed": {
            str(gamma): {"median": one.median, "interval": one.interval}
            for gamma, one in draft.observed.items()
        },
    }


def _prediction(one: Prediction) -> dict[str, Any]:
    return {
        "gamma": one.gamma,
        "tokens_per_pass": one.tokens_per_pass,
        "speedup": one.speedup,
        "interval": one.interval,
        "draft_s": one.draft_s,
        "check_s": one.check_s,
        "alpha": one.statistics.alpha,
        "acceptance_per_position": list(one.acceptance_per_position),
    }


def _speedups(found: Plan) -> Figure:
    series: list[Series] = []
    for draft in found.drafts:
        gammas = [one.gamma for one in draft.predictions]
        speeds = [one.speedup for one in draft.predictions]
        series.append(Series(f"{draft.name}, predicted", gammas, speeds))
    for draft in found.drafts:
        if draft.observed:
            gammas = sorted(draft.observed)
            speeds = [draft.observed[gamma].median for gamma in gammas]
            series.append(Series(f"{draft.name}, measured", gammas, speeds, style="points"))
    caption = "Lines are predicted from overlap and costs, points were measured in a real run."
    return Figure(
        "Speed-up against gamma", "gamma", "times plain decoding", series, caption, reference=1
    )


def _acceptance(found: Plan) -> Figure:
    series: list[Series] = []
    left_out: list[str] = []
    for draft in found.drafts:
        counts = max(draft.predictions, key=lambda one: one.gamma).statistics
        tested = zip(counts.acceptance_per_position, counts.tested_per_position, strict=True)
        # A rate of a handful of tests says nothing.
        rates = [
            (place, rate)
            for place, (rate, count) in enumerate(tested, 1)
            if rate is not None and count >= _FEW and place <= _SHOWN
        ]
        if rates:
            series.append(Series(draft.name, [at for at, _ in rates], [rate for _, rate in rates]))
        else:
            left_out.append(draft.name)
    caption = (
        "Share of the drafts at a position that are kept, of those whose predecessors were; the "
        f"first {_SHOWN} positions, where {_FEW} or more were tested."
    )
    if left_out:
        caption += f" Too few drafts were tested of: {'; '.join(left_out)}."
    return Figure("Acceptance by position", "position in the draft", "kept", series, caption)


def _costs(found: Plan) -> Figure:
    def ms(values: object) -> list[float]:
        assert isinstance(values, list)
        return [1e3 * value for value in values]

    series: list[Series] = []
    for name, curve in (("round", found.costs.check), ("pass", found.costs.passes)):
        record = curve.to_dict()
        low, high = ms(record["p10_s"]), ms(record["p90_s"])
        series.append(Series(name, curve.counts, ms(record["median_s"]), low, high))
    caption = (
        "T(M): median time of a target pass over M rows, and of a round without its drafting, "
        "with the 10th and 90th percentiles."
    )
    return Figure("Cost of checking", "rows", "ms", series, caption)


def _parts(found: Plan) -> Figure:
    plain = found.costs
    passes, rest = plain.passes.at(1), plain.check.at(1) - plain.passes.at(1)
    names, drafting, checking, others = ["plain"], [0.0], [1e3 * passes], [1e3 * rest]
    for draft in found.drafts:
        best = draft.best
        rows = 1 + best.statistics.num_drafted / max(1, best.statistics.num_rounds)
        share = plain.passes.at(rows) / plain.check.at(rows)
        names.append(f"{draft.name}, {best.gamma}")
        drafting.append(1e3 * best.draft_s)
        checking.append(1e3 * best.check_s * share)
        others.append(1e3 * best.check_s * (1 - share))
    places = list(range(len(names)))
    series = [
        Series("draft", places, drafting, style="stacked"),
        Series("target pass", places, checking, style="stacked"),
        Series("rest", places, others, style="stacked"),
    ]
    caption = "An average round with each drafter's best gamma."
    return Figure("Time per part of a round", "", "ms", series, caption, names)


def _lengths(draft: DraftPlan) -> Table:
    columns = ("gamma", "tokens/pass", "alpha", "round ms", "speed-up", "measured")
    rows = [
        [
            str(one.gamma),
            number(one.tokens_per_pass),
            number(one.statistics.alpha),
            number(1e3 * (one.draft_s + one.check_s), 1),
            interval(_mean(one.speedup, one.interval)),
            number(draft.observed[one.gamma].median) if one.gamma in draft.observed else "-",
        ]
        for one in draft.predictions
    ]
    return Table(draft.name, columns, rows)
