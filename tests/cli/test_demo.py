"""`draftsmith demo`: one text, twice."""

from dataclasses import replace

import pytest

from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.request import Prompt
from draftsmith.engine.requests.result import GenerationResult
from tests.cli.outcome import Cli

_NAMES = ("target, draft", "plain", "speculative", "alpha", "tokens per pass", "accepted per")


def test_the_demo_shows_that_the_text_is_the_same(cli: Cli, roomy: str) -> None:
    outcome = cli("demo", "-m", roomy, "-n", "12")
    assert outcome.status == 0
    assert "\x1b[" in outcome.stdout, "the colours must survive a pipe"
    *_, table = outcome.stdout.split("emitted after the draft")
    assert "same text              yes" in table
    assert all(name in table for name in _NAMES)


def test_the_demo_fails_where_the_texts_differ(
    cli: Cli, roomy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = Engine.generate
    lengths = iter([4, 6, 6, 6, 5, 6, 6])

    def lie(self: Engine, prompts: Prompt, params: SamplingParams) -> list[GenerationResult]:
        return generate(self, prompts, replace(params, max_tokens=next(lengths)))

    monkeypatch.setattr(Engine, "generate", lie)
    outcome = cli("demo", "-m", roomy, "-n", "6")
    assert outcome.status == 1
    assert "same text              NO" in outcome.stdout
