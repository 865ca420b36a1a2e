"""Weight matrices in the formats that models come in, packed for the kernels.

Formats carry the names of GGUF's tensor types. A packed matrix holds the very numbers of the
file: `dequantise` gives float32 values bit-identical to those of the `gguf` package.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

__all__ = ["FORMATS", "Matrix"]

FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")


class Matrix:
    """Weights `[outputs, inputs]`, packed."""

    format: str
    num_outputs: int
    num_inputs: int
    num_bytes: int

    @classmethod
    def pack(cls, raw: np.ndarray, format: str, num_outputs: int, num_inputs: int) -> "Matrix":
        """Pack rows of GGUF blocks.

        Args:
            raw: uint8, the file's bytes (contiguous; may be a read-only memory map).
            format: One of `FORMATS`.
            num_outputs: Rows.
            num_inputs: Weights of a row; a multiple of the format's block.

        Raises:
            ModelFormatError: Unknown format, wrong size, or a block whose scales are not finite.
        """
        raise NotImplementedError

    @classmethod
    def from_float(cls, weight: Tensor, format: str) -> "Matrix":
        """Pack a float tensor `[outputs, inputs]` as F32, F16 or BF16, or quantise it
        (Q8_0, Q4_1): that is a different model."""
        raise NotImplementedError

    def dequantise(self) -> Float[Tensor, "outputs inputs"]:
        """Every weight in float32."""
        raise NotImplementedError

    def rows(self, ids: Sequence[int]) -> Float[Tensor, "ids inputs"]:
        """Some rows in float32: the embeddings of tokens."""
        raise NotImplementedError

    def multiply(
        self, inputs: Float[Tensor, "rows inputs"], *, exact_activations: bool = False
    ) -> Float[Tensor, "rows outputs"]:
        """`inputs @ weights.T` in float32, each output summed in one order whatever the rows.

        Quantised formats round the inputs to 8 bits in groups of 32, unless `exact_activations`.
        """
        raise NotImplementedError
