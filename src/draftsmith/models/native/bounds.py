"""What a file claims, held against the tensors that it holds, before anything is built from it.

A layer has a tensor of its own, and no size of a model is larger than its largest tensor; so a
count beyond these is a lie, and no list or table of that length is made.
"""

import math
import struct
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from draftsmith.errors import DraftsmithError, ModelFormatError

__all__ = ["MOST_LAYERS", "Extent", "check_sizes", "extent_of", "named_after"]

MOST_LAYERS = 10_000
"""Of any model: the bound where no tensor is at hand yet."""

_FAULTS = (
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RecursionError,
    BufferError,
    MemoryError,
    struct.error,
    OSError,
    RuntimeError,
)
"""What damaged numbers make of a reader's arithmetic, where no check met them before."""

_LONGEST = 1000
"""Characters of a refusal: a name in a damaged file may be as long as the file."""


class Extent(NamedTuple):
    """How much a file holds."""

    num_tensors: int
    most_weights: int
    """Of its largest tensor."""


def extent_of(shapes: Iterable[tuple[int, ...]]) -> Extent:
    """The extent of tensors with these shapes.

    Example:
        >>> extent_of([(4, 8), (8,)])
        Extent(num_tensors=2, most_weights=32)
    """
    sizes = [math.prod(shape) for shape in shapes]
    return Extent(len(sizes), max(sizes, default=0))


def check_sizes(
    claimed: Mapping[str, object],
    layers: Collection[str],
    sizes: Collection[str],
    extent: Extent,
) -> None:
    """Refuse counts of layers and sizes that the tensors cannot have.

    Args:
        claimed: Options of a config; those that are no whole number, or one a layer, are left to
            whoever reads them.
        layers: Keys that count layers.
        sizes: Keys of widths, heads and vocabularies.
        extent: Of the file.

    Raises:
        ModelFormatError: Naming the key.
    """
    for keys, bound, what in (
        (layers, extent.num_tensors, f"the file holds {extent.num_tensors} tensors"),
        (sizes, extent.most_weights, f"its largest tensor has {extent.most_weights} weights"),
    ):
        for key in keys:
            value = claimed.get(key)
            if isinstance(value, int) and value > bound:
                raise ModelFormatError(f"{key} is {value}, but {what}; fetch it again, whole")


@contextmanager
def named_after(path: Path) -> Generator[None]:
    """Put the file's name before an error, and make a reader's fault a refusal."""
    try:
        yield
    except ModelFormatError as error:
        text = str(error)
        if text.startswith(str(path)) and len(text) <= _LONGEST:
            raise
        named = text if text.startswith(str(path)) else f"{path}: {text}"
        raise ModelFormatError(_shortened(named)) from error
    except DraftsmithError:
        raise
    except _FAULTS as error:
        why = " ".join(str(error).split()) or "no detail"
        kind = type(error).__name__
        raise ModelFormatError(
            f"{path} cannot be read ({kind}: {why:.200}); fetch it again"
        ) from error


def _shortened(text: str) -> str:
    half = _LONGEST // 2 - 2
    return text if len(text) <= _LONGEST else f"{text[:half]} … {text[-half:]}"
