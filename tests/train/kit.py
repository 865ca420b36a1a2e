"""A target that a small head can learn in seconds: its law depends on the last token, mostly."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from pathlib import Path
from typing import Any

import torch

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
