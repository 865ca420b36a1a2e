"""Sums along a vocabulary that come out the same whatever rows stand beside one.

On a CPU torch's own do. On CUDA a sum, or a running sum, over 152,000 ids has other bits for 1, 3
and 8 rows (torch 2.11; only sums of 64 bits keep them), and with other bits comes another token.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["exact_running_sums", "normalised_excess", "row_sums", "running_sums"]

_ONE = 2.0**60
"""What stands for a mass of 1 in whole numbers: room for 8 of them, and for float32's smaller ones
down to 1e-18."""


def running_sums(masses: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
    """The running sums of each row, float64.

    Args:
        masses: Not negative; at most 7 together.

    Returns:
        The sum up to each id, itself included.

    Example:
        >>> import torch
        >>> running_sums(torch.tensor([0.25, 0.5, 0.25])).tolist()
        [0.25, 0.75, 1.0]
    """
    return exact_running_sums(masses) if masses.is_cuda else masses.double().cumsum(dim=-1)


def exact_running_sums(masses: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
    """The same by whole numbers, whose sums know no order; each mass is cut to 2 ** -60.

    Args:
        masses: As `running_sums` takes them.

    Returns:
        The same.

    Example:
        >>> import torch
        >>> exact_running_sums(torch.tensor([0.25, 0.5, 0.25])).tolist()
        [0.25, 0.75, 1.0]
    """
    return (masses.double() * _ONE).long().cumsum(dim=-1).double() / _ONE


def row_sums(values: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """The sum of each row, in the dtype of the values.

    Args:
        values: Any.

    Returns:
        One for each row.

    Example:
        >>> import torch
        >>> row_sums(torch.tensor([[0.5, 0.25], [1.0, 2.0]])).tolist()
        [0.75, 3.0]
    """
    if values.is_cuda:
        return values.sum(dim=-1, dtype=torch.float64).to(values.dtype)
    return values.sum(dim=-1)


def normalised_excess(
    excess: Float[Tensor, "batch vocab"], fallback: Float[Tensor, "batch vocab"]
) -> Float[Tensor, "batch vocab"]:
    """norm(max(0, excess)), the residual law; where nothing is left, the fallback.

    Args:
        excess: What the target has more than the draft.
        fallback: Where the two agree to rounding.

    Returns:
        The law.

    Example:
        >>> import torch
        >>> excess, target = torch.tensor([[0.5, -0.5], [0.0, 0.0]]), torch.full((2, 2), 0.5)
        >>> normalised_excess(excess, target).tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    excess = excess.clamp(min=0)
    mass = row_sums(excess).unsqueeze(-1)
    return torch.where(mass > 0, excess / mass, fallback)
