"""What each of several ranks holds of a decoder that they run together.

Queries, keys, values, gates and ups are cut by their outputs, outputs and downs by their inputs,
so that a layer needs one sum over the ranks after its attention and one after its feed-forward
(Shoeybi et al., arXiv:1909.08053). Embedding and head are cut over the vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from draftsmith.errors import InvalidRequestError
from draftsmith.kernels.stand_ins import stored_block
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.names import Naming
from draftsmith.models.native.stored import StoredTensor

__all__ = ["Part", "num_shard_ids", "shard_config", "shard_tensors"]


@dataclass(frozen=True)
class Part:
    """One rank's part of a model.

    Raises:
        InvalidRequestError: There is no such rank.

    Example:
        >>> Part(rank=1, size=2)
        Part(rank=1, size=2)
    """

    rank: int
    """From 0."""
    size: int
    """Ranks."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InvalidRequestError(f"size must be 1 rank or more, got {self.size}")
        if not 0 <= self.rank < self.size:
            raise InvalidRequestError(
                f"rank must be between 0 and {self.size - 1}, got {self.rank}"
            )


def shard_config(config: DecoderConfig, part: Part) -> DecoderConfig:
    """The shape of what a rank holds; all but heads and widths of the feed-forward is the same.

    A rank has `num_heads / size` query heads and the key and value heads that they look at: its
    own share of these, or one that others have as well where there are fewer than ranks.

    Args:
        config: The whole model's.
        part: Whose.

    Returns:
        The shape; its `vocab_size` is the whole model's.

    Raises:
        InvalidRequestError: Heads or widths do not divide; the message names them.
    """
    size = part.size
    unshared = _unshared(config, size)
    if unshared is not None:
        sizes = [str(n) for n in range(1, config.num_heads + 1) if _unshared(config, n) is None]
        raise InvalidRequestError(
            f"{unshared} is {getattr(config, unshared)}, which {size} ranks cannot share: "
            f"take {', '.join(sizes)} of them"
        )
    return replace(
        config,
        num_heads=config.num_heads // size,
        num_kv_heads=max(1, config.num_kv_heads // size),
        intermediate_size=config.intermediate_size // size,
    )


def num_shard_ids(vocab_size: int, size: int) -> int:
    """Rows of the embedding and of the head on each of `size` ranks; the last may have spare ones.

    Example:
        >>> num_shard_ids(99, 2)
        50
    """
    return -(-vocab_size // size)


def shard_tensors(
    stored: Mapping[str, StoredTensor], naming: Naming, config: DecoderConfig, part: Part
) -> dict[str, StoredTensor]:
    """What a rank reads of each tensor.

    Norms are whole on every rank, as are the biases of outputs and downs, which are added once,
    after the sum over the ranks. Rows of the embedding and the head beyond the vocabulary are
    zeros.

    Args:
        stored: A model's tensors, each of its whole shape.
        naming: What they are called.
        config: The whole model's shape.
        part: Whose.

    Raises:
        InvalidRequestError: As `shard_config`.
    """
    shapes = naming.shapes(shard_config(config, part))
    rows = num_shard_ids(config.vocab_size, part.size)
    tables = (naming.embedding, naming.head)
    return {
        name: tensor.some_rows(name, part.rank * rows, rows)
        if name in tables
        else _cut(tensor, shapes[name], part)
        for name, tensor in stored.items()
    }


def _cut(tensor: StoredTensor, shape: tuple[int, ...], part: Part) -> StoredTensor:
    """The rows, or the columns, of which a rank has fewer than the model."""
    if shape[0] != tensor.shape[0]:
        first = _first(tensor.shape[0], shape[0], part)
        return tensor.some_rows(tensor.name, first, shape[0])
    if shape != tensor.shape:
        first = _first(tensor.shape[1], shape[1], part)
        return tensor.some_columns(first, shape[1], stored_block(tensor.format))
    return tensor


def _first(whole: int, own: int, part: Part) -> int:
    """Where a rank's own begins; neighbours have the same where there is less than one each."""
    return part.rank * whole // part.size // own * own


def _unshared(config: DecoderConfig, size: int) -> str | None:
    """The first number of the config that so many ranks cannot share; None if they can."""
    kv = config.num_kv_heads
    if config.num_heads % size:
        return "num_heads"
    if kv % size and size % kv:
        return "num_kv_heads"
    return "intermediate_size" if config.intermediate_size % size else None
