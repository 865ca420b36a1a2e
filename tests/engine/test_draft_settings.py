"""The draft's own sampling settings: its law changes, the text's law does not."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.core.laws import History, SamplingLaw
from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.core.verdict import draw
from draftsmith.drafters import Drafter, ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.rounds.drafting import RoundContext
from draftsmith.engine.rounds.turn import Turn
from draftsmith.errors import InvalidRequestError
from tests.engine import test_law
from tests.engine.kit import DRAFTERS, PROMPTS, Ramp, target, texts, twin
from tests.statistics import assert_law

SETTINGS: dict[str, dict[str, Any]] = {
    "hotter": {"draft_temperature": 1.7},
    "colder": {"draft_temperature": 0.3},
    "greedy": {"draft_temperature": 0.0},
    "narrow": {"draft_top_k": 3, "draft_top_p": 0.7},
    "wide": {"draft_top_k": 0, "draft_top_p": 1.0},
}
MODES = {
    "greedy": SamplingParams(max_tokens=10, frequency_penalty=0.4),
    "seeded": SamplingParams(
        max_tokens=10, temperature=0.8, top_k=40, top_p=0.9, seed=7, frequency_penalty=0.3
    ),
}


@cache
def plain(mode: str) -> list[list[tuple[int, ...]]]:
    return texts(Engine(target("llama")).generate(PROMPTS, MODES[mode]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("drafter", ["model", "bigram", "hierarchical"])
def test_the_text_does_not_depend_on_the_drafts_settings(drafter: str, mode: str) -> None:
    engine = Engine(target("llama"), draft=DRAFTERS[drafter]("llama"), gamma=3)
    for name, settings in SETTINGS.items():
        results = engine.generate(PROMPTS, replace(MODES[mode], **settings))
        assert texts(results) == plain(mode), name


def test_settings_of_a_draft_that_draws_from_no_law_are_refused() -> None:
    engine = Engine(target("llama"), draft=DRAFTERS["prompt lookup"]("llama"))
    for name, value in (("draft_temperature", 0.5), ("draft_top_k", 3), ("draft_top_p", 0.5)):
        with pytest.raises(InvalidRequestError, match=rf"{name}.*prompt-lookup.*{value}"):
            engine.generate(PROMPTS[0], SamplingParams.from_options(**{name: value}))


def test_the_settings_do_reach_the_draft() -> None:
    """A draft of the target itself is always kept, unless its settings are its own."""

    def alpha(mode: str, **settings: Any) -> float:
        engine = Engine(target("llama"), draft=ModelDrafter(target("llama")), gamma=3)
        results = engine.generate(PROMPTS, replace(MODES[mode], **settings))
        counts = sum((result.statistics for result in results), SpeculationStatistics())
        assert counts.alpha is not None
        return counts.alpha

    for mode, same in (("greedy", 0.0), ("seeded", 0.8)):
        assert alpha(mode) == alpha(mode, draft_temperature=same) == 1
        assert alpha(mode, draft_temperature=3.0) < 1
    assert alpha("greedy", draft_temperature=3.0, draft_top_k=1) == 1
    assert alpha("seeded", draft_top_k=1) < 1


def recorded(params: SamplingParams) -> tuple[Turn, list[Tensor]]:
    """One round's draft by a ramp, and the logits that it drew from."""
    request = make_request(PROMPTS[0], params, target("llama").traits, None)
    one = request.sequence(0, 3, torch.device("cpu"), None)
    turn = one.turn(3)
    drafter = Ramp()
    context = RoundContext([turn], target("llama").traits.vocab_size, torch.device("cpu"))
    drafter.propose(context)
    return turn, list(drafter.block_logits([turn.view], 3)[0])


def check_law(params: SamplingParams) -> None:
    """The reported law is the one that `params.for_draft()` says, and the token its draw."""
    turn, logits = recorded(params)
    law = SamplingLaw(params.for_draft(), ())
    history = History(torch.tensor(PROMPTS[0]), torch.empty(0, dtype=torch.long))
    uniforms = turn.noise.uniforms(0, 3)[0]
    assert len(turn.laws) == len(turn.drawn) == 3
    for step, (row, reported, token) in enumerate(zip(logits, turn.laws, turn.drawn, strict=True)):
        drafted = torch.tensor(turn.drawn[:step], dtype=torch.long)
        expected = law(row.unsqueeze(0), history, drafted)
        torch.testing.assert_close(reported.unsqueeze(0), expected)
        assert int(draw(reported.unsqueeze(0), uniforms[step : step + 1])) == token


HOT = SamplingParams(
    temperature=0.8, verifier="rejection", frequency_penalty=0.6, draft_temperature=2.5,
    draft_top_k=12, draft_top_p=0.8,
)  # fmt: skip


@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_the_reported_law_is_the_law_drawn_from(verifier: str) -> None:
    check_law(replace(HOT, verifier=verifier))


def test_a_reported_law_with_the_targets_settings_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: the draft draws by its own settings and reports the target's law."""
    record = RoundContext.record

    def misreport(context: RoundContext, turn: Turn, token: int, law: Tensor | None) -> None:
        logits = Ramp().block_logits([turn.view], 3)[0, len(turn.drawn)]
        record(context, turn, token, turn.laws_after(logits.unsqueeze(0), turn.drawn)[0])

    monkeypatch.setattr(RoundContext, "record", misreport)
    with pytest.raises(AssertionError):
        check_law(HOT)


@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_a_greedy_draft_reports_that_it_was_certain(verifier: str) -> None:
    turn, logits = recorded(replace(HOT, verifier=verifier, draft_temperature=0.0))
    assert turn.laws == []
    assert turn.drawn[0] == int(logits[0].argmax())


@pytest.mark.long
@pytest.mark.statistical
@pytest.mark.parametrize(
    ("verifier", "settings"),
    [
        ("rejection", {"draft_temperature": 2.0, "draft_top_k": 2}),
        ("block", {"draft_temperature": 0.0}),
    ],
    ids=["hot", "greedy"],
)
def test_the_law_of_the_text_is_the_targets(
    monkeypatch: pytest.MonkeyPatch, verifier: str, settings: dict[str, Any]
) -> None:
    made = test_law.params

    def with_settings(name: str) -> SamplingParams:
        return replace(made(name), **settings)

    monkeypatch.setattr(test_law, "params", with_settings)
    drafter: Drafter = ModelDrafter(test_law.model(10))
    outcomes, statistics = test_law.sample(drafter, verifier)
    assert statistics.num_accepted < statistics.num_tested
    assert_law(
        outcomes,
        test_law.exact_law(),
        false_fail_rate=test_law.FALSE_FAIL_RATE,
        detects=test_law.DETECTS,
    )


def test_a_mixed_batch_is_as_each_alone() -> None:
    params = [
        replace(MODES["greedy"], draft_temperature=1.5),
        replace(MODES["seeded"], verifier="rejection", draft_temperature=0.0),
        replace(MODES["seeded"], verifier="block", draft_top_k=2),
        MODES["seeded"],
        MODES["greedy"],
    ]
    engine = Engine(target("llama"), draft=ModelDrafter(twin("llama")), gamma=3)
    alone = [engine.generate(*pair)[0] for pair in zip(PROMPTS, params, strict=True)]
    assert texts(engine.generate(PROMPTS, params)) == texts(alone)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("draft_temperature", -1.0),
        ("draft_temperature", float("nan")),
        ("draft_top_k", -2),
        ("draft_top_p", 0.0),
        ("draft_top_p", 1.5),
    ],
)
def test_a_setting_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{name} must be"):
        SamplingParams.from_options(**{name: value})
