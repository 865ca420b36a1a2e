"""The shape of a decoder, from `config.json` or from GGUF metadata."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

__all__ = ["DecoderConfig", "RotaryConfig"]


@dataclass(frozen=True)
class RotaryConfig:
    """Rotary position embeddings (Su et al., arXiv:2104.09864) and their scaling, resolved.

    Halves are rotated (element i with element i + head_size / 2), as in the `transformers` layout.
    """

    inverse_frequencies: Float[Tensor, " half_head"]
    """Float32, after scaling (linear, llama3, yarn)."""
    scale: float = 1.0
    """Multiplies cosine and sine (yarn's attention factor)."""


@dataclass(frozen=True)
class DecoderConfig:
    """What the Llama, Mistral, Qwen2, Qwen3 and SmolLM families differ in."""

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    context_length: int
    norm_epsilon: float
    rotary: RotaryConfig
    windows: tuple[int | None, ...]
    """Sliding window of each layer (a query sees that many keys, itself included); None is all."""
    eos_token_ids: tuple[int, ...]
