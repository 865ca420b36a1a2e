"""A target that a small head can learn in seconds: its law depends on the last token, mostly."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.train.heldout import Acceptance
from tests import tiny

SPOKEN = 64


def save_easy_target(
    folder: Path, seed: int = 3, *, kind: str = "llama", share: float = 0.1, **changes: Any
) -> Path:
    """A checkpoint with a tokenizer, whose layers add little to the embedding: that share."""
    tokenizer = tiny.raw_tokenizer()
    model = tiny.raw_model(kind, seed, vocab_size=len(tokenizer), **changes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter *= share
            if name == "lm_head.weight":
                parameter *= 3
                # So few ids are ever written that all that follows them can be learnt.
                parameter[SPOKEN:] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompts(count: int = 40) -> list[list[int]]:
    """Short ones, all different."""
    return [[4 + i % 60, 4 + 7 * i % 60, 4 + (11 * i + 3) % 60] for i in range(count)]


def check_is_as_foretold(drafting: Engine, plain: Engine, acceptance: Acceptance) -> None:
    """A trained draft changes no text, and its first tokens are kept as often as held-out ones."""
    params = SamplingParams(max_tokens=48, ignore_eos=True)
    drafted = drafting.generate(prompts(20), params)
    assert [one.text for one in drafted] == [
        one.text for one in plain.generate(prompts(20), params)
    ]
    told = [one.completions[0].statistics for one in drafted]
    first = [one.acceptance_per_position[0] for one in told]
    kept = mean(one for one in first if one is not None)
    assert kept == pytest.approx(acceptance.greedy[0], abs=0.12)
