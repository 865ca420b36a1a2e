"""Block heads for a target on a GPU: torch computes them there, and texts are plain decoding's.

Without a GPU the target runs on the twins of its kernels.
"""
# pyright: basic

from pathlib import Path
from random import Random
from unittest import mock

import pytest
import torch

from draftsmith.core.params import SamplingParams
from draftsmith.drafters.heads import block, load, trial
from draftsmith.drafters.heads.block import BlockHead
from draftsmith.drafters.heads.block_drafter import BlockDrafter
from draftsmith.drafters.heads.block_kind import BlockKind
from draftsmith.drafters.heads.kind import Written
from draftsmith.drafters.heads.load import load_head
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.engine.engine import Engine
from tests.drafters.heads import block_kit, gpu_kit, kit
from tests.drafters.recording import view
from tests.kernels.gpu.device import DEVICE

PROMPTS = [[5, 6, 7], list(range(1, 20))]


@pytest.fixture(autouse=True)
def _as_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(device: torch.device) -> bool:
        return False

    monkeypatch.setattr(block, "has_kernels", nowhere)


def drafter(name: str, branches: int = 1) -> BlockDrafter:
    config = block_kit.config(name)
    kind = BlockKind(config, block_kit.weights(config))
    return kind.made(gpu_kit.target(), "head", branches=branches)


@pytest.mark.parametrize(
    "name", ["dflash", "dspark-sure", "dspark-reduced", "dspark-rnn", "narrow"]
)
def test_after_any_rejections_its_logits_are_those_of_the_plain_twin(name: str) -> None:
    config, chance, handed = block_kit.config(name), Random(0), dict[int, int]()
    weights = block_kit.weights(config)
    head = BlockHead(config, weights, tables_of(gpu_kit.target()), DEVICE, None)
    state = BlockDrafter(head).open()
    texts = [[chance.randrange(kit.VOCAB) for _ in range(length)] for length in (2, 5, 90)]
    for _ in range(3):
        views = [view(text, chance.randint(0, 5), i) for i, text in enumerate(texts)]
        drawn = [[chance.randrange(kit.VOCAB) for _ in range(5)] for _ in texts]
        context = block_kit.Handing(views, drawn, config=config, handed=handed)
        state.propose(context)
        for row, text in enumerate(texts):
            count = min(views[row].gamma, config.longest)
            if count:
                shown = torch.stack(context.logits_of(row)).cpu()
                wanted, _ = block_kit.plain_laws(config, weights, text, drawn[row][: count - 1])
                torch.testing.assert_close(shown, wanted, rtol=1e-3, atol=1e-3)
            kept = chance.randint(0, count)
            texts[row] = [*text, *drawn[row][:kept], chance.randrange(kit.VOCAB)]


@pytest.mark.parametrize(
    ("name", "gamma", "temperature"),
    [("dflash", 4, 0.9), ("dspark-sure", 5, 0.0), ("dspark-sure", "auto", 0.9)],
)
def test_the_text_is_that_of_plain_decoding(
    name: str, gamma: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = gpu_kit.target()
    monkeypatch.setattr(target, "can_be_captured", True)
    params = SamplingParams(max_tokens=8, temperature=temperature, seed=3, ignore_eos=True)
    wanted = Engine(target, gamma=0).generate(PROMPTS, params)
    found = Engine(target, draft=drafter(name), gamma=gamma).generate(PROMPTS, params)
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    if gamma != "auto":
        assert sum(one.completions[0].statistics.num_drafted for one in found) > 40


def test_its_guesses_at_a_text_are_on_the_host() -> None:
    config = block_kit.config("dspark-reduced")
    tokens = [(7 * one) % kit.VOCAB for one in range(20)]
    states = block_kit.states_of(tokens, config)[:-1].to(DEVICE).unbind(1)
    text = Written(tokens, 4, dict(zip(config.boundaries, states, strict=True)))
    kind = BlockKind(config, block_kit.weights(config))
    there = kind.guesses(text, tables_of(gpu_kit.target()), 3)
    assert there.device.type == "cpu"
    assert there.shape == (3, len(text.rows(3)))


def test_the_loader_takes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = block_kit.config("dflash")
    kind = BlockKind(config, block_kit.weights(config))
    monkeypatch.setattr(load, "read_head", lambda folder, tables: kind)
    monkeypatch.setattr(trial, "try_head", lambda *given: mock.Mock(refusal=lambda: None))
    target = gpu_kit.target()
    monkeypatch.setattr(target, "can_be_captured", True)
    assert isinstance(load_head(tmp_path, target), BlockDrafter)
