"""Small block heads with random weights, and what the plain twin says behind any history."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_plain import BlockRows, PlainBlock
from draftsmith.drafters.heads.block_weights import block_shapes
from draftsmith.drafters.heads.weights import HeadWeights
from tests.drafters.heads import kit
from tests.drafters.recording import Recording

BASE = BlockConfig(
    boundaries=(1, 3, 5),
    target_hidden_size=kit.WIDTH,
    target_vocab_size=kit.VOCAB,
    hidden_size=kit.WIDTH,
    intermediate_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_size=16,
    vocab_size=kit.VOCAB,
    block_size=5,
    mask_id=90,
)
SPARK: dict[str, Any] = {"drafts_from_anchor": True, "markov": "vanilla", "markov_rank": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    "dflash": {},
    "one-layer": {"num_layers": 1, "block_size": 2},
    "own-head": {"has_head": True, "vocab_size": 40},
    "narrow": {"hidden_size": 64, "has_embedding": True, "has_head": True, "head_size": 8},
    "causal": {"is_causal": True},
    "from-anchor": {"drafts_from_anchor": True},
    "dspark": SPARK,
    "dspark-bonus-anchor": {**SPARK, "drafts_from_anchor": False},
    "dspark-gated": {**SPARK, "markov": "gated", "is_causal": True},
    "dspark-rnn": {**SPARK, "markov": "rnn"},
    "dspark-reduced": {**SPARK, "has_head": True, "vocab_size": 40},
    "dspark-sure": {**SPARK, "has_confidence": True, "confidence_reads_token": True},
    "dspark-sure-of-rows": {**SPARK, "has_confidence": True},
}


def config(name: str = "dflash", **changes: Any) -> BlockConfig:
    return replace(BASE, **{**VARIANTS[name], **changes})


def weights(config: BlockConfig, seed: int = 0) -> HeadWeights:
    chance = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=chance) * 0.2 + (1.0 if "norm" in name else 0.0)
        for name, shape in block_shapes(config).items()
    }
    for name in [name for name in tensors if name.startswith("markov.")]:
        tensors[name] *= 5
    ids = None
    if config.is_reduced:
        order = torch.randperm(config.target_vocab_size, generator=chance)
        ids = order[: config.vocab_size].sort().values
    return HeadWeights(tensors, ids)


def states_of(tokens: Sequence[int], config: BlockConfig) -> Tensor:
    return kit.states_of(tokens, kit.config(boundaries=config.boundaries))


def plain_block(
    config: BlockConfig, weights: HeadWeights, tokens: Sequence[int], num_known: int = 0
) -> tuple[PlainBlock, Tensor]:
    """The twin, and its rows `[rows, width]` behind a text of which the last were forced."""
    head = PlainBlock(config, weights.tensors, kit.target().logits)
    embedding = weights.tensors["embedding"] if config.has_embedding else kit.table(5)
    anchor = len(tokens) - 1 - num_known
    block = [*tokens[anchor:], *[config.mask_id] * (config.block_size - 1 - num_known)]
    context = head.context(states_of(tokens, config)[:anchor].unsqueeze(0))
    rows = BlockRows(embedding[block][None, None], torch.tensor([[anchor]]))
    return head, head.run(rows, context)[0, 0]


def plain_laws(
    config: BlockConfig,
    weights: HeadWeights,
    tokens: Sequence[int],
    drawn: Sequence[int],
    num_known: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Logits over the target's ids of each token drafted behind a text, and the confidences."""
    head, hidden = plain_block(config, weights, tokens, num_known)
    anchor = len(tokens) - 1 - num_known
    # Of every row that guesses, those that forced tokens stand in included.
    first = 0 if config.drafts_from_anchor else 1
    before = [*tokens[anchor:], *drawn]
    hidden = hidden[first : first + len(before)]
    past = torch.tensor(before[: len(hidden)])
    logits = head.corrected(head.logits(hidden), head.corrections(hidden, past))
    whole = torch.full((len(logits), config.target_vocab_size), -torch.inf)
    ids = torch.arange(config.vocab_size) if weights.ids is None else weights.ids
    whole.index_copy_(1, ids, logits)
    sure = torch.sigmoid(head.confidence(hidden, past)) if config.has_confidence else None
    return whole[num_known:], None if sure is None else sure[num_known:]


@dataclass
class Handing(Recording):
    """A recorded round that hands out states of what no earlier one did."""

    config: BlockConfig = BASE
    handed: dict[int, int] = field(default_factory=dict)
    """Of each sequence, how many tokens' states were handed out."""
    num_unread: int = 1
    """Tokens at the end of each text that the target has not read."""

    def states(self, row: int) -> Tensor:
        view = self.sequences[row]
        start = self.handed.get(view.id, 0)
        end = len(view.tokens) - self.num_unread
        self.handed[view.id] = max(start, end)
        return states_of(view.tokens, self.config)[start:end]
