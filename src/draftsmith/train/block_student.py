"""A new block head: its conventions and its weights to begin with."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_weights import block_shapes
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.models.native.config import DecoderConfig
from draftsmith.train.options import TrainOptions
from draftsmith.train.student import first_matrices, output_rows, usual_boundaries
from draftsmith.train.texts import Text

__all__ = ["chosen_mask", "new_block_config", "new_block_weights"]


def chosen_mask(texts: Sequence[Text], tables: TargetTables) -> int:
    """An id that no text has, of which the embedding is as long as most: the block's mask.

    Args:
        texts: Prompts and answers.
        tables: The target's.

    Returns:
        Where every id occurs, the rarest.
    """
    every = torch.tensor([token for text in texts for token in text.tokens])
    counts = torch.bincount(every, minlength=tables.vocab_size)
    rare = (counts == counts.min()).nonzero()[:, 0]
    lengths = tables.embed(range(tables.vocab_size)).norm(dim=-1).cpu()
    return int(rare[(lengths[rare] - lengths.median()).abs().argmin()])


def new_block_config(
    target: DecoderConfig,
    tables: TargetTables,
    num_ids: int,
    options: TrainOptions,
    texts: Sequence[Text],
) -> BlockConfig:
    """A head of the target's own widths: DSpark's, and without a Markov head DFlash's.

    Args:
        target: The shape.
        tables: The target's.
        num_ids: That it drafts.
        options: With the tokens of a block, the number of layers and the Markov head's rank.
        texts: That it learns from.
    """
    size = options.size
    is_spark = size.markov_rank > 0
    return BlockConfig(
        boundaries=usual_boundaries(target.num_layers),
        target_hidden_size=target.hidden_size,
        target_vocab_size=target.vocab_size,
        hidden_size=target.hidden_size,
        intermediate_size=target.intermediate_size,
        num_layers=size.num_layers,
        num_heads=target.num_heads,
        num_kv_heads=target.num_kv_heads,
        head_size=target.head_size,
        vocab_size=num_ids,
        block_size=size.num_steps if is_spark else size.num_steps + 1,
        mask_id=chosen_mask(texts, tables),
        drafts_from_anchor=is_spark,
        markov="vanilla" if is_spark else "none",
        markov_rank=size.markov_rank,
        has_confidence=is_spark,
        confidence_reads_token=is_spark,
        norm_epsilon=target.norm_epsilon,
        context_length=target.context_length,
        has_head=True,
        target=tables.name,
    )


def new_block_weights(
    config: BlockConfig, ids: Int[Tensor, " draft_vocab"] | None, tables: TargetTables, seed: int
) -> HeadWeights:
    """Weights to begin with: the target's own output rows, all else small and by chance.

    Args:
        config: The head's.
        ids: That it drafts.
        tables: The target's.
        seed: Of the chance.
    """
    tensors = first_matrices(block_shapes(config), seed)
    tensors["head"] = output_rows(config.vocab_size, ids, tables)
    if config.markov_rank:
        # What the token before adds begins with nothing; the other factor must not.
        tensors["markov.previous"] *= config.markov_rank**0.5
        tensors["markov.following"].zero_()
    for name in [name for name in tensors if name.startswith("confidence")]:
        tensors[name].zero_()
    return HeadWeights(tensors, ids)
