"""A plan as a document, a table and a page."""

from collections.abc import Mapping
from typing import Any

from draftsmith.bench.plan import DraftPlan, Plan
from draftsmith.bench.predict import Prediction, expected_tokens
from draftsmith.bench.words import interval, number
from draftsmith.core.statistics import Interval
from draftsmith.report.document import environment, facts
from draftsmith.report.figure import Figure, Series
from draftsmith.report.page import Section, Table, page

__all__ = ["as_document", "as_page", "checked_table", "table"]

_SCHEMA = 2
_FEW, _SHOWN = 10, 8
"""Tests that a plotted rate has at least; positions that are plotted."""
_HOW = (
    "The target wrote a text for every prompt, plainly. Each drafter then drafted along these "
    "texts, from where a round would have begun; right or wrong there is what the rounds of a run "
    "would have met. Overlap is the sum over ids of the smaller of the two laws' probabilities, "
    "averaged over positions (Leviathan et al., corollary 3.6), with a 95 % bootstrap interval "
    "over texts. Costs are means of real rounds of each length, with each drafter and number of "
    "branches, plain rounds among them. The speed-up is of decoding, without prompts; its "
    "interval draws the prompts anew. The batch size takes all sequences to be alike, and drafts "
    "to be chains."
)
_GUESSES = (
    "Of the rounds that came to a place of the draft, the share in which the target's token was "
    "the first guess for it, the second, and so on."
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
        "drafter", "overlap", "guesses", "cost ratio", "best gamma", "branches", "tokens/pass",
        "speed-up", "measured", "predicted/measured", "pays up to",
    )  # fmt: skip
    return Table(
        f"{found.target}: what each drafter brings", columns, list(map(_row, found.drafts))
    )


def checked_table(found: Plan) -> Table | None:
    """Every prediction that was held against a run, where more than one of a drafter was."""
    columns = (
        "arm", "tokens/pass", "measured", "speed-up", "measured", "predicted/measured"
    )  # fmt: skip
    rows = [_checked(draft, one) for draft in found.drafts for one in _seen(draft)]
    return Table("Predicted and measured", columns, rows) if rows else None


def _seen(draft: DraftPlan) -> list[Prediction]:
    return [one for one in draft.predictions if (one.gamma, one.branches) in draft.observed]


def _checked(draft: DraftPlan, one: Prediction) -> list[str]:
    seen = draft.observed[one.gamma, one.branches]
    return [
        draft.name_of(one),
        number(one.tokens_per_pass),
        number(seen.tokens_per_pass),
        interval(_mean(one.speedup, one.interval)),
        interval(_mean(seen.speedup.median, seen.speedup.interval)),
        number(draft.ratio(one)),
    ]


def as_page(found: Plan, document: Mapping[str, Any]) -> str:
    """The report as HTML."""
    held = checked_table(found)
    tables = [table(found), *([] if held is None else [held])]
    sections = [
        Section("What each drafter brings", [_HOW], tables, status=None),
        Section("Speed", figures=[_speedups(found), _acceptance(found)]),
        Section("Costs", figures=[_costs(found), _parts(found)]),
        Section("Every shape of draft", tables=[_lengths(draft) for draft in found.drafts]),
        Section("Where tokens were found", [_GUESSES], list(map(_found, found.drafts))),
    ]
    shown = facts(document["environment"], document["command"])
    return page(f"draftsmith plan: {found.target}", found.verdict, sections, shown)


