"""Tables that fit their page."""

import pytest

from draftsmith.bench.tables import detail_table


@pytest.mark.parametrize(
    ("num_positions", "shown"),
    [(0, "-"), (2, "0.50 0.50"), (20, "0.50 0.50 0.50 0.50 0.50 0.50 0.50 0.50 ...")],
)
def test_a_long_draft_does_not_widen_the_table(num_positions: int, shown: str) -> None:
    counts = {
        "alpha": 0.5,
        "draft_yield": 0.5,
        "chen_efficiency": 0.5,
        "acceptance_per_position": [0.5] * num_positions,
    }
    arm = {"name": "auto", "statistics": counts, "parts_ms": None, "alpha_interval": None}
    assert detail_table({"arms": [arm]}).rows[0][4] == shown
