"""What a head borrows of its target: rows of the embedding, and the output matrix."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError, VocabularyMismatchError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.cpu import CpuDecoder

__all__ = ["NativeDecoder", "TargetTables", "check_target", "tables_of", "theta_of"]


@runtime_checkable
class NativeDecoder(Protocol):
    """A decoder in torch or on a GPU's kernels, which holds its tables as tensors."""

    config: DecoderConfig

    def embedded(self, tokens: Sequence[int]) -> Float[Tensor, "tokens hidden"]:
        """Rows of the embedding, unscaled, in float32."""
        ...

    def head_product(self, inputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The output matrix alone, without the final norm, in float32."""
        ...

    def head_rows(self, ids: Sequence[int]) -> Float[Tensor, "ids hidden"]:
        """Rows of the output matrix, in float32."""
        ...

    @property
    def final_norm(self) -> Float[Tensor, " hidden"]:
        """The weight of the norm before the output matrix, in float32."""
        ...


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
        target: A native decoder, in one process.

    Returns:
        Its tables.

    Raises:
        InvalidRequestError: It is none, or in parts on several ranks, or scales its embeddings,
            which no head is known to do.
    """
    name, native = target.traits.name, _native(target)
    if native is None or target.num_ranks > 1:
        raise InvalidRequestError(
            f"a draft head reads {name}'s embeddings, which only a native decoder in one process "
            "hands out: use another draft"
        )
    config = native.config
    if config.scales.embedding != 1.0:
        raise InvalidRequestError(
            f"{name} multiplies its embeddings by {config.scales.embedding:g}, and no head is "
            "known to say whether it does: use another draft"
        )
    if isinstance(native, CpuDecoder):
        weights = native.weights
        embed, rows, logits = weights.embedding.rows, weights.head.rows, weights.head.multiply
        norm = weights.final_norm.float()
    else:
        embed, rows, logits = native.embedded, native.head_rows, native.head_product
        norm = native.final_norm
    sizes = config.num_layers, config.hidden_size, config.vocab_size
    return TargetTables(name, *sizes, embed, logits, rows, (norm, config.norm_epsilon))


def _native(target: LanguageModel) -> CpuDecoder | NativeDecoder | None:
    """The target, if it is a native decoder."""
    if isinstance(target, CpuDecoder):
        return target
    return target if isinstance(target, NativeDecoder) else None


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
    native = _native(target)
    if native is None:
        return 10_000.0
    frequencies = native.config.rotary.inverse_frequencies
    if len(frequencies) < 2:
        return 10_000.0
    return float(frequencies[0] / frequencies[1]) ** len(frequencies)
