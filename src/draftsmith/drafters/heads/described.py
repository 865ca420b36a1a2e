"""What a head's folder says, for people: every convention as it is resolved, and its recipe."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from draftsmith.drafters.heads.kinds import is_head, kind_of, read_head
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.errors import ModelFormatError
from draftsmith.models.load import ModelSettings, load_model
from draftsmith.models.shipped import SHIPPED

__all__ = ["described_head"]


def described_head(folder: Path, target: str | None = None) -> dict[str, str | int] | None:
    """Describe a head.

    Args:
        folder: Of a head, or of anything else.
        target: A reference of the model that it drafts for, which is loaded; None makes do with
            the files.

    Returns:
        By name, in the order in which it is shown; None for what is no head.

    Raises:
        DraftsmithError: The head cannot be read, or leaves something to the target and none is
            given.
    """
    if not is_head(folder):
        return None
    on_cpu = ModelSettings(device="cpu")
    tables = None if target is None else tables_of(load_model(target, on_cpu))
    head = read_head(folder, tables)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    found: dict[str, str | int] = {"kind": kind_of(folder).name, "path": str(folder)}
    found |= {**head.described(), "num_bytes": size}
    shipped = SHIPPED.get(folder.name)
    if shipped is not None and shipped.folder == folder:
        found |= {"licence": shipped.licence, "learnt from": shipped.learnt_from}
    return found | _acceptance(folder / "recipe.json")


def _acceptance(path: Path) -> dict[str, str | int]:
    """Of held-out text, if a recipe tells it."""
    if not path.is_file():
        return {}
    try:
        recipe = cast("dict[str, dict[str, object]]", json.loads(path.read_bytes()))
        told, temperature = recipe["acceptance"], recipe["options"]["temperature"]
        return {
            "held-out acceptance": f"{_places(told, 'greedy')} % by place at temperature 0, "
            f"{_places(told, 'sampled')} % at {temperature}",
            "held-out tokens": int(cast("int", told["num_tokens"])),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFormatError(
            f"{path} is no recipe of draftsmith train ({error!r:.60}): remove it, or fetch it again"
        ) from error


def _places(told: Mapping[str, object], kind: str) -> str:
    return " ".join(f"{100 * share:.1f}" for share in cast("list[float]", told[kind]))
