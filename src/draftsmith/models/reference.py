"""One way to name a model everywhere: a catalogue name, a Hub id, a folder or a GGUF file."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from draftsmith.errors import ModelNotFoundError
from draftsmith.models.catalogue import CATALOGUE, near_names
from draftsmith.models.pull import PullProgress, pull
from draftsmith.models.shipped import SHIPPED

__all__ = ["ModelSource", "SourceKind", "local_path", "resolve"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FORMS = "a catalogue name, a Hub id (org/name), a local folder (./path) or a .gguf file"


class SourceKind(StrEnum):
    """What a reference names."""

    CATALOGUE = "catalogue"
    HUB = "hub"
    FOLDER = "folder"
    GGUF = "gguf"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A reference that was understood; nothing has been fetched for it.

    Attributes:
        kind: Which of the four forms.
        reference: What the user wrote.
        path: The folder or file; None for a catalogue name and a Hub id.
    """

    kind: SourceKind
    reference: str
    path: Path | None


def resolve(ref: str) -> ModelSource:
    """Understand a model reference, by looking at the local disk only.

    What has a path separator or ends in `.gguf` and exists is that folder or file; then come
    catalogue names and heads that come with the package, then Hub ids. So `org/name` is a local
    folder where there is one.

    Args:
        ref: What the user wrote.

    Returns:
        The source. A Hub id is not checked for existence.

    Raises:
        ModelNotFoundError: The reference has none of the four forms, names a `.gguf` file that
            does not exist, or a folder or file that holds no model.

    Example:
        >>> resolve("Qwen/Qwen2.5-0.5B").kind.value
        'hub'
    """
    path = Path(os.path.expanduser(ref))
    is_gguf = path.suffix.lower() == ".gguf"
    if is_gguf or _has_separator(ref):
        # os.path answers False where Path.is_file raises, for a name that is too long.
        if os.path.isdir(path):
            return _folder(ref, path)
        if os.path.isfile(path):
            return _file(ref, path)
        if is_gguf:
            raise ModelNotFoundError(f"no file {ref}; check the path to the .gguf file")
    if ref in CATALOGUE:
        return ModelSource(SourceKind.CATALOGUE, ref, None)
    if ref in SHIPPED:
        return ModelSource(SourceKind.FOLDER, ref, SHIPPED[ref].folder)
    if _HUB_ID.fullmatch(ref):
        return ModelSource(SourceKind.HUB, ref, None)
    raise _not_found(ref)


def local_path(
    source: ModelSource, on_progress: Callable[[PullProgress], None] | None = None
) -> Path | None:
    """Return where a source lies on this disk, after pulling it if it is in the catalogue.

    Args:
        source: What `resolve` returned.
        on_progress: See `pull`.

    Returns:
        The folder or `.gguf` file; None for a Hub id, which the Hub's own client fetches.

    Raises:
        PullError: The catalogue model could not be fetched.
    """
    if source.kind is SourceKind.CATALOGUE:
        return pull(source.reference, on_progress)
    return source.path


def _has_separator(ref: str) -> bool:
    return "/" in ref or os.sep in ref


def _folder(ref: str, path: Path) -> ModelSource:
    if not os.path.isfile(path / "config.json"):
        raise ModelNotFoundError(
            f"folder {ref} has no config.json; give a folder that save_pretrained wrote, "
            "or the path to a .gguf file"
        )
    return ModelSource(SourceKind.FOLDER, ref, path)


def _file(ref: str, path: Path) -> ModelSource:
    if path.suffix.lower() != ".gguf":
        raise ModelNotFoundError(
            f"file {ref} does not end in .gguf; give a .gguf file, or the folder that holds "
            "config.json and the weights"
        )
    return ModelSource(SourceKind.GGUF, ref, path)


def _not_found(ref: str) -> ModelNotFoundError:
    """List what the user may have meant, in one line."""
    guesses = near_names(ref)
    if ref and not _has_separator(ref) and os.path.isdir(ref):
        guesses.append(f"./{ref}")
    hint = f"did you mean {', '.join(guesses)}? " if guesses else ""
    return ModelNotFoundError(f"no model {ref!r}; {hint}give {_FORMS}")
