"""The file that a memory is kept in from run to run.

It holds tokens of texts that passed through, prompts among them: whoever can read the file can read
those.
"""

import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from draftsmith.drafters.evidence import FIRST_WEIGHTS
from draftsmith.drafters.memory import BOUNDS, Contents, Memory
from draftsmith.errors import InvalidRequestError, ModelFormatError, VocabularyMismatchError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.tokenizer import Tokenizer
from draftsmith.models.written import written_whole

__all__ = ["Identity", "identity_of", "load_memory", "save_memory"]

_FORMAT = 1
_MOST_BYTES = 64 << 20
"""Ten times what a full memory takes."""
_NAMES = ("format", "name", "digest", *Contents._fields)
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)
"""What numpy and zipfile raise at files that are no memory, or not whole."""


class Identity(NamedTuple):
    """Whose memory it is."""

    name: str
    vocab_size: int
    digest: str
    """Of the name, without folders, the size and every token's string."""


def identity_of(model: LanguageModel, words: Tokenizer | None) -> Identity:
    """Whose memory a target's is.

    Args:
        model: The target.
        words: Its tokenizer; None where there is none.
    """
    name, size = Path(model.traits.name).name, model.traits.vocab_size
    strings = {} if words is None else words.token_strings()
    told = json.dumps([name, size, sorted(strings.items())])
    return Identity(name, size, hashlib.sha256(told.encode()).hexdigest())


def save_memory(memory: Memory, path: Path, identity: Identity) -> None:
    """Write a memory beside its place, then put it there: a disk that fills leaves the old one.

    Raises:
        InvalidRequestError: If it cannot be written.
    """
    with memory.lock:
        contents = memory.contents()
    arrays = {
        "format": np.array(_FORMAT),
        "name": np.array(identity.name),
        "digest": np.array(identity.digest),
        **contents._asdict(),
    }
    try:
        with written_whole(path) as place, place.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InvalidRequestError(
            f"memory {path} cannot be written: {why}; what was there before is as it was"
        ) from error


def load_memory(memory: Memory, path: Path, identity: Identity) -> None:
    """Read what `save_memory` wrote; a file that is not there leaves the memory empty.

    Raises:
        InvalidRequestError: If there is no folder to write it to.
        ModelFormatError: If it is no memory, or not whole.
        VocabularyMismatchError: If it is another model's.
    """
    if not path.exists():
        if not path.parent.is_dir():
            raise InvalidRequestError(
                f"memory {path} has no folder: make {path.parent}, or name another file"
            )
        return
    try:
        arrays = _read(path)
        if int(arrays["format"]) != _FORMAT:
            raise ModelFormatError(f"memory {path} is of another version: name another file")
        if str(arrays["digest"]) != identity.digest:
            raise VocabularyMismatchError(
                f"memory {path} is of {str(arrays['name'])[:80]}, or of another tokenizer, and the "
                f"target is {identity.name}: name another file"
            )
        _check(arrays, identity.vocab_size)
    except _UNREADABLE as error:
        raise ModelFormatError(
            f"memory {path} is none, or not whole: name another file, or remove it"
        ) from error
    with memory.lock:
        memory.hold(Contents._make(arrays[name] for name in Contents._fields))


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    with path.open("rb") as file:
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise ValueError("too large")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in _NAMES}


def _check(arrays: dict[str, NDArray[np.generic]], vocab_size: int) -> None:
    """Refuse arrays that `save_memory` does not write.

    Raises:
        ValueError: If ids or shapes are wrong.
    """
    for name in ("older", "newer"):
        _check_ids(arrays[name], 1, vocab_size)
        if len(arrays[name]) > 2 * BOUNDS.tokens:
            raise ValueError(name)
    for keys, rows in (("pairs", "pair_rows"), ("tokens", "token_rows")):
        _check_ids(arrays[rows], 2, vocab_size)
        held = arrays[keys]
        if held.shape != (len(arrays[rows]),) or held.dtype != np.int64:
            raise ValueError(keys)
    for name in ("weights", "squares"):
        numbers = arrays[name]
        is_known = numbers.shape == (len(FIRST_WEIGHTS),) and numbers.dtype == np.float64
        if not is_known or not bool(np.isfinite(numbers.astype(np.float64)).all()):
            raise ValueError(name)
    if bool((arrays["squares"].astype(np.float64) <= 0).any()):
        raise ValueError("squares")


def _check_ids(ids: NDArray[np.generic], num_axes: int, vocab_size: int) -> None:
    if ids.ndim != num_axes or ids.dtype != np.int32:
        raise ValueError("ids")
    numbers = ids.astype(np.int64)
    if numbers.size and not -1 <= int(numbers.min()) <= int(numbers.max()) < vocab_size:
        raise ValueError("ids")
