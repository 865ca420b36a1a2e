"""Sequences that join and leave between rounds: whose they are, what they leave, who may ask."""

import gc
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import (
    Draft,
    DraftContext,
    Drafter,
    ModelDrafter,
    PromptLookupDrafter,
)
from draftsmith.engine.baton import Baton
from draftsmith.engine.control.contract import Choice, RoundReport, Sample
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.requests.result import FinishReason
from draftsmith.engine.requests.sequence import Sequence as Sequenced
from draftsmith.engine.scheduler import PROMPT_BUDGET, Scheduler
from draftsmith.errors import DraftError
from draftsmith.models.contract import Cache, LanguageModel, Rows
from tests.engine.clockwork import Clock, Clockwork
from tests.engine.kit import PROMPTS, target, texts, twin
from tests.wrapped import Wrapped

LONG = SamplingParams(max_tokens=24, ignore_eos=True)
SEEDED = replace(LONG, temperature=0.9, seed=6)
LATE_PROMPTS = [[5, 6, 7, 8] * 6, [9, 10, 11, 12] * 6]


class Watched(Wrapped):
    """Counts tokens and rows, and raises where a test wants it to."""

    def __init__(self, inner: LanguageModel) -> None:
        super().__init__(inner)
        self.num_tokens = 0
        self.widest = 0
        self.num_open = 0
        self.on_pass: Callable[[int], None] = lambda number: None
        self._number = 0

    def open_cache(self) -> Cache:
        cache = super().open_cache()
        add, remove = cache.add, cache.remove

        def counted_add() -> int:
            self.num_open += 1
            return add()

        def counted_remove(row: int) -> None:
            self.num_open -= 1
            remove(row)

        cache.add, cache.remove = counted_add, counted_remove  # type: ignore[method-assign] # a spy
        return cache

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        self._next(sum(map(len, batch.tokens)))
        self.widest = max(self.widest, batch.width)
        return super().forward(cache, batch)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        self._next(len(tokens))
        super().extend(cache, row, tokens)

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        self._next(len(tokens))
        super().prefill(cache, row, tokens)

    def _next(self, num_tokens: int) -> None:
        self._number += 1
        self.num_tokens += num_tokens
        self.on_pass(self._number)


@dataclass
class Now:
    """Raises at one pass."""

    number: int
    error: type[BaseException]

    def __call__(self, number: int) -> None:
        if number == self.number:
            raise self.error("planted")


@dataclass
class Plan:
    """A controller that drafts in the rounds that it is told."""

    gamma: int
    rounds: frozenset[int]
    number: int = field(default=0)

    def choose(self, sequences: Sequence[Sample]) -> Choice:
        self.number += 1
        gamma = self.gamma if self.number in self.rounds else 0
        return Choice([gamma] * len(sequences))

    def observe(self, report: RoundReport) -> None:
        return None

    @property
    def ledger(self) -> None:
        return None


def plain(params: SamplingParams = LONG) -> list[list[tuple[int, ...]]]:
    return texts(Engine(target("llama")).generate(PROMPTS, params))


# --- what is raised in the middle ---------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, 12))
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_engine_is_whole_after_an_interrupt_anywhere_in_its_draft(
    number: int, error: type[BaseException]
) -> None:
    sick = Watched(twin("llama"))
    sick.on_pass = Now(number, error)
    engine = Engine(target("llama"), draft=ModelDrafter(sick), gamma=3)
    with pytest.raises(error, match="planted"):
        engine.generate(PROMPTS, SEEDED)
    assert texts(engine.generate(PROMPTS, SEEDED)) == plain(SEEDED)


@pytest.mark.parametrize("number", range(1, 12))
def test_an_engine_is_whole_after_an_interrupt_anywhere_in_its_target(number: int) -> None:
    sick = Watched(target("llama"))
    sick.on_pass = Now(number, KeyboardInterrupt)
    engine = Engine(sick, draft=ModelDrafter(twin("llama")), gamma=3)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(PROMPTS, SEEDED)
    assert texts(engine.generate(PROMPTS, SEEDED)) == plain(SEEDED)


@pytest.mark.parametrize("number", [2, 6, 9, 14])
@pytest.mark.parametrize("where", ["target", "draft"])
def test_a_run_that_was_cut_off_goes_on_with_its_own_text(where: str, number: int) -> None:
    sick = Watched(target("llama") if where == "target" else twin("llama"))
    sick.on_pass = Now(number, RuntimeError)
    models = (sick, twin("llama")) if where == "target" else (target("llama"), sick)
    run = Engine(models[0], draft=ModelDrafter(models[1]), gamma=3).start(PROMPTS, SEEDED)
    tokens: list[int] = []

    def follow() -> None:
        for event in run:
            tokens.extend(one.token_id for one in event.tokens if event.prompt_index == 0)

    with pytest.raises(RuntimeError, match="planted"):
        follow()
    follow()
    assert texts(run.results()) == plain(SEEDED)
    assert tuple(tokens) == plain(SEEDED)[0][0], "every token is told once"


