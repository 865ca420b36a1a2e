"""Small Medusa heads with random weights, and their layouts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from draftsmith.drafters.heads import HeadWeights
from draftsmith.drafters.heads.medusa_config import MedusaConfig
from draftsmith.drafters.heads.medusa_plain import plain_medusa
from tests.drafters.heads import kit

BASE = MedusaConfig(
    num_heads=3,
    num_blocks=1,
    hidden_size=kit.WIDTH,
    target_vocab_size=kit.VOCAB,
    vocab_size=kit.VOCAB,
    boundary=kit.LAYERS,
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two-blocks": {"num_blocks": 2},
    "without-bias": {"has_bias": False, "num_heads": 5},
    "one-output": {"outputs": "one"},
    "target-output": {"outputs": "target's", "num_blocks": 2},
    "reduced": {"vocab_size": 40},
    "before-the-norm": {"reads_normed": False},
}
STATES = kit.config(boundaries=(kit.LAYERS,))
"""What a round hands out."""


def config(name: str = "plain", **changes: Any) -> MedusaConfig:
    return replace(BASE, **{**VARIANTS[name], **changes})


def weights(config: MedusaConfig, seed: int = 0) -> HeadWeights:
    chance = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=chance) * 0.3 for name, shape in config.shapes().items()
    }
    ids = None
    if config.vocab_size < config.target_vocab_size:
        order = torch.randperm(config.target_vocab_size, generator=chance)
        ids = order[: config.vocab_size].sort().values
    return HeadWeights(tensors, ids)


def plain_laws(
    config: MedusaConfig, weights: HeadWeights, tokens: Sequence[int], gamma: int
) -> Tensor:
    """Logits of each token that is drafted behind a text, by the twin."""
    state = kit.states_of(tokens, STATES)[len(tokens) - 2, 0]
    found = plain_medusa(config, weights, target(), state.unsqueeze(0))
    return found[: min(gamma, config.num_heads), 0]


def target(**changes: Any) -> Any:
    norm = torch.linspace(0.5, 1.5, kit.WIDTH), 1e-5
    return kit.target(final_norm=norm, **changes)
