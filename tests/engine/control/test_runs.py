"""How far one thought reaches: as far as runs win, and as the ledger bears."""

import numpy as np

from draftsmith.core.statistics import RoundRecord
from draftsmith.engine.control.contract import RoundReport
from draftsmith.engine.control.costs import Load
from draftsmith.engine.control.pacing import Costs
from draftsmith.engine.control.runs import Run, Waiting

COSTS = Costs(check=np.array([1.0, 1.5, 2.0]), draft=np.array([0.0, 0.25, 0.5]))
"""A round of two drafted tokens takes 2.5 s, a plain one 1 s."""


def waiting(num_committed: int, total_s: float, read_s: float = 0.0) -> Waiting:
    record = RoundRecord(2, 2, num_committed - 1, num_committed)
    report = RoundReport((), (2,), (record,), ((),), False, 0.5, total_s, read_s=read_s)
    return Waiting(report, Load(1, 10.0), 0)


def rounds_of(run: Run, one: Waiting, bearable_s: float, *, is_free: bool = False) -> int:
    """Rounds until the next thought."""
    run.begin([2], COSTS, bearable_s, is_free)
    run.note(one)
    count = 1
    while not run.is_over:
        run.go_on()
        run.note(one)
        count += 1
    assert len(run.take()) == count
    assert run.is_learnt
    return count


def test_runs_grow_while_they_win_and_begin_again_behind_a_loss() -> None:
    run, won = Run(), waiting(num_committed=3, total_s=2.5)
    counts: list[int] = []
    for has_won in (True, True, True, True, False, True):
        counts.append(rounds_of(run, won, bearable_s=100.0))
        run.judge(has_won)
    assert counts == [1, 2, 4, 8, 8, 1]


def test_a_draft_that_is_free_to_ask_is_asked_eight_times_at_once() -> None:
    idle = waiting(num_committed=1, total_s=1.01)
    assert rounds_of(Run(), idle, bearable_s=100.0, is_free=True) == 8


def test_a_run_ends_where_the_ledger_does_not_bear_the_worst_of_the_next_round() -> None:
    """Each round loses 1.5 s; the next one must not begin with less than 2.5 s to bear it."""
    lost = waiting(num_committed=1, total_s=2.5)
    assert rounds_of(Run(), lost, bearable_s=5.5, is_free=True) == 3
    assert rounds_of(Run(), lost, bearable_s=2.5, is_free=True) == 1


def test_the_reading_of_another_prompt_is_no_loss() -> None:
    beside = waiting(num_committed=3, total_s=60.0, read_s=57.5)
    assert rounds_of(Run(), beside, bearable_s=2.5, is_free=True) == 8
