"""What a block head is, every convention resolved: nothing is left to a default elsewhere.

A block head drafts several tokens in one pass: behind the target's states stand the newest
committed token, the anchor, and masks, which all see each other (DFlash, arXiv:2602.06036). DSpark
adds a term that depends on the token drawn before.
"""

from dataclasses import dataclass, field
from typing import Literal

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.rotary import RotaryConfig, scaled_rotary

__all__ = ["BlockConfig", "MarkovKind"]

MarkovKind = Literal["none", "vanilla", "gated", "rnn"]
"""How the token drawn before moves the logits: not at all, by a table, by a table that the block's
row gates, or by a state that runs along the block."""
_LARGEST_BLOCK = 64


@dataclass(frozen=True)
class BlockConfig:
    """A DFlash head, or a DSpark one.

    Example:
        >>> config = BlockConfig(
        ...     boundaries=(2, 10, 18, 26, 34), target_hidden_size=4096, target_vocab_size=151936,
        ...     hidden_size=4096, intermediate_size=12288, num_layers=5, num_heads=32,
        ...     num_kv_heads=8, head_size=128, vocab_size=151936, block_size=16, mask_id=151669,
        ... )
        >>> config.longest
        15
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
    block_size: int
    """Rows of a block, the anchor's among them."""
    mask_id: int
    """Whose embedding the rows behind the anchor read."""
    drafts_from_anchor: bool = False
    """Whether a row foretells the token behind its own position, so that the anchor's row drafts,
    too; else each row foretells its own position, and the anchor's says nothing."""
    is_causal: bool = False
    """Whether a row of a block sees those before it only; it always sees all of the context."""
    markov: MarkovKind = "none"
    markov_rank: int = 0
    has_confidence: bool = False
    """Whether it says how sure it is of each token."""
    confidence_reads_token: bool = False
    """Whether that looks at the token drawn before as well."""
    norm_epsilon: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: tuple[tuple[str, object], ...] = ()
    """As `config.json` has it, as pairs; empty for none."""
    context_length: int = 2048
    """What the head was made for; only scalings of the positions look at it."""
    has_embedding: bool = False
    """Whether it has an embedding of its own; else the target's is read."""
    has_head: bool = False
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
        self._check_ids()
        self._check_block()
        scaling = dict(self.rope_scaling)
        rotary = scaled_rotary(self.rope_theta, self.head_size, self.context_length, scaling)
        object.__setattr__(self, "rotary", rotary)

    def _check_ids(self) -> None:
        if not 1 <= self.vocab_size <= self.target_vocab_size:
            raise ModelFormatError(
                f"the head drafts {self.vocab_size} ids of a target with {self.target_vocab_size}"
            )
        if not 0 <= self.mask_id < self.target_vocab_size:
            raise ModelFormatError(
                f"the head's mask_token_id is {self.mask_id}, of a target with "
                f"{self.target_vocab_size} ids: it is another target's head"
            )
        if not self.has_embedding and self.hidden_size != self.target_hidden_size:
            raise ModelFormatError(
                f"the head is {self.hidden_size} wide and has no embed_tokens, but the target's "
                f"embeddings are {self.target_hidden_size} wide: fetch the whole head"
            )
        if not self.has_head and self.is_reduced:
            raise ModelFormatError(
                f"the head drafts {self.vocab_size} of {self.target_vocab_size} ids and has no "
                "lm_head for them: fetch the whole head"
            )
        if not self.has_head and self.hidden_size != self.target_hidden_size:
            raise ModelFormatError(
                f"the head is {self.hidden_size} wide and has no lm_head, but the target's reads "
                f"{self.target_hidden_size} numbers: fetch the whole head"
            )

    def _check_block(self) -> None:
        if not 1 <= self.longest <= _LARGEST_BLOCK or self.block_size > _LARGEST_BLOCK:
            raise ModelFormatError(
                f"the head's block_size is {self.block_size}; it must be from 2 to {_LARGEST_BLOCK}"
            )
        if (self.markov == "none") != (self.markov_rank == 0) or self.markov_rank < 0:
            raise ModelFormatError(
                f"the head's markov_rank is {self.markov_rank} and its markov_head_type "
                f"{self.markov}: they contradict each other"
            )
        if self.markov == "rnn" and not self.drafts_from_anchor:
            raise ModelFormatError(
                "the head's markov_head_type is rnn and its sample_from_anchor false: whether its "
                "state passes the anchor's row is not said, so that it is not known here"
            )
        if self.confidence_reads_token and self.markov == "none":
            raise ModelFormatError(
                "the head's confidence_head_with_markov is true and it has no Markov head: fetch "
                "its config.json again"
            )

    @property
    def is_reduced(self) -> bool:
        """Whether it drafts a part of the target's ids only."""
        return self.vocab_size < self.target_vocab_size

    @property
    def longest(self) -> int:
        """Tokens of one block."""
        return self.block_size if self.drafts_from_anchor else self.block_size - 1

    @property
    def kind(self) -> str:
        """Its name in the field."""
        return "DFlash" if self.markov == "none" and not self.has_confidence else "DSpark"

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
        scaling = dict(self.rope_scaling)
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        markov = "none" if self.markov == "none" else f"{self.markov}, rank {self.markov_rank}"
        confidence = "a row and the token before" if self.confidence_reads_token else "a row"
        return {
            "kind": self.kind,
            "layout": self.layout,
            "for": self.target or "not said",
            "boundaries": ", ".join(map(str, self.boundaries)),
            "layers": str(self.num_layers),
            "width": f"{self.hidden_size} (target {self.target_hidden_size})",
            "ids": f"{self.vocab_size} of {self.target_vocab_size}",
            "block": f"{self.block_size} rows, which draft {self.longest} tokens",
            "anchor": "drafts" if self.drafts_from_anchor else "drafts nothing",
            "mask": f"id {self.mask_id}",
            "inside a block": "causal" if self.is_causal else "each row sees all",
            "norms": "behind fc; of queries and keys; none of layers over the context",
            "rope": f"theta {self.rope_theta:g}, scaling {kind}",
            "markov": markov,
            "confidence": f"from {confidence}" if self.has_confidence else "none",
            "embedding": "its own" if self.has_embedding else "the target's",
            "output matrix": "its own" if self.has_head else "the target's",
        }
