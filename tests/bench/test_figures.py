"""Every arm of a benchmark is in every plot, or its caption says why not."""

from typing import Any

from draftsmith.bench.figures import cell_figures
from draftsmith.bench.words import same_text, verdict
from draftsmith.core.statistics import RoundRecord, SpeculationStatistics


def _arm(name: str, rounds: list[RoundRecord], draft: str | None = "d", **more: Any) -> Any:
    return {
        "name": name,
        "draft": draft,
        "gamma": 2,
        "error": None,
        "num_requests": 1,
        "speedup": {"decode": {"median": 1.0, "low": None, "high": None}},
        "statistics": SpeculationStatistics.from_rounds(rounds).to_dict(),
        "parts_ms": {"draft": 1.0, "target_pass": 1.0, "rest": 1.0},
        "time_per_request_ms": {"mean": 1.0, "std": 1.0, "num_tokens": 5},
        "is_identical": True,
        "is_promised_identical": True,
        "differences": [],
        **more,
    }


_KEPT, _PLAIN = RoundRecord(2, 2, 1, 2), RoundRecord(0, 0, 0, 1)
_ARMS = [
    _arm("plain", [_PLAIN], None),
    _arm("d, gamma 2", [_KEPT]),
    _arm("d, gamma 4", [_KEPT, _PLAIN]),
    _arm("d, gamma auto", [RoundRecord(1, 1, 0, 1)]),
    _arm("idle", [_PLAIN], "e"),
    _arm("broken", [], "f", num_requests=0, speedup={"decode": None}, parts_ms=None,
         time_per_request_ms=None, is_identical=None),
]  # fmt: skip
_CELL = {"workload": "w", "temperature": 0.0, "batch_size": 1, "arms": _ARMS}


def test_the_acceptance_of_every_arm_that_drafted_is_drawn_and_the_others_are_named() -> None:
    figure = cell_figures(_CELL)["acceptance"]
    drawn = [series.label for series in figure.series]
    assert drawn == ["d, gamma 2", "d, gamma 4", "d, gamma auto"]
    assert figure.caption.endswith("Nothing was drafted by: idle. Not run: broken.")


def test_no_plot_leaves_an_arm_out_in_silence() -> None:
    for name, figure in cell_figures(_CELL).items():
        shown = {*(figure.x_ticks or ()), *(series.label for series in figure.series)}
        for arm in _ARMS[1:]:
            assert arm["name"] in shown or arm["name"] in figure.caption, (name, arm["name"])


def test_a_round_that_drafted_nothing_is_no_round_that_kept_none() -> None:
    figure = cell_figures(_CELL)["kept"]
    shares = {series.label: list(series.y) for series in figure.series}
    assert shares == {
        "none": [0.0, 0.0, 1.0, 0.0],
        "1": [1.0, 0.5, 0.0, 0.0],
        "nothing drafted": [0.0, 0.5, 0.0, 1.0],
    }


def test_a_text_is_the_same_only_where_it_could_have_differed() -> None:
    found = [same_text(arm) for arm in _ARMS]
    assert found == ["-", "yes", "yes", "yes", "nothing drafted", "-"]
    document = {"cells": [_CELL], "is_complete": True}
    assert "Every text that must be plain decoding's is" in verdict(document)
    assert verdict(document).endswith("Nothing was drafted by idle.")
    # What drafted nothing is not the fastest, however fast it was.
    quick = {**_ARMS[4], "speedup": {"decode": {"median": 9.0, "low": None, "high": None}}}
    raced = {**_CELL, "arms": [_ARMS[0], _ARMS[1], quick]}
    assert "9.00" not in verdict({**document, "cells": [raced]})
    idle = {**_CELL, "arms": [_ARMS[0], _ARMS[4]]}
    assert "token for token" not in verdict({**document, "cells": [idle]})


def test_equal_rates_do_not_hide_each_other() -> None:
    series = cell_figures(_CELL)["acceptance"].series
    assert len({one.x[0] for one in series}) == 3
    assert all(round(x) == place for one in series for place, x in enumerate(one.x))
