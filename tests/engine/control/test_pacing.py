"""When drafts end: the rule beside a plain search, and the law of what it lets through."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from draftsmith.audit.proof import EXACT, a_world, distance_of_a_round
from draftsmith.core.enumeration import Tokens
from draftsmith.core.params import SamplingParams
from draftsmith.core.verify import BlockVerifier, RejectionVerifier, ThresholdVerifier
from draftsmith.engine.control.chances import ByConfidence, Chances
from draftsmith.engine.control.pacing import Costs, RatePace
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.rounds.drafting import RoundContext
from draftsmith.engine.rounds.turn import Turn
from tests.engine.kit import PROMPTS, target

CHECK = np.linspace(1.0, 3.0, 41)
STEEP = 1.0 + np.arange(41.0)
NUM_WORLDS = 12
"""Each vocabulary with each mismatch, twice; the verifiers themselves are proved in 200."""


def untaught() -> Chances:
    return Chances(ByConfidence())


def pace(
    num_sequences: int = 1,
    check: "np.ndarray[tuple[int], np.dtype[np.float64]]" = CHECK,
    step: float = 0.3,
    min_depth: int = 0,
) -> RatePace:
    """A pace that takes confidences at their word; costs beside a plain round of 1."""
    costs = Costs(check, step * np.arange(11.0))
    return RatePace(range(num_sequences), untaught(), costs, min_depth)


def kept(draft: Sequence[float]) -> list[float]:
    return untaught().along(0, draft)


def test_a_first_token_is_always_drawn() -> None:
    assert pace(3).wanting([[], [], []], [0, 2]) == [0, 2]


@pytest.mark.parametrize("seed", range(60))
def test_a_draft_goes_on_while_its_rate_rises(seed: int) -> None:
    """One sequence: against the rates of both lengths, written out."""
    chance = random.Random(seed)
    draft = [chance.random() for _ in range(chance.randint(1, 6))]
    step = chance.choice([0.01, 0.1, 0.3])
    chances = kept(draft)
    now = (1 + sum(chances)) / (CHECK[len(draft)] + step * len(draft))
    next_one = chances[-1] * untaught().usual(0)
    then = (1 + sum(chances) + next_one) / (CHECK[len(draft) + 1] + step * (len(draft) + 1))
    assert pace(step=step).wanting([draft], [0]) == ([0] if then > now else [])


@pytest.mark.parametrize("seed", range(40))
def test_of_a_batch_the_likeliest_go_on(seed: int) -> None:
    """Against every subset; equal rates may go either way, so the rates are compared."""
    chance = random.Random(seed)
    size = chance.randint(2, 5)
    drafts = [[chance.random() for _ in range(2)] for _ in range(size)]
    one = pace(size, np.linspace(1.0, 4.0, 41), 0.15)
    taken = one.wanting(drafts, range(size))

    def rate(rows: Sequence[int]) -> float:
        tokens = size + sum(sum(kept(draft)) for draft in drafts)
        tokens += sum(kept(drafts[row])[-1] * untaught().usual(row) for row in rows)
        num_rows = 2 * size + len(rows)
        depth = 3 if rows else 2
        return tokens / float(np.linspace(1.0, 4.0, 41)[num_rows] + 0.15 * depth)

    subsets = [[row for row in range(size) if code >> row & 1] for code in range(2**size)]
    assert rate(taken) == pytest.approx(max(map(rate, subsets)))


def test_a_doubtful_copy_is_cut_and_a_sure_one_is_not() -> None:
    assert pace().lengths([[0.99] * 8]) == [8]
    assert pace(check=STEEP).lengths([[0.01] * 8]) == [0]
    assert pace(check=STEEP, min_depth=1).lengths([[0.01] * 8]) == [1]
    assert pace(2, np.linspace(1.0, 9.0, 41)).lengths([[0.99] * 5, [0.02] * 5]) == [5, 0]
    assert pace(2, min_depth=1).lengths([[], []]) == [0, 0]


class Counted(ByConfidence):
    """Notes what it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float | None] = []

    def log_odds(self, known: float | None) -> float:
        self.asked.append(known)
        return super().log_odds(known)


def test_what_a_token_is_worth_is_asked_once_a_round() -> None:
    """However often the pace is asked; its answers are those of a new one."""
    counted, drafts = Counted(), [[0.9], [0.8]]
    one = RatePace(range(2), Chances(counted), Costs(CHECK, 0.01 * np.arange(11.0)))
    for _ in range(3):
        assert one.wanting(drafts, [0, 1]) == pace(2, step=0.01).wanting(drafts, [0, 1])
        for draft in drafts:
            draft.append(draft[-1] - 0.05)
    assert one.lengths(drafts) == pace(2, step=0.01).lengths(drafts)
    told = [asked for asked in counted.asked if asked is not None]
    assert sorted(told) == sorted([*drafts[0], *drafts[1]])
    assert counted.asked.count(None) == 2