def test_a_run_that_was_cut_off_may_be_aborted() -> None:
    sick = Watched(target("llama"))
    sick.on_pass = Now(9, KeyboardInterrupt)
    run = Engine(sick).start(PROMPTS, SEEDED)
    with pytest.raises(KeyboardInterrupt):
        list(run)
    list(run.abort())
    assert {result.finish_reason for result in run.results()} == {FinishReason.ABORT}
    for result, text in zip(run.results(), plain(SEEDED), strict=True):
        assert 0 < len(result.token_ids) < 24
        assert result.token_ids == text[0][: len(result.token_ids)]


# --- several runs of one engine -----------------------------------------------------------------


def test_two_runs_in_turn_draft_no_token_twice() -> None:
    def engine_of(draft: LanguageModel) -> Engine:
        return Engine(target("llama"), draft=ModelDrafter(draft), gamma=3)

    apart, in_turn = Watched(twin("llama")), Watched(twin("llama"))
    engine = engine_of(apart)
    for prompt in LATE_PROMPTS:
        engine.generate(prompt, LONG)
    engine = engine_of(in_turn)
    runs = [iter(engine.start(prompt, LONG)) for prompt in LATE_PROMPTS]
    while runs:
        runs = [run for run in runs if next(run, None) is not None]
    assert 0 < in_turn.num_tokens <= apart.num_tokens


@pytest.mark.parametrize("gamma", [3, "auto"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: ModelDrafter(twin("llama")),
        lambda: PromptLookupDrafter(1),
        lambda: SpeculativeDrafter(twin("llama"), PromptLookupDrafter(1), inner_gamma=2),
    ],
    ids=["model", "lookup", "hierarchical"],
)
def test_threads_share_an_engine(make: Callable[[], Drafter], gamma: int) -> None:
    engine = Engine(target("llama"), draft=make(), gamma=gamma, max_batch_size=3)
    assert in_threads(lambda k: engine.generate(PROMPTS[k], SEEDED)[0].token_ids, 3) == [
        text[0] for text in plain(SEEDED)
    ]


def test_engines_in_threads_share_a_drafter() -> None:
    draft = ModelDrafter(twin("llama"))
    engines = [Engine(target("llama"), draft=draft, gamma=3) for _ in PROMPTS]
    assert in_threads(lambda k: engines[k].generate(PROMPTS[k], SEEDED)[0].token_ids, 3) == [
        text[0] for text in plain(SEEDED)
    ]