def _row(draft: DraftPlan) -> list[str]:
    best = draft.best
    observed = draft.observed.get((best.gamma, best.branches))
    limit = draft.batch_limit
    return [
        draft.name,
        interval(_mean(draft.overlap, draft.overlap_interval)),
        f"{100 * draft.proposed:.0f} %",
        f"{draft.cost_ratio:.3f}",
        str(best.gamma),
        str(best.branches),
        number(best.tokens_per_pass),
        interval(_mean(best.speedup, best.interval)),
        "-" if observed is None else number(observed.speedup.median),
        number(draft.ratio(best)),
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
        "best_branches": draft.best.branches,
        "pays": draft.pays,
        "batch_limit": draft.batch_limit,
        "predictions": [_prediction(one) for one in draft.predictions],
        "rounds": {
            str(branches): {
                "check": costs.check.to_dict(),
                "passes": costs.passes.to_dict(),
                "draft": costs.draft.to_dict(),
            }
            for branches, costs in draft.costs.items()
        },
        "observed": [
            {
                "gamma": one.gamma,
                "branches": one.branches,
                "tokens_per_pass": draft.observed[one.gamma, one.branches].tokens_per_pass,
                "median": draft.observed[one.gamma, one.branches].speedup.median,
                "interval": draft.observed[one.gamma, one.branches].speedup.interval,
                "ratio": draft.ratio(one),
            }
            for one in _seen(draft)
        ],
    }


def _prediction(one: Prediction) -> dict[str, Any]:
    return {
        "gamma": one.gamma,
        "branches": one.branches,
        "tokens_per_pass": one.tokens_per_pass,
        "expected_tokens": expected_tokens(one.found_at),
        "found_at": one.found_at,
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
        for branches, some in _by_branches(draft).items():
            name = _labelled(draft.name, branches)
            speeds = [one.speedup for one in some]
            series.append(Series(f"{name}, predicted", [one.gamma for one in some], speeds))
    for draft in found.drafts:
        for branches, some in _by_branches(draft).items():
            seen = sorted(one.gamma for one in some if (one.gamma, branches) in draft.observed)
            if seen:
                speeds = [draft.observed[gamma, branches].speedup.median for gamma in seen]
                name = _labelled(draft.name, branches)
                series.append(Series(f"{name}, measured", seen, speeds, style="points"))
    caption = "Lines are predicted from acceptance and costs, points were measured in a real run."
    return Figure(
        "Speed-up against gamma", "gamma", "times plain decoding", series, caption, reference=1
    )


def _by_branches(draft: DraftPlan) -> dict[int, list[Prediction]]:
    found: dict[int, list[Prediction]] = {}
    for one in draft.predictions:
        found.setdefault(one.branches, []).append(one)
    return found


def _labelled(name: str, branches: int) -> str:
    return name if branches == 1 else f"{name}, {branches} branches"


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
        series.append(Series(name, curve.counts, ms(record["mean_s"]), low, high))
    caption = (
        "T(M): mean time of a target pass over M rows, and of a round without its drafting; the "
        "tenths at both ends are left out, and shown."
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
        names.append(f"{draft.name}, {best.gamma}" + f" x {best.branches}" * (best.branches > 1))
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
    columns = ("gamma", "branches", "tokens/pass", "alpha", "round ms", "speed-up", "measured")
    rows: list[list[str]] = []
    for one in draft.predictions:
        seen = draft.observed.get((one.gamma, one.branches))
        row = [str(one.gamma), str(one.branches), number(one.tokens_per_pass)]
        row += [number(one.statistics.alpha), number(1e3 * (one.draft_s + one.check_s), 1)]
        row += [interval(_mean(one.speedup, one.interval))]
        rows.append([*row, "-" if seen is None else number(seen.speedup.median)])
    return Table(draft.name, columns, rows)


def _found(draft: DraftPlan) -> Table:
    """Which guess was right, of the longest draft with each number of branches."""
    columns = ("gamma", "branches", "place 1", "2", "3", "4", "tokens/pass if no text ends")
    rows: list[list[str]] = []
    for some in _by_branches(draft).values():
        one = max(some, key=lambda each: each.gamma)
        shares = [" ".join(map(number, place)) for place in one.found_at[:4]]
        shares += ["-"] * (4 - len(shares))
        expected = number(expected_tokens(one.found_at))
        rows.append([str(one.gamma), str(one.branches), *shares, expected])
    return Table(draft.name, columns, rows)
