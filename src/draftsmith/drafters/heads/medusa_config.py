"""What Medusa heads are, every convention resolved, and our names of their tensors."""

from dataclasses import dataclass
from typing import Literal

from draftsmith.drafters.heads.weights import HeadWeights, check_tensors
from draftsmith.errors import ModelFormatError

__all__ = ["MedusaConfig", "Outputs", "bias_name", "block_name", "output_name"]

Outputs = Literal["each", "one", "target's"]
"""Of output matrices: one a head, one for all of them, or the target's own."""


def block_name(head: int, block: int) -> str:
    """Our name of a block's matrix.

    Example:
        >>> block_name(0, 1)
        'heads.0.blocks.1'
    """
    return f"heads.{head}.blocks.{block}"


def bias_name(head: int, block: int) -> str:
    """Our name of what is added behind it."""
    return f"{block_name(head, block)}.bias"


def output_name(head: int | None) -> str:
    """Our name of an output matrix; None is that of all heads."""
    return "output" if head is None else f"heads.{head}.output"


@dataclass(frozen=True)
class MedusaConfig:
    """Medusa heads (Cai et al., arXiv:2401.10774).

    Example:
        >>> config = MedusaConfig(
        ...     num_heads=4, num_blocks=1, hidden_size=576, target_vocab_size=49152,
        ...     vocab_size=49152,
        ... )
        >>> config.described()["output matrix"]
        'one a head'
    """

    num_heads: int
    num_blocks: int
    hidden_size: int
    """The target's, too."""
    target_vocab_size: int
    vocab_size: int
    """Ids that the heads draft; less than the target's where their vocabulary is reduced."""
    has_bias: bool = True
    outputs: Outputs = "each"
    boundary: int | None = None
    """The target's last one; None where the target is not known."""
    reads_normed: bool = True
    """Whether the state is the one behind the target's final norm, which its own head reads."""
    layout: str = "made here"
    """Who wrote the files, for messages."""
    target: str | None = None
    """The model that they say they are for."""

    def __post_init__(self) -> None:
        if not 1 <= self.vocab_size <= self.target_vocab_size:
            raise ModelFormatError(
                f"the heads draft {self.vocab_size} ids of a target with {self.target_vocab_size}"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors that the heads have, by our names; outputs first."""
        width = self.hidden_size
        found: dict[str, tuple[int, ...]] = {}
        for head in range(self.num_heads):
            for block in range(self.num_blocks):
                found[block_name(head, block)] = (width, width)
                if self.has_bias:
                    found[bias_name(head, block)] = (width,)
            if self.outputs == "each":
                found[output_name(head)] = (self.vocab_size, width)
        if self.outputs == "one":
            found[output_name(None)] = (self.vocab_size, width)
        return found

    def check(self, weights: HeadWeights) -> None:
        """Refuse tensors and ids that are not these heads'.

        Raises:
            ModelFormatError: One is missing, unknown or misshapen, or holds what is no number.
        """
        check_tensors(weights.tensors, self.shapes())
        weights.check_ids(self.vocab_size, self.target_vocab_size)

    def described(self) -> dict[str, str]:
        """Every convention as it was resolved, for people."""
        last = "the last" if self.boundary is None else str(self.boundary)
        outputs = {"each": "one a head", "one": "one for all heads", "target's": "the target's"}
        return {
            "kind": "Medusa",
            "layout": self.layout,
            "for": self.target or "not said",
            "boundaries": f"{last}, {'behind' if self.reads_normed else 'before'} the final norm",
            "heads": f"{self.num_heads}, so a draft has {self.num_heads} tokens at most",
            "first head": "the token behind the target's own next one",
            "blocks": f"{self.num_blocks} a head, {'with' if self.has_bias else 'without'} bias",
            "width": str(self.hidden_size),
            "ids": f"{self.vocab_size} of {self.target_vocab_size}",
            "output matrix": outputs[self.outputs],
        }
