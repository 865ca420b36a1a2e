"""The arithmetic of a T5, arranged so that a row's numbers do not depend on other rows.

Exact operations (sums in a fixed order, products, quotients, roots) run on all rows together.
Where a library may compute an element otherwise by its place or by the shape around it (matrix
products, exponentials), each token has calls of its own, of one shape and alignment.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "attend",
    "attend_one",
    "bias_between",
    "gelu",
    "one_by_one",
    "relative_bias",
    "rms_norm",
]


def one_by_one(
    function: Callable[[Tensor], Tensor], rows: Float[Tensor, "rows inputs"]
) -> Float[Tensor, "rows outputs"]:
    """Apply a function `[1, inputs] -> [1, outputs]` to each row.

    Rows are copied: a function may round otherwise where its argument is aligned otherwise.
    """
    return torch.cat([function(row.clone()) for row in rows.split(1)])


def rms_norm(
    states: Float[Tensor, "rows hidden"], weight: Float[Tensor, " hidden"], epsilon: float
) -> Float[Tensor, "rows hidden"]:
    """Scale to unit root mean square: x / √(mean(x²) + ε) * w.

    References:
        Zhang and Sennrich, arXiv:1910.07467.
    """
    mean_square = (states * states).mean(-1, keepdim=True)
    return states / (mean_square + epsilon).sqrt() * weight


def gelu(states: Float[Tensor, "rows inner"]) -> Float[Tensor, "rows inner"]:
    """The tanh form: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).

    References:
        Hendrycks and Gimpel, arXiv:1606.08415.
    """
    inner = math.sqrt(2.0 / math.pi) * (states + 0.044715 * (states * states * states))
    return 0.5 * states * (1.0 + one_by_one(torch.tanh, inner))


def attend(
    queries: Float[Tensor, "heads queries head"],
    keys: Float[Tensor, "heads keys head"],
    values: Float[Tensor, "heads keys head"],
    bias: Float[Tensor, "heads queries keys"] | None,
) -> Float[Tensor, "queries inner"]:
    """softmax(q kᵀ + bias) v, the heads side by side; T5 does not scale the scores."""
    scores = queries @ keys.transpose(1, 2)
    if bias is not None:
        scores += bias
    mixed = scores.softmax(-1) @ values
    return mixed.transpose(0, 1).reshape(queries.shape[1], -1)


def attend_one(
    query: Float[Tensor, "heads head"],
    keys: Float[Tensor, "heads keys head"],
    values: Float[Tensor, "heads keys head"],
    bias: Float[Tensor, "heads 1 keys"] | None,
) -> Float[Tensor, "1 inner"]:
    """`attend` for one token, the same bits wherever its query lies in memory."""
    # Cloned: measured, a product rounds otherwise where its argument is no multiple of 16 bytes.
    return attend(query.clone().unsqueeze(1), keys, values, bias)


# --- relative positions -----------------------------------------------------------------------


def relative_bias(
    table: Float[Tensor, "buckets heads"], max_distance: int, *, is_bidirectional: bool
) -> Float[Tensor, "heads distances"]:
    """The bias of every relative position (key - query), -max_distance to max_distance.

    Distances have buckets of their own up to half of the buckets, then logarithmically wider
    ones. A decoder never asks for positions ahead.

    References:
        Raffel et al., arXiv:1910.10683, 2.1.
    """
    relative = torch.arange(-max_distance, max_distance + 1)
    if not is_bidirectional:
        return table[_bucket((-relative).clamp(min=0), len(table), max_distance)].T.contiguous()
    half = len(table) // 2
    buckets = _bucket(relative.abs(), half, max_distance) + half * (relative > 0)
    return table[buckets].T.contiguous()


def _bucket(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    num_exact = num_buckets // 2
    # In float32, as models were trained: a bucket's edge may fall elsewhere in float64.
    ratio = torch.log(distance.float() / num_exact) / math.log(max_distance / num_exact)
    # The clamp is for the distance 0, whose logarithm is not used.
    wide = num_exact + (ratio.clamp(min=0) * (num_buckets - num_exact)).long()
    return torch.where(distance < num_exact, distance, wide.clamp(max=num_buckets - 1))


def bias_between(
    bias: Float[Tensor, "heads distances"], queries: range, num_keys: int
) -> Float[Tensor, "heads queries keys"]:
    """The bias of the queries at these positions towards the first keys."""
    reach = bias.shape[1] // 2
    positions = torch.arange(queries.start, queries.stop, device=bias.device)
    relative = torch.arange(num_keys, device=bias.device) - positions.unsqueeze(1)
    return bias[:, relative.clamp(-reach, reach) + reach]