def paced(draft: Tokens, laws: Tensor) -> int:
    """How long the pace lets a draft become, which hears of each law and of no token."""
    one, sure = pace(check=1.0 + 0.1 * np.arange(41.0), step=0.2), [float(laws[0].max())]
    while len(sure) < len(draft) and one.wanting([sure], [0]):
        sure.append(float(laws[len(sure)].max()))
    return len(sure)


def after_a_token(draft: Tokens, laws: Tensor) -> int:
    """Ends a draft behind the first 1: that token is checked, and what follows was not drawn."""
    return draft.index(1) + 1 if 1 in draft else len(draft)


def before_a_token(draft: Tokens, laws: Tensor) -> int:
    """Leaves out the token that it looks at."""
    return draft.index(1) if 1 in draft else len(draft)


@pytest.mark.parametrize("verifier", [RejectionVerifier(), BlockVerifier()], ids=lambda v: v.name)
def test_a_paced_draft_is_exact(verifier: ThresholdVerifier) -> None:
    lengths: set[int] = set()

    def cut(draft: Tokens, laws: Tensor) -> int:
        lengths.add(paced(draft, laws))
        return paced(draft, laws)

    for seed in range(NUM_WORLDS):
        assert distance_of_a_round(a_world(seed), verifier, 3, (), cut) <= EXACT, f"world {seed}"
    assert lengths == {1, 2, 3}


@pytest.mark.parametrize("verifier", [RejectionVerifier(), BlockVerifier()], ids=lambda v: v.name)
def test_a_draft_may_end_by_its_tokens_only_behind_them(verifier: ThresholdVerifier) -> None:
    worlds = [a_world(seed) for seed in range(NUM_WORLDS)]
    behind = [distance_of_a_round(world, verifier, 3, (), after_a_token) for world in worlds]
    before = [distance_of_a_round(world, verifier, 3, (), before_a_token) for world in worlds]
    assert max(behind) <= EXACT
    assert max(before) > 0.05


def turn(number: int) -> Turn:
    request = make_request(PROMPTS[number], SamplingParams(seed=1), target("llama").traits, None)
    return request.sequence(0, number, torch.device("cpu"), None).turn(5)


def test_a_draft_that_has_ended_stays_ended() -> None:
    """Another sequence's doubt may lower the rate so far that going on would pay again."""
    sure = [[0.25], [0.98], [0.05], [0.61]]
    engine_side = RoundContext(
        [turn(number) for number in range(4)],
        target("llama").traits.vocab_size,
        torch.device("cpu"),
        pace(4, 1.0 + 0.1 * np.arange(41.0), 0.005),
    )
    for one, (confidence,) in zip(engine_side.turns, sure, strict=True):
        one.confidences.append(confidence)
    before = engine_side.wanting(range(4))
    assert before == [1]
    engine_side.turns[1].confidences.append(0.05)
    assert 3 in pace(4, 1.0 + 0.1 * np.arange(41.0), 0.005).wanting(
        [one.confidences for one in engine_side.turns], range(4)
    )
    assert 3 not in engine_side.wanting(range(4))


@pytest.mark.parametrize("seed", range(20))
def test_no_token_below_the_least_confidence_is_checked(seed: int) -> None:
    chance = random.Random(seed)
    chances = untaught()
    for _ in range(30):
        sure = chance.random()
        chances.observe(0, [sure], int(chance.random() < sure**2))
    check = np.cumsum([1.0, *(chance.uniform(0.02, 0.3) for _ in range(40))])
    one = RatePace([0], chances, Costs(check, np.zeros(11)))
    least = one.least_confidence(0)
    assert 0 <= least < 1
    assert least == 0 or one.lengths([[0.98 * least]]) == [0]
    likely = RatePace([0], chances, Costs(1 + 1e-3 * np.arange(41.0), np.zeros(11)))
    assert likely.lengths([[min(0.99, 1.02 * likely.least_confidence(0))]]) == [1]
    assert RatePace([0], chances, Costs(check, np.zeros(11)), 1).least_confidence(0) == 0


def test_the_cheapest_row_is_the_least_time_of_one_that_is_added() -> None:
    check = np.array([2.0, 3.0, 3.4, 5.0])
    assert Costs(check, np.zeros(2)).cheapest_row == pytest.approx(0.35)
    assert Costs(check[:1], np.zeros(2)).cheapest_row == math.inf
