"""Draft heads that come with the package: small enough to need no pull."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["SHIPPED", "ShippedHead"]

_DATA: Final = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class ShippedHead:
    """A trained head inside the package; `scripts/ship_head.py` writes its folder.

    Attributes:
        name: What the user writes.
        target: The catalogue name of the model that it drafts for.
        licence: An SPDX identifier.
        learnt_from: The sources of its training.
        note: What it is for, in a few words.
    """

    name: str
    target: str
    licence: str
    learnt_from: str
    note: str

    @property
    def folder(self) -> Path:
        """Where it lies: config.json, model.safetensors, recipe.json and README.md."""
        return _DATA / self.name

    @property
    def num_bytes(self) -> int:
        """Of its weights."""
        return (self.folder / "model.safetensors").stat().st_size


_HEADS: Final = (
    ShippedHead(
        name="smollm2-135m-instruct-head",
        target="smollm2-135m-instruct",
        licence="Apache-2.0",
        learnt_from=(
            "the target's answers to prompts that it invented, and its continuations of functions "
            "and passages of Python's standard library (PSF-2.0)"
        ),
        note="draft head of smollm2-135m-instruct",
    ),
)

SHIPPED: Final[dict[str, ShippedHead]] = {head.name: head for head in _HEADS}
"""Every head of the package, by name; `--draft` takes the name."""
