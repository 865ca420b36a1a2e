"""What a head borrows of its target: rows of the embedding, and the output matrix."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError, VocabularyMismatchError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.decoder import TorchDecoder

__all__ = ["TargetTables", "check_target", "tables_of", "theta_of"]


class TargetTables(NamedTuple):
    """Of one target, in float32."""

    name: str
    num_layers: int
    hidden_size: int
    vocab_size: int
    embed: Callable[[Sequence[int]], Float[Tensor, "ids hidden"]]
    """The embeddings of some ids."""
    logits: Callable[[Float[Tensor, "rows hidden"]], Float[Tensor, "rows vocab"]]
    """The output matrix alone, without the final norm."""
    head_rows: Callable[[Sequence[int]], Float[Tensor, "ids hidden"]]
    """Rows of the output matrix."""
    final_norm: tuple[Float[Tensor, " hidden"], float]
    """The weight and the epsilon of the final norm."""


def tables_of(target: LanguageModel) -> TargetTables:
    """The tables of a loaded target.

    Args:
        target: A native decoder.

    Returns:
        Its tables.

    Raises:
        InvalidRequestError: It is none, or scales its embeddings, which no head is known to do.
    """
    name = target.traits.name
    if not isinstance(target, CpuDecoder | TorchDecoder):
        raise InvalidRequestError(
            f"a draft head reads {name}'s embeddings, which only a native decoder on a CPU hands "
            "out: use another draft"
        )
    config = target.config
    if config.scales.embedding != 1.0:
        raise InvalidRequestError(
            f"{name} multiplies its embeddings by {config.scales.embedding:g}, and no head is "
            "known to say whether it does: use another draft"
        )
    if isinstance(target, CpuDecoder):
        weights = target.weights
        embed, rows, logits = weights.embedding.rows, weights.head.rows, weights.head.multiply
        norm = weights.final_norm.float()
    else:
        embed, rows, logits = target.embedded, target.head_rows, target.head_product
        norm = target.final_norm
    sizes = config.num_layers, config.hidden_size, config.vocab_size
    return TargetTables(name, *sizes, embed, logits, rows, (norm, config.norm_epsilon))


def check_target(
    target: TargetTables, hidden_size: int, vocab_size: int, boundaries: Sequence[int]
) -> None:
    """Refuse a head for another target.

    Args:
        target: The tables of the one that is there.
        hidden_size: Of the target that the head is for.
        vocab_size: The same.
        boundaries: Where it reads the target.

    Raises:
        DraftsmithError: With the remedy.
    """
    remedy = f"give a head that was trained for {target.name}"
    if hidden_size != target.hidden_size:
        raise ModelFormatError(
            f"the head reads states of {hidden_size} numbers, and {target.name}'s "
            f"have {target.hidden_size}: {remedy}"
        )
    if vocab_size != target.vocab_size:
        raise VocabularyMismatchError(
            f"the head knows a target of {vocab_size} ids, and {target.name} has "
            f"{target.vocab_size}: {remedy}"
        )
    beyond = [b for b in boundaries if b > target.num_layers]
    if beyond:
        raise ModelFormatError(
            f"the head reads the target behind layer {beyond[0]}, and {target.name} has "
            f"{target.num_layers} layers: {remedy}"
        )


def theta_of(target: LanguageModel) -> float:
    """The target's own base of rotary positions, as its frequencies tell it.

    Args:
        target: Of any kind; one that is no native decoder is taken to have the usual base.
    """
    if not isinstance(target, CpuDecoder | TorchDecoder):
        return 10_000.0
    frequencies = target.config.rotary.inverse_frequencies
    if len(frequencies) < 2:
        return 10_000.0
    return float(frequencies[0] / frequencies[1]) ** len(frequencies)
