"""Small P-EAGLE heads with random weights, and what their drafts must come to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from draftsmith.drafters.heads import HeadConfig, HeadWeights
from draftsmith.drafters.heads.parallel_layout import Mask
from draftsmith.drafters.heads.plain import PlainHead, causal
from tests.drafters.heads import kit

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "four-layers": {"num_layers": 4},
    "reduced": {"vocab_size": 40, "num_layers": 2},
    "normed-residual": {"norm_before_residual": True},
    "joint-norm": {"feature_norm": "joint"},
    "norm-each": {"feature_norm": "each"},
    "qwen3-heads": {"normalises_heads": True, "num_layers": 2},
    "target-embedding": {"has_embedding": False},
}


def config(name: str = "plain", **changes: Any) -> HeadConfig:
    return replace(kit.BASE, **{"has_embedding": True, **VARIANTS[name], **changes})


def mask(config: HeadConfig, token: int = 9, key: str = "mask_token_id") -> Mask:
    shape = len(config.boundaries), config.target_hidden_size
    states = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    return Mask(token, states, key)


def plain_laws(
    config: HeadConfig, weights: HeadWeights, mask: Mask, tokens: Sequence[int], gamma: int
) -> Tensor:
    """Logits over the target's ids of each token that is drafted behind a text: all rows at once,
    those of the mask last."""
    head = PlainHead(config, weights.tensors, kit.target().logits)
    embedding = weights.tensors["embedding"] if config.has_embedding else kit.table(5)
    states = torch.cat((kit.states_of(tokens, config)[:-1], mask.states.expand(gamma - 1, -1, -1)))
    read = [*tokens[1:], *[mask.token] * (gamma - 1)]
    features = head.feature(states).unsqueeze(0)
    stream = head.run(embedding[read].unsqueeze(0), features, torch.arange(len(read)), causal)
    found = torch.full((gamma, config.target_vocab_size), -torch.inf)
    ids = torch.arange(config.vocab_size) if weights.ids is None else weights.ids
    found[:, ids] = head.logits(stream)[0, -gamma:]
    return found
