"""What rounds have shown, one by one and together."""

import random
from collections.abc import Callable

import pytest

from draftsmith.core.statistics import RoundRecord
from draftsmith.engine.control.auto import AutoGamma
from draftsmith.engine.control.contract import RoundReport
from draftsmith.engine.control.costs import Load
from draftsmith.engine.control.learnt import Learnt

LOAD = Load(2, 90.0)
PLAIN_S = 0.006


class Text:
    def __init__(self, id: int) -> None:
        self.id, self.room = id, 100
        self.tokens = [1] * 45


TEXTS = [Text(3), Text(8)]


def taught() -> Learnt:
    """It knows a plain round, and checks of three rows and of two."""
    learnt = Learnt(is_drawn=False)
    learnt.retain([one.id for one in TEXTS])
    learnt.check.observe_plain(LOAD, PLAIN_S, 12, 0.03)
    for _ in range(5):
        records = [RoundRecord(1, 1, 0, 1), RoundRecord(0, 0, 0, 1)]
        times = 0.0002, PLAIN_S * 1.15, 0.0001
        sure = [(0.4,), ()]
        learnt.learn(RoundReport(TEXTS, [4, 4], records, sure, False, *times), LOAD, 0)
        learnt.check.observe(LOAD, 2, PLAIN_S)
    return learnt


def asked(number: int, seed: int = 1) -> list[RoundReport]:
    """Rounds whose drafter was asked for both, and found nothing that was worth a row."""
    chance = random.Random(seed)
    nothing = [RoundRecord(0, 0, 0, 1)] * 2
    return [
        RoundReport(
            TEXTS,
            [4, 4],
            nothing,
            [(0.05,) if chance.random() < 0.5 else (), ()],
            False,
            0.0002,
            PLAIN_S + 0.0003 + 0.01 * (number == 4),
            0.0001,
            read_s=0.01 * (number == 4),
        )
        for number in range(number)
    ]


MEASURES: dict[str, Callable[[Learnt], float]] = {
    "spent": lambda one: one.books.entered.spent_s,
    "plain": lambda one: one.books.entered.plain_s,
    "draft": lambda one: one.books.entered.draft_s,
    "own": lambda one: one.books.entered.own_s,
    "rounds": lambda one: one.books.num_rounds,
    "plain round": lambda one: one.check.plain_s(LOAD),
    "step": lambda one: one.draft.step_s(PLAIN_S),
    "round": lambda one: one.draft.round_s,
    "thought": lambda one: one.thought_s,
    "gain": lambda one: one.gain.expected([3, 8]),
    "saving": lambda one: one.gain.saving,
    "asked": lambda one: one.asked[3].toward(1.0, 0.0),
    "asked other": lambda one: one.asked[8].toward(1.0, 0.0),
    "idle": lambda one: one.idle,
    "chance": lambda one: one.by_confidence.each(3, [0.3])[0],
    "unread": lambda one: one.unread.of(TEXTS[0]),
}


def test_rounds_in_vain_teach_together_what_each_would_by_itself() -> None:
    apart, together = taught(), taught()
    for report in asked(8):
        apart.learn(report, LOAD, 0)
    together.learn_asked([(report, LOAD) for report in asked(8)])
    for name, measure in MEASURES.items():
        assert measure(together) == pytest.approx(measure(apart), rel=0.04), name


def test_a_pause_in_a_round_in_vain_is_nobodys() -> None:
    learnt = taught()
    debt_s = learnt.books.entered.debt_s
    reports = asked(8)
    reports[3] = reports[3]._replace(total_s=reports[3].total_s + 0.5)
    learnt.learn_asked([(report, LOAD) for report in reports])
    assert learnt.books.entered.debt_s - debt_s < 0.1 * PLAIN_S * 8


def test_the_very_first_draft_tells_how_sure_the_drafter_is() -> None:
    auto = AutoGamma(is_drawn=False)
    choice = auto.choose(TEXTS)
    assert choice.gammas == [2, 0]
    assert choice.pace is not None
    assert choice.pace.nodes([[0.4, 0.2], []], [[-1, -1], []]) == [[0, 1], []]
    assert choice.pace.lengths([[0.4, 0.2], []]) == [2, 0]
    assert choice.pace.wanting([[0.4], []], [0]) == [0]
    assert choice.pace.least_confidence(0) == 0
