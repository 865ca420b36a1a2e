"""Gamma "auto" on models whose passes take stated times: no wall clock, no noise unless asked."""

import math
import random
from collections.abc import Callable

import pytest

from draftsmith import Engine, SamplingParams
from draftsmith.core.gamma import Gamma
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter
from draftsmith.drafters.contract import DraftContext, DraftState, StatefulDrafter
from draftsmith.drafters.draft import Draft
from tests.engine.clockwork import VOCAB, Clock, Clockwork, clock
from tests.engine.control.stage import (
    PROMPT,
    Bench,
    flat_s,
    good_for,
    model_draft,
    steep_s,
    word,
)
from tests.engine.kit import DRAFTERS, PROMPTS, target, texts

__all__ = ["clock"]


@pytest.mark.parametrize(
    ("pass_s", "step_s", "noise", "batch"),
    [(flat_s, 0.0001, 0.1, 1), (flat_s, 0.0075, 0.0, 4), (steep_s, 0.0075, 0.1, 1)],
)
def test_a_hopeless_draft_costs_one_percent_at_most(
    clock: Clock, pass_s: Callable[[int], float], step_s: float, noise: float, batch: int
) -> None:
    bench = Bench(
        clock, lambda: model_draft(clock, lambda _: 0, step_s), pass_s, noise=noise, batch=batch
    )
    plain, auto = bench.run(0, 4 * batch, 256), bench.run("auto", 4 * batch, 256)
    assert auto.tokens == plain.tokens
    assert auto.seconds <= 1.01 * plain.seconds


@pytest.mark.parametrize(
    ("alpha", "step_s", "batch"), [(0.9, 0.001, 1), (0.85, 0.004, 1), (0.85, 0.004, 4)]
)
def test_a_steady_draft_comes_within_five_percent_of_the_best_gamma(
    clock: Clock, alpha: float, step_s: float, batch: int
) -> None:
    bench = Bench(clock, lambda: model_draft(clock, lambda _: alpha, step_s), batch=batch)
    fixed = [bench.run(gamma).seconds for gamma in (1, 2, 3, 4, 6, 8)]
    assert bench.run("auto", num_before=4).seconds <= 1.05 * min(fixed)


def test_a_draft_good_in_places_beats_every_fixed_gamma(clock: Clock) -> None:
    def alpha(position: int) -> float:
        return 0.97 if position // 60 % 2 else 0.05

    bench = Bench(clock, lambda: model_draft(clock, alpha, 0.004))
    fixed = [bench.run(gamma, 2, 360).seconds for gamma in (2, 4, 8)]
    assert bench.run("auto", 2, 360).seconds < min(fixed)


def test_a_draft_that_knows_when_it_is_wrong_beats_every_fixed_gamma(clock: Clock) -> None:
    """By more than it does without that knowledge."""
    alpha = good_for(lambda _: 0.8)

    def sure(position: int, before: int) -> float:
        is_right = alpha(position, before) == word(position, before)
        return random.Random(position).gauss(8.0 if is_right else 4.0, 1.0)

    def telling() -> Drafter:
        return ModelDrafter(Clockwork(clock, lambda rows: 0.006, alpha, 0.001, sure))

    def certain() -> Drafter:
        return ModelDrafter(Clockwork(clock, lambda rows: 0.006, alpha, 0.001))

    bench = Bench(clock, telling)
    fixed = [bench.run(gamma).seconds for gamma in (1, 2, 3, 4, 6, 8)]
    auto = bench.run("auto").seconds
    assert auto < 0.95 * min(fixed)
    assert auto < 0.95 * Bench(clock, certain).run("auto").seconds


