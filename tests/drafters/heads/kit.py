"""Small heads with random weights, targets to go with them, and a round that hands out states."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from draftsmith.drafters.heads import HeadConfig, HeadWeights
from draftsmith.drafters.heads.plain import PlainHead, causal
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import shapes
from tests.drafters.recording import Recording

VOCAB, WIDTH, LAYERS = 96, 32, 6
BASE = HeadConfig(
    boundaries=(1, 3, 5),
    target_hidden_size=WIDTH,
    target_vocab_size=VOCAB,
    hidden_size=WIDTH,
    intermediate_size=64,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_size=16,
    vocab_size=VOCAB,
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "reduced": {"vocab_size": 40},
    "normed-residual": {"norm_before_residual": True},
    "fed-back-normed": {"feeds_back_normed": True},
    "joint-norm": {"feature_norm": "joint"},
    "norm-each": {"feature_norm": "each"},
    "qwen3-heads": {"normalises_heads": True, "num_layers": 2},
    "narrow": {"hidden_size": 64, "has_embedding": True, "head_size": 8},
    "target-head": {"has_head": False},
}


def config(name: str = "plain", **changes: Any) -> HeadConfig:
    return replace(BASE, **{**VARIANTS[name], **changes})


def weights(config: HeadConfig, seed: int = 0) -> HeadWeights:
    chance = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=chance) * 0.2 + (1.0 if len(shape) == 1 else 0.0)
        for name, shape in shapes(config).items()
    }
    ids = None
    if config.is_reduced:
        order = torch.randperm(config.target_vocab_size, generator=chance)
        ids = order[: config.vocab_size].sort().values
    return HeadWeights(tensors, ids)


def table(seed: int = 5) -> Tensor:
    return torch.randn(VOCAB, WIDTH, generator=torch.Generator().manual_seed(seed)) * 0.5


def target(**changes: Any) -> TargetTables:
    embedding, head = table(5), table(6)

    def embed(ids: Sequence[int]) -> Tensor:
        return embedding[list(ids)]

    def logits(inputs: Tensor) -> Tensor:
        return inputs @ head.T

    def rows(ids: Sequence[int]) -> Tensor:
        return head[list(ids)]

    norm = torch.ones(WIDTH), 1e-5
    whole = TargetTables("the target", LAYERS, WIDTH, VOCAB, embed, logits, rows, norm)
    return whole._replace(**changes)


def states_of(tokens: Sequence[int], config: HeadConfig) -> Tensor:
    """Stand-ins for a target's states: of each token, by all tokens up to it."""
    wide = len(config.boundaries) * config.target_hidden_size
    made = torch.randn(VOCAB, wide, generator=torch.Generator().manual_seed(7))
    running = made[list(tokens)].cumsum(0) / torch.arange(1, len(tokens) + 1).unsqueeze(1)
    return running.unflatten(1, (len(config.boundaries), config.target_hidden_size))


def plain_laws(
    config: HeadConfig, weights: HeadWeights, tokens: Sequence[int], drawn: Sequence[int]
) -> Tensor:
    """Logits over the target's ids of each token that is drafted behind a text, by the twin."""
    head = PlainHead(config, weights.tensors, target().logits)
    embedding = weights.tensors["embedding"] if config.has_embedding else table(5)
    features = head.feature(states_of(tokens, config)[:-1].unsqueeze(0))
    read, found = list(tokens[1:]), list[Tensor]()
    for token in [*drawn, None]:
        stream = head.run(embedding[read].unsqueeze(0), features, torch.arange(len(read)), causal)
        whole = torch.full((config.target_vocab_size,), -torch.inf)
        ids = torch.arange(config.vocab_size) if weights.ids is None else weights.ids
        found.append(whole.index_copy(0, ids, head.logits(stream)[0, -1]))
        if token is not None:
            read.append(token)
            features = torch.cat((features, head.fed_back(stream[:, -1:])), dim=1)
    return torch.stack(found)


@dataclass
class Handing(Recording):
    """A recorded round that hands out states of what no earlier one did."""

    config: HeadConfig = BASE
    handed: dict[int, int] = field(default_factory=dict)
    """Of each sequence, how many tokens' states were handed out."""

    def states(self, row: int) -> Tensor:
        view = self.sequences[row]
        start = self.handed.get(view.id, 0)
        self.handed[view.id] = max(start, len(view.tokens) - 1)
        return states_of(view.tokens, self.config)[start:-1]