def in_threads(work: Callable[[int], tuple[int, ...]], times: int) -> list[tuple[int, ...]]:
    """One thread a prompt, each several times; every time the same must come out."""
    found: list[set[tuple[int, ...]]] = [set() for _ in PROMPTS]
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for _ in range(times):
                found[number].add(work(number))
        except BaseException as error:  # shown by the test
            errors.append(error)

    with often_switched():
        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(PROMPTS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    assert [len(one) for one in found] == [1] * len(PROMPTS)
    return [next(iter(one)) for one in found]


@contextmanager
def often_switched() -> Generator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_a_drafter_that_runs_its_own_engine_is_told_so() -> None:
    class Asks(Drafter):
        def propose(self, context: DraftContext) -> Draft:
            engine.generate([5], LONG)
            raise AssertionError("it should have been told")

    engine = Engine(target("llama"), draft=Asks(), gamma=2)
    with pytest.raises(DraftError, match="ran the engine that it drafts for"):
        engine.generate(PROMPTS[0], LONG)


# --- who is in ----------------------------------------------------------------------------------


def scheduler(model: LanguageModel, prompt_budget: int | None = PROMPT_BUDGET) -> Scheduler:
    return Scheduler(model, None, Plan(0, frozenset()), 2, prompt_budget)


def samples(*prompts: Sequence[int], params: SamplingParams = LONG) -> list[Sequenced]:
    traits = target("llama").traits
    made = [make_request(list(prompt), params, traits, None) for prompt in prompts]
    return [one.sequence(0, 6, target("llama").device, None) for one in made]


def test_a_run_that_is_dropped_frees_its_rows() -> None:
    watched = Watched(target("llama"))
    engine = Engine(watched, max_batch_size=2)
    for event in engine.stream(PROMPTS, LONG):
        assert event.tokens
        break
    gc.collect()
    assert watched.num_open == 0
    assert texts(engine.generate(PROMPTS, LONG)) == plain()
    assert watched.num_open == 0


def test_cancelled_sequences_leave_and_others_take_their_places() -> None:
    watched = Watched(target("llama"))
    engine = scheduler(watched)
    tickets = engine.add(samples(*PROMPTS[:3]))
    engine.step()
    assert [ticket.started_at is not None for ticket in tickets] == [True, True, False]
    engine.cancel([tickets[0]])
    assert tickets[0].has_left, "at once, if nobody is at work"
    engine.step()
    assert [ticket.started_at is not None for ticket in tickets] == [True, True, True]
    while not all(ticket.has_left for ticket in tickets):
        engine.step()
    assert watched.num_open == 0
    ends = [ticket.news[-1].completion for ticket in tickets]
    assert [one.finish_reason for one in ends if one] == ["abort", "length", "length"]
    assert [one.token_ids for one in ends if one][1:] == [text[0] for text in plain()[1:3]]


def test_a_long_prompt_is_read_beside_the_rounds_of_others() -> None:
    engine = scheduler(Watched(target("llama")), prompt_budget=16)
    [short] = engine.add(samples(PROMPTS[1]))
    engine.step()
    [long] = engine.add(samples([5, 6, 7, 8] * 20))
    for step in range(1, 5):
        engine.step()
        assert len(short.news) == step + 1
        assert not long.news
    engine.step()
    assert long.news, "79 tokens in five steps of 16"
    expected = Engine(target("llama")).generate([5, 6, 7, 8] * 20, LONG)[0].token_ids
    while not long.has_left:
        engine.step()
    assert [one.token_id for news in long.news for one in news.traces] == list(expected)


def test_a_draft_that_was_left_out_for_long_catches_up_without_logits() -> None:
    draft = Watched(twin("llama"))
    engine = Engine(target("llama"), draft=ModelDrafter(draft), gamma=2)
    engine.controller = Plan(2, frozenset({1, 60}))
    params = replace(SEEDED, max_tokens=90)
    result = engine.generate(PROMPTS[0], params)[0]
    assert result.token_ids == Engine(target("llama")).generate(PROMPTS[0], params)[0].token_ids
    assert result.statistics.num_drafted > 2
    assert draft.num_tokens > 60, "it has read what it missed"
    assert draft.widest <= 9, "and took no logits of it"


def test_a_cancel_in_a_forked_child_waits_for_no_lock_of_its_parent() -> None:
    scheduler = Engine(Clockwork(Clock(), lambda rows: 0.0, lambda place, token: token)).scheduler
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with scheduler._baton._condition:  # pyright: ignore[reportPrivateUsage]
            is_held.set()
            is_over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    scheduler._process += 1  # pyright: ignore[reportPrivateUsage] # as in a child
    child = threading.Thread(target=scheduler.cancel, args=([],), daemon=True)
    child.start()
    child.join(timeout=60)
    is_stuck = child.is_alive()
    is_over.set()
    holder.join()
    assert not is_stuck


def test_a_forked_child_has_an_engine_of_its_own() -> None:
    script = """
import os, sys, threading
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import PromptLookupDrafter
from draftsmith.engine.engine import Engine
from tests.engine.clockwork import Clock, Clockwork
model = Clockwork(Clock(), lambda rows: 0.0, lambda place, token: (token + 1) % 64)
engine = Engine(model, draft=PromptLookupDrafter(1), gamma=2)
params = SamplingParams(max_tokens=20)
want = engine.generate([5], params)[0].token_ids
stop = threading.Event()
def work():
    while not stop.is_set():
        engine.generate([7, 8], params)
thread = threading.Thread(target=work)
thread.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if engine.generate([5], params)[0].token_ids == want else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=300)


def test_who_waits_hears_of_every_round() -> None:
    """One thread steps for all; the others must not wait until it is done with its own."""
    engine = Engine(target("llama"), max_batch_size=4)
    heard: list[int] = []
    ready = threading.Barrier(3)

    def follow(number: int) -> None:
        ready.wait()
        run = engine.stream(PROMPTS[number], replace(LONG, max_tokens=60))
        heard.extend(number for _ in run)

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 180
    middle = heard[30:-30]
    assert max(len(list(run)) for _, run in itertools.groupby(middle)) <= 4


def test_the_baton_goes_round() -> None:
    baton, order = Baton(), list[int]()
    assert baton.take()

    def pass_on(number: int) -> None:
        for _ in range(3):
            assert baton.take()
            order.append(number)
            baton.let_go()

    threads = [threading.Thread(target=pass_on, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert not baton.take_if_free()
    with pytest.raises(DraftError):
        baton.take()
    baton.let_go()
    for thread in threads:
        thread.join()
    assert sorted(order) == sorted([*range(4)] * 3)
    assert not baton.take(lambda: True)
    assert baton.take_if_free()