def test_a_draft_that_is_free_to_ask_is_asked_until_it_finds_something(clock: Clock) -> None:
    """Plain rounds that are timed until a small gain is sure must not stand in its way."""
    chance = random.Random(1)
    # No two tokens come twice in the first 300; the rest is a copy of them.
    new = [number // 2 % VOCAB if number % 2 else number // 128 for number in range(300)]
    text = [*new, *new]

    class Lookup(StatefulDrafter):
        name = "lookup"
        uses_torch_threads = draws_from_law = False

        def open(self) -> DraftState:
            return Timed(PromptLookupDrafter(min_ngram=3).open())

    class Timed(DraftState):
        def __init__(self, inner: DraftState) -> None:
            self._inner = inner

        def propose(self, context: DraftContext) -> Draft:
            clock.now += 0.0002
            asked.append(len(context.sequences[0].tokens))
            return self._inner.propose(context)

        def release(self, sequence: int) -> None:
            self._inner.release(sequence)

    def noisy_s(rows: int) -> float:
        return flat_s(rows) * math.exp(chance.gauss(0, 0.06))

    asked: list[int] = []
    model = Clockwork(clock, noisy_s, lambda position, before: text[position], 0.003)
    engine = Engine(model, None, Lookup(), gamma="auto")
    engine.generate(text[:100], SamplingParams(max_tokens=300))
    before = [place for place in asked if place < 300]
    assert len(before) > 130
    assert len([place for place in asked if place >= 300]) < 60


class Boasting(StatefulDrafter):
    """Wrong now and then at the start, and sure of it; then silent; right from token 60 on."""

    name = "boasting"
    uses_torch_threads = draws_from_law = False

    def __init__(self, clock: Clock, asked: list[int]) -> None:
        self._clock, self._asked = clock, asked

    def open(self) -> DraftState:
        return Boast(self._clock, self._asked)


class Boast(DraftState):
    def __init__(self, clock: Clock, asked: list[int]) -> None:
        self._clock, self._asked = clock, asked

    def propose(self, context: DraftContext) -> Draft:
        self._clock.now += 0.0004
        [view] = context.sequences
        tokens, length = [view.tokens[-1]], len(view.tokens)
        place = length - len(PROMPT)
        if place < 60:
            self._asked.append(view.gamma)
        count = view.gamma if place in range(5, 30, 3) or place > 60 else 0
        for ahead in range(count):
            tokens.append((word(length + ahead, tokens[-1]) + (place < 60)) % VOCAB)
        return Draft.certain([tokens[1:]], context.device, [[0.9] * count])

    def release(self, sequence: int) -> None:
        del sequence


def even_s(rows: int) -> float:
    return 0.017 * (1 + 0.1 * (rows - 1))


@pytest.mark.parametrize("pass_s", [flat_s, even_s])
def test_what_a_first_draft_loses_leaves_enough_to_find_a_good_one(
    clock: Clock, pass_s: Callable[[int], float]
) -> None:
    asked: list[int] = []
    bench = Bench(clock, lambda: Boasting(clock, asked), pass_s)
    plain, auto = bench.run(0, 1, 300), bench.run("auto", 1, 300)
    assert auto.tokens == plain.tokens
    assert auto.seconds < 0.5 * plain.seconds
    # Of the three plain rounds that finding out may take, none of these takes more than a quarter.
    assert all(pass_s(1 + gamma) - pass_s(1) <= 0.9 * pass_s(1) for gamma in asked)


def test_a_machine_that_pauses_in_a_check_is_not_the_drafts_debt(clock: Clock) -> None:
    """Half a second, once such checks are known: no draft makes that."""

    def pausing_s(rows: int) -> float:
        calls.append(rows)
        is_paused = len(calls) > 80 and len(calls) % 40 == 20
        pauses.append(0.5 if is_paused else 0.0)
        return flat_s(rows) + pauses[-1]

    calls: list[int] = []
    pauses: list[float] = []
    bench = Bench(clock, lambda: model_draft(clock, lambda _: 0.85, 0.001), pausing_s)
    ledger = bench.run("auto", 1, 400).results[0].ledger
    assert ledger is not None
    assert any(rows > 1 and pause for rows, pause in zip(calls, pauses, strict=True))
    assert ledger.plain_s > 400 * 0.017 + 0.4


@pytest.mark.parametrize("step", [3, 9])
def test_a_check_that_is_dear_is_no_pause(clock: Clock, step: float) -> None:
    """Kernels without a path for few rows: the second row costs as much as several passes."""

    def stepped_s(rows: int) -> float:
        return 0.017 * (1 if rows == 1 else step + 0.01 * rows)

    bench = Bench(clock, lambda: model_draft(clock, lambda _: 0.05, 0.001), stepped_s)
    plain, auto = bench.run(0, 1, 2048), bench.run("auto", 1, 2048)
    assert auto.tokens == plain.tokens
    assert auto.seconds <= (1.01 if step < 4 else 1.02) * plain.seconds


def test_a_copy_is_as_long_as_its_match_is_worth(clock: Clock) -> None:
    """Half of the text repeats itself whole, half in pieces: no fixed gamma suits both."""
    chance = random.Random(3)
    whole = [chance.randrange(8, VOCAB) for _ in range(60)]
    pieces = [token for start in range(0, 56, 4) for token in (*whole[start : start + 2], 1, 2)]
    text = [*whole, *pieces, *whole, *pieces[::-1], *whole, *pieces] * 2

    def said(position: int, before: int) -> int:
        return text[position % len(text)]

    def seconds(gamma: Gamma) -> float:
        model = Clockwork(clock, flat_s, said, 0.003)
        engine = Engine(model, None, PromptLookupDrafter() if gamma else None, gamma=gamma)
        start = clock.now
        result = engine.generate(text[:60], SamplingParams(max_tokens=500))[0]
        assert list(result.token_ids) == [said(at, 0) for at in range(60, 560)]
        return clock.now - start

    assert seconds("auto") < min(seconds(gamma) for gamma in (1, 2, 4, 6, 8, 12, 16))


def test_a_good_draft_earns_the_reading_of_the_next_prompt(clock: Clock) -> None:
    """Reading a prompt takes 24 plain rounds; the first text is too short to earn them back."""
    bench = Bench(clock, lambda: model_draft(clock, lambda _: 0.95, 0.002, read_s=0.01))
    engine = Engine(bench.target, None, bench.draft(), gamma="auto")
    engine.generate([63, *PROMPT], SamplingParams(max_tokens=16))
    ledgers = [
        engine.generate([number, *PROMPT], SamplingParams(max_tokens=200))[0].ledger
        for number in range(3)
    ]
    speedups = [ledger.speedup for ledger in ledgers if ledger and ledger.speedup]
    assert len(speedups) == 3
    assert min(speedups) > 1.3


def test_one_long_prompt_does_not_stop_the_drafts_of_the_others(clock: Clock) -> None:
    """Its reading takes 400 plain rounds; the other sequence drafts on beside it."""
    bench = Bench(clock, lambda: model_draft(clock, lambda _: 0.95, 0.002, read_s=0.01))
    engine = Engine(bench.target, None, bench.draft(), gamma="auto", max_batch_size=2)
    engine.generate([[63, *PROMPT], [62, *PROMPT]], SamplingParams(max_tokens=200))
    short, long = engine.generate(
        [[61, *PROMPT], [60, *PROMPT * 17]], SamplingParams(max_tokens=100)
    )
    assert short.statistics.num_drafted > 60
    assert long.statistics.num_drafted == 0


def test_two_bad_drafts_are_no_verdict(clock: Clock) -> None:
    """A head that must read what it has missed is never tried again where they are."""
    started: list[int] = []

    def alpha(position: int) -> float:
        started.append(position)
        return 0.0 if position < min(started) + 10 else 0.9

    bench = Bench(clock, lambda: model_draft(clock, alpha, 0.006, read_s=0.003))
    [result] = bench.run("auto", 1, 200).results
    assert result.statistics.num_drafted > 100


def test_a_draft_that_turns_good_is_found_again(clock: Clock) -> None:
    bench = Bench(clock, lambda: model_draft(clock, lambda at: float(at > 500), 0.001, 1e-5))
    result = bench.run("auto", 1, 1500).results[0]
    assert result.ledger is not None
    assert result.ledger.speedup is not None
    assert result.ledger.speedup > 1.5


@pytest.mark.parametrize("drafter", ["model", "prompt lookup", "random"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_text_is_plain_decodings(drafter: str, temperature: float) -> None:
    params = SamplingParams(max_tokens=24, temperature=temperature, seed=5)
    plain = Engine(target("llama")).generate(PROMPTS, params)
    auto = Engine(target("llama"), draft=DRAFTERS[drafter]("llama"), gamma="auto")
    assert texts(auto.generate(PROMPTS, params)) == texts(plain)
