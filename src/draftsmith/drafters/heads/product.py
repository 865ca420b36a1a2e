"""A matrix of a head, where it runs: packed for the C++ kernels, or torch's."""

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from draftsmith.kernels.cpu.library import library
from draftsmith.kernels.matrix import Matrix
from draftsmith.models.load import Dtype

__all__ = ["PACKED", "Place", "Product", "format_of"]

PACKED: Final = "Q8_0"
"""How a head's matrices are held on a CPU, unless floats are asked for: 8 bits, a scale for every
32. A head's law is its own affair, so this changes no text."""
_GROUP = 32
_FORMATS: Final[dict[Dtype, str | None]] = {
    "auto": PACKED,
    "float32": None,
    "bfloat16": "BF16",
    "float16": "F16",
    "int8": "Q8_0",
    "int4": "Q4_1",
}


def format_of(dtype: Dtype) -> str | None:
    """How matrices are packed for a dtype; None keeps float32.

    Example:
        >>> format_of("bfloat16")
        'BF16'
    """
    return _FORMATS[dtype]


class Product:
    """`inputs @ weight.T`.

    Args:
        weight: Outputs first.
        device: Where it runs.
        format: Of the packed weights on a CPU, or None for float32 in torch.
    """

    def __init__(
        self, weight: Float[Tensor, "outputs inputs"], device: torch.device, format: str | None
    ) -> None:
        is_packed = format is not None and device.type == "cpu" and library() is not None
        self._matrix: Matrix | None = None
        self._weight: Tensor | None = None
        if is_packed and weight.shape[1] % _GROUP == 0:
            self._matrix = Matrix.from_float(weight, str(format), "a head's matrix")
        else:
            self._weight = weight.to(device).contiguous()

    def __call__(self, inputs: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """The product, in float32."""
        if self._matrix is not None:
            return self._matrix.multiply(inputs)
        assert self._weight is not None
        return linear(inputs, self._weight)


class Place:
    """Where a head's matrices go, and in which format.

    Args:
        device: Where it runs.
        format: As `Product` takes it.
    """

    def __init__(self, device: torch.device, format: str | None) -> None:
        self.device, self.format = device, format

    def product(self, parts: Sequence[Float[Tensor, "_ inputs"]]) -> Product:
        """Matrices of equal inputs as one, their outputs side by side."""
        return Product(torch.cat([part.float() for part in parts]), self.device, self.format)

    def vector(self, values: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
        """The weight of a norm, or a bias."""
        return values.float().to(self.device)
