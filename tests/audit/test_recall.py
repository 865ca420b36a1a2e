"""A head behind a memo drafts as it does by itself, and computes no text twice."""

from dataclasses import replace

import pytest

from draftsmith.audit.memo import memoised
from draftsmith.audit.recall import Recalled
from draftsmith.audit.sampling import Setting, sampled
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Draft
from draftsmith.drafters.contract import DraftContext, DraftState, StatefulDrafter
from draftsmith.engine.engine import Engine
from tests.audit.kit import PROMPTS, subject
from tests.drafters.heads.kinds import MADE


class Counting(StatefulDrafter):
    """Counts the drafts that it is asked for."""

    def __init__(self, inner: StatefulDrafter) -> None:
        self.inner = inner
        self.name, self.boundaries, self.longest = inner.name, inner.boundaries, inner.longest
        self.num_asked = 0

    def open(self) -> DraftState:
        return CountingState(self, self.inner.open())


class CountingState(DraftState):
    def __init__(self, drafter: Counting, inner: DraftState) -> None:
        self.drafter, self.inner = drafter, inner

    def propose(self, context: DraftContext) -> Draft:
        self.drafter.num_asked += 1
        return self.inner.propose(context)

    def release(self, sequence: int) -> None:
        self.inner.release(sequence)


def made(kind: str) -> StatefulDrafter:
    drafter = MADE[kind](subject().target, 1)
    assert isinstance(drafter, StatefulDrafter)
    return drafter


@pytest.mark.parametrize("kind", MADE)
def test_more_samples_ask_a_head_for_no_more_drafts(kind: str) -> None:
    head = Counting(made(kind))
    remembered, memo = memoised(replace(subject(), drafters={kind: head}, itself=None, trees=None))
    setting = Setting(kind, remembered.drafters[kind])
    for seed in (8, 9):
        found = sampled(remembered.target, memo, setting, "rejection", PROMPTS[2], seed, 20)
        assert found.num_drafted == 20
    # Behind the prompt, 4 texts of one token and 16 of two: the first draft, and 4 that go on.
    assert head.num_asked <= (1 + 4 + 16) * 5
    # As many as if the second half had not been.
    asked = head.num_asked
    sampled(remembered.target, memo, setting, "rejection", PROMPTS[2], 9, 20)
    assert head.num_asked == asked


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("gamma", [1, 3])
def test_its_drafts_are_those_of_the_head(kind: str, gamma: int) -> None:
    params = SamplingParams(max_tokens=6, temperature=0.9, seed=5, ignore_eos=True, n=2)
    rejecting = replace(params, verifier="rejection")
    inner = made(kind)
    target, head = subject().target, Recalled(inner)
    for one in (params, rejecting):
        found, wanted = (
            Engine(target, draft=draft, gamma=gamma).generate(PROMPTS[:2], one)
            for draft in (head, inner)
        )
        for result, other in zip(found, wanted, strict=True):
            assert result.error is None
            for mine, theirs in zip(result.completions, other.completions, strict=True):
                assert mine.token_ids == theirs.token_ids
                assert mine.trace == theirs.trace
                assert mine.statistics == theirs.statistics
    assert any(law is not None for law in head.known.values())
