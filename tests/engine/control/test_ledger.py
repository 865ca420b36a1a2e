"""The ledger beside the truth: what it counts, and what it takes plain decoding for."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from draftsmith import Engine, SamplingParams
from draftsmith.core.statistics import RoundRecord
from draftsmith.drafters import ModelDrafter
from draftsmith.drafters.contract import DraftContext, DraftState, StatefulDrafter
from draftsmith.drafters.draft import Draft
from draftsmith.engine.control.auto import AutoGamma
from draftsmith.engine.control.contract import Choice, RoundReport, Sample
from tests.engine.clockwork import VOCAB, Clock, Clockwork, clock
from tests.engine.control.stage import Bench, Deep, flat_s, good_for, model_draft, word

__all__ = ["clock"]

IN_TURN = [(4000, 40), (20, 60)] * 12
ONE_LONG = [(4000, 300), *[(20, 60)] * 20]


def test_the_ledger_tells_the_time_spent_and_what_plain_decoding_takes(clock: Clock) -> None:
    bench = Bench(clock, lambda: model_draft(clock, lambda _: 0.85, 0.002))
    plain, auto = bench.run(0), bench.run("auto")
    ledgers = [result.ledger for result in auto.results]
    spent = sum(ledger.spent_s for ledger in ledgers if ledger)
    estimate = sum(ledger.plain_s for ledger in ledgers if ledger)
    assert spent == pytest.approx(auto.seconds)
    assert estimate == pytest.approx(plain.seconds, rel=0.02)
    controller = auto.engine.controller
    assert isinstance(controller, AutoGamma)
    assert controller.ledger.plain_s == pytest.approx(estimate)
    assert plain.results[0].ledger is None


@pytest.mark.parametrize(
    ("texts", "alpha", "step_s"),
    [
        (IN_TURN, 0.0, 0.0075),
        (IN_TURN, 0.4, 0.012),
        (IN_TURN, 0.9, 0.004),
        (ONE_LONG, 0.0, 0.0075),
        (ONE_LONG, 0.4, 0.012),
    ],
)
def test_the_ledger_is_right_over_long_and_short_texts(
    clock: Clock, texts: list[tuple[int, int]], alpha: float, step_s: float
) -> None:
    """A pass takes three times as long with 4,000 tokens held; a prompt little."""

    def run(engine: Engine) -> float:
        start = clock.now
        for number, (length, max_tokens) in enumerate(texts):
            prompt = [number % VOCAB, *[1] * (length - 1)]
            engine.generate(prompt, SamplingParams(max_tokens=max_tokens))
        return clock.now - start

    model = Deep(clock, flat_s, word, 0.0001)
    draft = model_draft(clock, lambda _: alpha, step_s, 1e-5)
    auto = Engine(model, None, draft, gamma="auto")
    plain_s, auto_s = run(Engine(model)), run(auto)
    assert isinstance(auto.controller, AutoGamma)
    ledger = auto.controller.ledger
    assert ledger.spent_s == pytest.approx(auto_s)
    assert ledger.plain_s == pytest.approx(plain_s, rel=0.003)
    assert auto_s <= 1.01 * plain_s


class Slow(AutoGamma):
    """Takes longer, before a round and after it."""

    def __init__(self, clock: Clock, choose_s: float, observe_s: float) -> None:
        super().__init__()
        self._clock, self._choose_s, self._observe_s = clock, choose_s, observe_s

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        self._clock.now += self._choose_s
        return super().choose(sequences)

    def observe(self, report: RoundReport) -> None:
        self._clock.now += self._observe_s
        super().observe(report)


@pytest.mark.parametrize(("choose_s", "observe_s"), [(0.02, 0.0), (0.0, 0.02), (0.01, 0.01)])
def test_a_slow_controller_is_in_its_own_ledger(
    clock: Clock, choose_s: float, observe_s: float
) -> None:
    """Its time is spent, not plain decoding's; it leaves nothing to try drafts with."""
    bench = Bench(clock, lambda: model_draft(clock, lambda _: 0, 0.001))
    engine = Engine(bench.target, None, bench.draft(), gamma="auto")
    engine.controller = Slow(clock, choose_s, observe_s)
    start = clock.now
    result = engine.generate([0, *[1] * 40], SamplingParams(max_tokens=128))[0]
    seconds = clock.now - start
    ledger = result.ledger
    assert ledger is not None
    # Of the last round alone nobody hears what hearing of it took.
    assert ledger.spent_s == pytest.approx(seconds - observe_s)
    assert ledger.own_s == pytest.approx(0.02 * ledger.num_rounds - observe_s)
    assert ledger.plain_s == pytest.approx(bench.run(0, 1, 128).seconds, rel=0.003)
    assert ledger.num_plain_rounds == ledger.num_rounds - 1


@dataclass
class Text:
    """As much of a sequence as a controller sees."""

    id: int
    tokens: list[int]
    room: int


