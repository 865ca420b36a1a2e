"""Medusa heads in plain torch: what the fast ones equal.

x = the target's state of token t behind its final norm;  x = x + SiLU(W x + b), block by block
logits of token t+2+k = output_k(x) of head k   (Cai et al., arXiv:2401.10774, section 2.1.1)
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu

from draftsmith.drafters.heads.medusa_config import (
    MedusaConfig,
    bias_name,
    block_name,
    output_name,
)
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.drafters.heads.weights import HeadWeights

__all__ = ["plain_medusa"]


def plain_medusa(
    config: MedusaConfig,
    weights: HeadWeights,
    target: TargetTables,
    states: Float[Tensor, "rows hidden"],
) -> Float[Tensor, "heads rows target_vocab"]:
    """Logits of every head.

    Args:
        config: The heads' conventions.
        weights: Their tensors.
        target: Whose final norm, and perhaps output matrix, they go by.
        states: The target's residual stream behind its last layer.

    Returns:
        Ids that the heads do not draft have -inf.
    """
    weight, epsilon = target.final_norm
    given = rms_norm(states, weight.shape, weight, epsilon) if config.reads_normed else states
    found: list[Tensor] = []
    for head in range(config.num_heads):
        stream = given
        for block in range(config.num_blocks):
            matrix = weights.tensors[block_name(head, block)]
            bias = weights.tensors[bias_name(head, block)] if config.has_bias else None
            stream = stream + silu(linear(stream, matrix, bias))
        if config.outputs == "target's":
            logits = target.logits(stream)
        else:
            name = output_name(head if config.outputs == "each" else None)
            logits = linear(stream, weights.tensors[name])
        if weights.ids is not None:
            whole = torch.full((len(states), config.target_vocab_size), -torch.inf)
            whole[:, weights.ids] = logits
            logits = whole
        found.append(logits)
    return torch.stack(found)
