"""Where a training stands, as a file that is whole or not there."""

import contextlib
import pickle
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.written import written_whole

__all__ = ["TrainState", "load_state", "refusing_full_disks", "save_state"]


_ONCE: Final[dict[str, object]] = {"kind": "eagle3", "markov_rank": 0}
"""What a checkpoint is of that says nothing of it."""


@dataclass
class TrainState:
    """All that the rest of a training depends on, besides its options and texts."""

    tensors: dict[str, Tensor]
    epoch: int = 0
    batch: int = 0
    """Within the epoch, the next one."""
    step: int = 0
    progress: float = 0.0
    """The part of the way that the learning rate has gone, where time decides it."""
    num_texts: int = 0
    """Texts that it began with."""
    best: float = -1.0
    """Score of the best trial so far."""
    num_stale: int = 0
    """Trials since."""
    is_done: bool = False
    why: str = ""
    """Why it ended."""
    optimiser: dict[str, Any] = field(default_factory=dict[str, Any])
    trials: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What each trial found, for the recipe."""


def save_state(path: Path, state: TrainState, of: dict[str, object]) -> None:
    """Write a state beside its place, and move it there.

    Args:
        path: The place.
        state: What is kept.
        of: What the training is of, to be compared when it goes on.

    Raises:
        OSError: As writing does; what was there stays.
    """
    with written_whole(path) as place:
        try:
            torch.save({"of": of, **vars(state)}, place)
        except RuntimeError as error:
            # torch's own words for a disk that is full.
            raise OSError(28, "no space left on device") from error


def load_state(path: Path, of: dict[str, object]) -> TrainState | None:
    """Read a state, if there is one.

    Args:
        path: The place.
        of: What the training is of.

    Raises:
        ModelFormatError: It is no state, or cut off.
        InvalidRequestError: It is another training's.
    """
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        theirs = found.pop("of")
        state = TrainState(**found)
    except (RuntimeError, EOFError, pickle.UnpicklingError, TypeError, KeyError) as error:
        raise ModelFormatError(
            f"{path} is no checkpoint of a training, or cut off: remove it to begin anew"
        ) from error
    theirs = _ONCE | theirs
    for key, value in of.items():
        if theirs.get(key) != value:
            raise InvalidRequestError(
                f"{path} is a training's with {key}={theirs.get(key)!r}, and {value!r} is asked "
                "for: give the same, or another --out"
            )
    return state


@contextlib.contextmanager
def refusing_full_disks(folder: Path) -> Generator[None]:
    """Say in one line that a folder could not be written to.

    Args:
        folder: Of the training.

    Raises:
        InvalidRequestError: In the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InvalidRequestError(
            f"{folder} cannot be written to ({error.strerror or error}): make room and run the "
            "same command again, which goes on from the last checkpoint"
        ) from error
