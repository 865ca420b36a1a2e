"""Requests come, go, fail and make way in any order: counts agree, and nobody's text is another."""
# transformers' objects, which the models are made of, have looser annotations:
# pyright: basic

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.tickets import Ticket
from draftsmith.kernels.cpu import library as cpu
from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.follower import Follower
from draftsmith.models.native.gpu_cache import GpuCache
from tests.engine.test_room import PROMPTS, on_cpu, on_gpu
from tests.wrapped import Wrapped

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")

MAKE = {"cpu": on_cpu, "gpu": on_gpu}
PARAMS = SamplingParams(max_tokens=70, ignore_eos=True, temperature=0.9, n=2)


class Sick(Wrapped):
    """Raises in a pass when it is told to."""

    countdown = 0

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        self._tick()
        super().extend(cache, row, tokens)

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        self._tick()
        super().prefill(cache, row, tokens)

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        self._tick()
        return super().forward(cache, batch)

    def _tick(self) -> None:
        self.countdown -= 1
        if self.countdown == 0:
            raise RuntimeError("planted")


@cache
def reference(kind: str, prompt: int, seed: int) -> list[tuple[int, ...]]:
    model: LanguageModel = MAKE[kind]("target")
    engine = Engine(model, prefix_caching=False)
    [result] = engine.generate([PROMPTS[prompt]], replace(PARAMS, seed=seed))
    return [one.token_ids for one in result.completions]


class Requests(RuleBasedStateMachine):
    kind = ""

    @initialize(limit=st.sampled_from([256, 320]), budget=st.sampled_from([30, 1024]))
    def start(self, limit: int, budget: int) -> None:
        self.models = [Sick(MAKE[self.kind](name)) for name in ("target", "draft")]
        target, draft = self.models
        self.engine = Engine(target, draft=ModelDrafter(draft), gamma=3, cache_tokens=limit)
        self.scheduler = self.engine.scheduler
        self.scheduler._prompt_budget = budget
        self.asked: dict[Ticket, tuple[int, ...]] = {}
        self.told: dict[Ticket, list[int]] = {}

    @rule(prompt=st.integers(0, len(PROMPTS) - 1), seed=st.integers(0, 1))
    def ask(self, prompt: int, seed: int) -> None:
        job = self.engine.prepare(PROMPTS[prompt], replace(PARAMS, seed=seed))
        texts = reference(self.kind, prompt, seed)
        for ticket, text in zip(self.scheduler.add(job.samples), texts, strict=True):
            self.asked[ticket], self.told[ticket] = text, []

    @precondition(lambda self: self.asked)
    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.hear(self.scheduler.step())

    def hear(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            told, text = self.told[ticket], self.asked[ticket]
            while ticket.news:
                news = ticket.news.popleft()
                told += [one.token_id for one in news.traces]
                if news.completion is not None:
                    assert news.completion.error is None
                    assert news.completion.token_ids == tuple(told)
            assert tuple(told) == text[: len(told)]
            if ticket.has_left:
                assert ticket.is_cancelled or len(told) == len(text)
                del self.asked[ticket]

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.asked)))
        self.scheduler.cancel([ticket])
        assert ticket.has_left
        self.hear([ticket])

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 1), after=st.integers(1, 6))
    def fail(self, which: int, after: int) -> None:
        self.models[which].countdown = after
        try:
            for _ in range(after):
                self.hear(self.scheduler.step())
        except RuntimeError:
            pass
        self.models[which].countdown = 0

    @rule()
    def forget(self) -> None:
        self.engine.reset_prefix_cache()
        assert self.engine.cache_statistics().num_kept == 0

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "engine"):
            return
        followers = self.scheduler._caches._open
        live = {ticket.sample.id for ticket in self.scheduler._live}
        for follower in followers:
            assert follower.cache is not None
            follower.cache.check_integrity()
            assert follower._rows.keys() <= live
            for row in follower._rows.values():
                assert len(row.held) == follower.cache.length(row.number)
            if isinstance(follower.cache, GpuCache):
                rows = [row.number for row in follower._rows.values()]
                follower.cache.pool.check_integrity([follower.cache.pages(row) for row in rows])

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(2000):
            if not self.asked:
                break
            self.hear(self.scheduler.step())
            self.everything_agrees()
        assert not self.asked
        assert self.engine.cache_statistics().num_held == 0
        self.engine.reset_prefix_cache()


def run(kind: str, *, is_planted: bool = False) -> None:
    class Machine(Requests):
        pass

    Machine.kind = kind
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25 if is_planted else 8,
            stateful_step_count=15,
            deadline=None,
            derandomize=is_planted,
            phases=[Phase.generate]
            if is_planted
            else [Phase.explicit, Phase.reuse, Phase.generate],
            report_multiple_bugs=False,
        ),
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", MAKE)
def test_requests_in_any_order_keep_their_texts(kind: str) -> None:
    run(kind)


def _forgets_a_row(follower: Follower, sequence: int) -> None:
    follower._rows.pop(sequence, None)


def test_rows_that_stay_behind_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a sequence leaves, and its row does not."""
    monkeypatch.setattr(Follower, "release", _forgets_a_row)
    with pytest.raises((AssertionError, KeyError)):
        run("cpu", is_planted=True)