def test_a_plain_round_costs_the_controller_next_to_nothing() -> None:
    """Generous: 2 ms, types checked on the way, for what takes some microseconds."""
    auto, sequence = AutoGamma(), Text(0, [1] * 9, 1000)
    taken: list[float] = []
    for number in range(300):
        start = time.perf_counter()
        choice = auto.choose([sequence])
        taken.append(time.perf_counter() - start)
        record = RoundRecord(choice.gammas[0], min(1, choice.gammas[0]), 0, 1)
        sure = [0.3] * choice.gammas[0]
        draft_s = 0.004 * choice.gammas[0]
        report = RoundReport(
            [sequence], choice.gammas, [record], [sure], number == 0, draft_s, 0.02 + draft_s
        )
        start = time.perf_counter()
        auto.observe(report)
        sequence.tokens.append(1)
        taken[-1] += time.perf_counter() - start
    assert auto.ledger.num_plain_rounds > 250
    assert statistics.median(taken) < 2e-3


def test_tokens_kept_before_any_plain_round_are_booked_with_the_first(clock: Clock) -> None:
    """A draft that is always right, in a text that is short."""
    draft = ModelDrafter(Clockwork(clock, lambda rows: 0.001, good_for(lambda _: 1.0), 1e-5))
    model = Clockwork(clock, lambda rows: 0.017, word)
    start = clock.now
    Engine(model).generate([1, 2], SamplingParams(max_tokens=12))
    plain_s = clock.now - start
    result = Engine(model, None, draft, gamma="auto").generate(
        [1, 2], SamplingParams(max_tokens=12)
    )
    ledger = result[0].ledger
    assert ledger is not None
    assert ledger.plain_s == pytest.approx(plain_s, rel=0.003)


def test_prompts_that_are_read_beside_a_round_are_not_what_it_costs(clock: Clock) -> None:
    """Long prompts join one after the other while a short text is drafted for."""

    def run(engine: Engine) -> float:
        start = clock.now
        prompts = [[1, 2, 3], *([number, *[1] * 1500] for number in range(6))]
        lengths = [SamplingParams(max_tokens=most) for most in (400, *[20] * 6)]
        engine.generate(prompts, lengths)
        return clock.now - start

    model = Clockwork(clock, flat_s, word, 0.003)
    draft = model_draft(clock, lambda _: 0.9, 0.002, 1e-5)
    auto = Engine(model, None, draft, gamma="auto", max_batch_size=2)
    plain_s, auto_s = run(Engine(model, max_batch_size=2)), run(auto)
    assert isinstance(auto.controller, AutoGamma)
    ledger = auto.controller.ledger
    assert ledger.spent_s == pytest.approx(auto_s)
    assert ledger.plain_s == pytest.approx(plain_s, rel=0.01)


class Silent(DraftState):
    """Has nothing to say, but for a few wrong guesses at the beginning."""

    def __init__(self, drafter: "SilentDrafter") -> None:
        self._drafter = drafter

    def propose(self, context: DraftContext) -> Draft:
        told = self._drafter
        told.clock.now += told.seconds
        told.asked.append(len(context.sequences[0].tokens))
        is_guess = len(told.asked) <= told.num_guesses
        rows = [[0] if is_guess else [] for _ in context.sequences]
        return Draft.certain(rows, context.device, [[0.4] * len(row) for row in rows])

    def release(self, sequence: int) -> None:
        pass


class SilentDrafter(StatefulDrafter):
    name = "silent"
    uses_torch_threads = draws_from_law = False

    def __init__(self, clock: Clock, seconds: float = 0.0001, num_guesses: int = 0) -> None:
        self.clock, self.seconds, self.num_guesses = clock, seconds, num_guesses
        self.asked: list[int] = []

    def open(self) -> DraftState:
        return Silent(self)


def test_noise_in_rounds_in_vain_is_no_pause(clock: Clock) -> None:
    """Those that are longer by chance take no more of plain decoding than the others."""
    bench = Bench(clock, lambda: SilentDrafter(clock), noise=0.1)
    ledger = bench.run("auto", 8, 256).engine.controller.ledger
    assert ledger is not None
    assert ledger.num_rounds - ledger.num_plain_rounds > 400
    assert ledger.debt_s == pytest.approx(ledger.draft_s, abs=0.003 * ledger.spent_s)


def test_what_may_be_lost_lasts_until_a_draft_may_pay(clock: Clock) -> None:
    """Asking takes a twentieth of a round: in every round, all would be gone by token 100."""
    drafter = SilentDrafter(clock, 0.0009, num_guesses=3)
    bench = Bench(clock, lambda: drafter)
    ledger = bench.run("auto", 1, 320).engine.controller.ledger
    assert ledger is not None
    assert len([place for place in drafter.asked if 150 <= place < 280]) >= 8
    assert ledger.debt_s < 0.017 * 3.6
