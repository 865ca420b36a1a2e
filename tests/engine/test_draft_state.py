"""A draft's state cannot show in a seeded text: the target as its own draft shows it in its counts.

Every token that a right draft of the target itself proposes is kept. One that is not tells of a row
that holds something else than the text, of a position that is off, or of a row that is another's.
"""

from dataclasses import replace

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.models.contract import Cache, Rows
from draftsmith.models.follower import Follower
from tests.engine.kit import PROMPTS, target, texts, twin
from tests.engine.test_scheduler import Watched

PARAMS = SamplingParams(max_tokens=21, ignore_eos=True)
MODES = [
    PARAMS,
    replace(PARAMS, temperature=0.9, seed=3),
    replace(PARAMS, temperature=0.9, verifier="block", seed=3),
    replace(PARAMS, temperature=0.9, verifier="rejection", seed=3),
    replace(PARAMS, temperature=0.9, seed=3, repetition_penalty=1.2),
]
KINDS = ["llama", "mistral-sliding", "t5"]


def ragged(params: SamplingParams) -> list[SamplingParams]:
    """A length of its own for every prompt, so that sequences come and go."""
    return [replace(params, max_tokens=length) for length in (21, 4, 13, 1, 30)]


# Every pair of a kind, a mode and a batch size, not every triple.
@pytest.mark.parametrize(
    ("kind", "params", "batch"),
    [
        (kind, params, (1, 2, 5)[(i + j) % 3])
        for i, kind in enumerate(KINDS)
        for j, params in enumerate(MODES)
    ],
)
def test_a_target_that_drafts_for_itself_is_never_rejected(
    kind: str, params: SamplingParams, batch: int
) -> None:
    for draft in drafts_of(kind):
        engine = Engine(target(kind), draft=draft, gamma=3, max_batch_size=batch)
        results = engine.generate(PROMPTS, ragged(params))
        for result in results:
            counts = result.statistics
            assert counts.num_accepted == counts.num_tested
            assert counts.num_tested >= counts.num_drafted - 3, "only the end may cut a draft"


def drafts_of(kind: str) -> list[Drafter]:
    own = ModelDrafter(target(kind))
    return [own, SpeculativeDrafter(target(kind), PromptLookupDrafter(1), inner_gamma=2)]


def test_a_draft_runs_no_token_that_it_need_not() -> None:
    draft = Watched(target("llama"))
    engine = Engine(target("llama"), draft=ModelDrafter(draft), gamma=3)
    [result] = engine.generate([PROMPTS[2]], replace(PARAMS, max_tokens=21))
    # The prompt but its last token; then each round the newest token and two drafted ones, and
    # from the second round on the third one of the round before, which was kept unfed.
    rounds = len({one.round for one in result.completions[0].trace})
    drafted = result.statistics.num_drafted
    assert rounds == 6
    assert draft.num_tokens == len(PROMPTS[2]) - 1 + drafted + (rounds - 2)


def test_a_forgotten_rollback_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: rejected tokens stay in the draft's row. The text is right, the counts are not."""

    def counts(draft: Drafter) -> tuple[list[list[tuple[int, ...]]], int]:
        params = replace(PARAMS, temperature=0.9, seed=3)
        results = Engine(target("llama"), draft=draft, gamma=3).generate(PROMPTS, params)
        return texts(results), sum(result.statistics.num_accepted for result in results)

    class Stale(Watched):
        """Goes on behind what it should have forgotten."""

        def open_cache(self) -> Cache:
            cache = super().open_cache()
            cache.rollback = lambda row, length: None  # type: ignore[method-assign] # planted
            return cache

    right, wrong = counts(ModelDrafter(twin("llama"))), counts(ModelDrafter(Stale(twin("llama"))))
    assert right[0] == wrong[0]
    assert right[1] > wrong[1]


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0, 3])
def test_a_finished_sequence_leaves_its_rows_at_once(gamma: int) -> None:
    model, draft = Watched(target("llama")), Watched(twin("llama"))
    engine = Engine(model, draft=ModelDrafter(draft) if gamma else None, gamma=gamma)
    live = set(range(len(PROMPTS)))
    for event in engine.stream(PROMPTS, ragged(PARAMS)):
        if event.result is not None:
            live.discard(event.prompt_index)
        if event.prompt_index == max(live, default=0):
            assert model.num_open == len(live)
            assert draft.num_open <= len(live)
    assert model.num_open == draft.num_open == 0


def test_rows_that_are_never_closed_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a follower that keeps the rows of sequences that have ended."""

    def keep(follower: Follower, sequence: int) -> None:
        return None

    monkeypatch.setattr(Follower, "release", keep)
    with pytest.raises(AssertionError):
        test_a_finished_sequence_leaves_its_rows_at_once(0)


# --- the context's end --------------------------------------------------------------------------


class Lengths(Watched):
    """Notes the longest row that a pass has made."""

    longest = 0

    def forward(self, cache: Cache, batch: Rows) -> object:  # type: ignore[override] # a spy
        logits = super().forward(cache, batch)
        self.longest = max(self.longest, *(cache.length(row) for row in batch.rows))
        return logits


@pytest.mark.parametrize("gamma", [0, 1, 4, 32])
@pytest.mark.parametrize("is_asked", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_text_goes_up_to_the_context_and_no_further(
    gamma: int, is_asked: bool, temperature: float
) -> None:
    model = Lengths(target("llama"))
    context = model.traits.context_length
    assert context == 128
    base = SamplingParams(temperature=temperature, seed=2, ignore_eos=True)
    draft = ModelDrafter(target("llama")) if gamma else None
    engine = Engine(model, draft=draft, gamma=gamma)
    prompts = [PROMPTS[0] * 20, PROMPTS[3] * 25, PROMPTS[2] * 10]
    params = [replace(base, max_tokens=128 - len(p) if is_asked else None) for p in prompts]
    for prompt, result in zip(prompts, engine.generate(prompts, params), strict=True):
        assert len(prompt) + len(result.token_ids) == context
        assert result.finish_reason == "length"
    # The last token is chosen by the one before it, and never fed.
    assert model.longest == context - 1
