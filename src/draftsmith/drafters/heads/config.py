"""What a trained head is, every convention resolved: nothing is left to a default elsewhere.

A boundary b of the target is its residual stream behind b layers, before the final norm; 0 is the
embeddings.
"""

from dataclasses import dataclass, field
from typing import Literal

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.rotary import RotaryConfig, scaled_rotary

__all__ = ["FeatureNorm", "HeadConfig"]

FeatureNorm = Literal["none", "joint", "each"]
"""Of the target's states before `fc`: none, one over all of them, or one for each boundary."""


@dataclass(frozen=True)
class HeadConfig:
    """An EAGLE-3 head (Li et al., arXiv:2503.01840; 3.1 normalises what goes in and back).

    Example:
        >>> config = HeadConfig(
        ...     boundaries=(2, 15, 27), target_hidden_size=576, target_vocab_size=49152,
        ...     hidden_size=576, intermediate_size=1536, num_layers=1, num_heads=9,
        ...     num_kv_heads=3, head_size=64, vocab_size=8192,
        ... )
        >>> config.is_reduced
        True
    """

    boundaries: tuple[int, ...]
    """Of the target, in the order in which `fc` reads them."""
    target_hidden_size: int
    target_vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocab_size: int
    """Ids that the head drafts; less than the target's where its vocabulary is reduced."""
    norm_epsilon: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: tuple[tuple[str, object], ...] = ()
    """As `config.json` has it, as pairs; empty for none."""
    context_length: int = 2048
    """What the head was made for; only scalings of the positions look at it."""
    norm_before_residual: bool = False
    """Whether the residual of the first layer begins with the normed feature, not the raw one."""
    feeds_back_normed: bool = False
    """Whether the next step's feature is the output behind the final norm, not before it."""
    feature_norm: FeatureNorm = "none"
    normalises_heads: bool = False
    """Whether query and key heads pass through an RMSNorm (Qwen3)."""
    has_embedding: bool = False
    """Whether it has an embedding of its own; else the target's is read."""
    has_head: bool = True
    """Whether it has an output matrix of its own; else the target's is used."""
    layout: str = "made here"
    """Who wrote the files, for messages."""
    target: str | None = None
    """The model that it says it is for."""
    rotary: RotaryConfig = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.boundaries or min(self.boundaries) < 0:
            raise ModelFormatError(
                f"the head reads boundaries {list(self.boundaries)}; give at least one, from 0"
            )
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ModelFormatError(
                f"the head's {self.num_heads} heads cannot share {self.num_kv_heads} key and "
                "value heads: fetch its config.json again"
            )
        if self.head_size < 2 or self.head_size % 2:
            raise ModelFormatError(f"the head's head_dim {self.head_size} has no halves to rotate")
        if self.num_layers < 1:
            raise ModelFormatError(f"the head has {self.num_layers} layers; it needs one")
        if not 1 <= self.vocab_size <= self.target_vocab_size:
            raise ModelFormatError(
                f"the head drafts {self.vocab_size} ids of a target with {self.target_vocab_size}"
            )
        if not self.has_embedding and self.hidden_size != self.target_hidden_size:
            raise ModelFormatError(
                f"the head is {self.hidden_size} wide and has no embed_tokens, but the target's "
                f"embeddings are {self.target_hidden_size} wide: fetch the whole head"
            )
        scaling = dict(self.rope_scaling)
        rotary = scaled_rotary(self.rope_theta, self.head_size, self.context_length, scaling)
        object.__setattr__(self, "rotary", rotary)

    @property
    def is_reduced(self) -> bool:
        """Whether it drafts a part of the target's ids only."""
        return self.vocab_size < self.target_vocab_size

    @property
    def query_size(self) -> int:
        """Elements of all query heads."""
        return self.num_heads * self.head_size

    @property
    def key_size(self) -> int:
        """Elements of all key heads."""
        return self.num_kv_heads * self.head_size

    def described(self) -> dict[str, str]:
        """Every convention as it was resolved, for people."""
        where = {"none": "none", "joint": "over all boundaries", "each": "one a boundary"}
        scaling = dict(self.rope_scaling)
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        return {
            "layout": self.layout,
            "for": self.target or "not said",
            "boundaries": ", ".join(map(str, self.boundaries)),
            "layers": str(self.num_layers),
            "width": f"{self.hidden_size} (target {self.target_hidden_size})",
            "ids": f"{self.vocab_size} of {self.target_vocab_size}",
            "norm before fc": where[self.feature_norm],
            "residual": "normed feature" if self.norm_before_residual else "raw feature",
            "fed back": "behind the final norm" if self.feeds_back_normed else "before it",
            "rope": f"theta {self.rope_theta:g}, scaling {kind}",
            "embedding": "its own" if self.has_embedding else "the target's",
            "output matrix": "its own" if self.has_head else "the target's",
        }
