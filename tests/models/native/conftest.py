"""A plain packed matrix, where the kernels' own is only a signature."""
# gguf's annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Iterator

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from draftsmith.kernels.matrix import Matrix


class PlainMatrix(Matrix):
    """Holds the dequantised values."""

    values: Tensor

    @classmethod
    def pack(cls, raw: np.ndarray, format: str, num_outputs: int, num_inputs: int) -> "PlainMatrix":
        self = cls()
        self.format, self.num_outputs, self.num_inputs = format, num_outputs, num_inputs
        self.num_bytes = raw.nbytes
        rows = raw.reshape(num_outputs, -1)
        if format == "BF16":
            self.values = torch.from_numpy(rows).view(torch.bfloat16).float()
        else:
            dense = gguf.dequantize(rows, gguf.GGMLQuantizationType[format])
            self.values = torch.from_numpy(np.array(dense))
        assert self.values.shape == (num_outputs, num_inputs)
        return self

    @classmethod
    def from_float(cls, weight: Tensor, format: str) -> "PlainMatrix":
        if format == "BF16":
            raw = weight.bfloat16().view(torch.uint8).numpy()
        else:
            kind = gguf.GGMLQuantizationType[format]
            raw = gguf.quants.quantize(weight.numpy(), kind).view(np.uint8)
        return cls.pack(raw, format, *weight.shape)

    def dequantise(self) -> Tensor:
        return self.values


@pytest.fixture(autouse=True, scope="session")
def matrix() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        try:
            Matrix.from_float(torch.zeros(1, 32), "F32")
        except NotImplementedError:
            patch.setattr("draftsmith.models.native.read.Matrix", PlainMatrix)
        yield
