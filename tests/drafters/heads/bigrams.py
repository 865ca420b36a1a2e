"""A head that is right now and then: it knows which token follows which in some texts.

Its layer sees the newest token alone, and hands on what stands behind it in a table; a little of
the target's states is added, so that none of them may be another's.
"""
# pyright: basic

from collections.abc import Sequence
from itertools import pairwise

import torch

from draftsmith.drafters.heads import HeadConfig, HeadWeights
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.heads.weights import shapes
from draftsmith.models.contract import LanguageModel

_FOCUS = 0.5
_OF_STATES = 0.1


def bigram_head(
    target: LanguageModel, texts: Sequence[Sequence[int]], num_ids: int | None = None
) -> tuple[HeadConfig, HeadWeights]:
    """Made for a target.

    Args:
        target: Of few ids.
        texts: In which tokens follow each other.
        num_ids: So many of the most frequent are drafted; None is all.
    """
    tables = tables_of(target)
    size = tables.vocab_size + tables.vocab_size % 2
    counts = torch.zeros(size, size)
    for text in texts:
        for one, other in pairwise(text):
            counts[other, one] += 1
    ids = None
    if num_ids is not None:
        ids = counts.sum(1)[: tables.vocab_size].argsort(descending=True)[:num_ids].sort().values
    config = HeadConfig(
        boundaries=(0, tables.num_layers, 1),
        target_hidden_size=tables.hidden_size,
        target_vocab_size=tables.vocab_size,
        hidden_size=size,
        intermediate_size=32,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_size=size,
        vocab_size=num_ids or tables.vocab_size,
        has_embedding=True,
    )
    found = {
        name: torch.ones(shape) if len(shape) == 1 else torch.zeros(shape)
        for name, shape in shapes(config).items()
    }
    one_hot = torch.eye(size)
    # Queries and keys are the same everywhere, and turned by distance: nothing is nearer than
    # a row to itself.
    for part in ("query", "key"):
        found[f"layers.0.{part}"][:, :size] = _FOCUS
    found["layers.0.value"][:, :size] = one_hot
    found["layers.0.output"][:] = one_hot
    chance = torch.Generator().manual_seed(0)
    found["fc"] = torch.randn(found["fc"].shape, generator=chance) * _OF_STATES
    found["embedding"] = one_hot[: tables.vocab_size].clone()
    found["head"] = counts[: tables.vocab_size] if ids is None else counts[ids]
    return config, HeadWeights(found, ids)
