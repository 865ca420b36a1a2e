"""Random blocks of every weight format, as a GGUF file would hold them."""

import numpy as np
import torch

from draftsmith.kernels.matrix import FORMATS

_TWO_HALVES = ("Q4_1", "Q5_1", "Q4_K", "Q5_K")


def random_blocks(format: str, num_outputs: int, num_inputs: int, seed: int = 0) -> np.ndarray:
    """Bytes whose codes and small scales are random, and whose float16 scales are finite."""
    rng = np.random.default_rng(seed)
    block = FORMATS[format]
    count = num_outputs * num_inputs // block.num_weights
    if block.num_weights == 1:
        values = rng.standard_normal(count).astype(np.float32)
        if format == "BF16":
            return torch.from_numpy(values).bfloat16().view(torch.uint8).numpy()
        return values.astype(np.float16 if format == "F16" else np.float32).view(np.uint8)
    raw = rng.integers(0, 256, (count, block.num_bytes), dtype=np.uint8)
    if format == "Q6_K":
        raw[:, 208:210] = _halves(rng, count)
    else:
        raw[:, 0:2] = _halves(rng, count)
        if format in _TWO_HALVES:
            raw[:, 2:4] = _halves(rng, count)
    return raw.reshape(-1)


def _halves(rng: np.random.Generator, count: int) -> np.ndarray:
    return (rng.standard_normal(count) * 0.01).astype(np.float16).view(np.uint8).reshape(count, 2)
