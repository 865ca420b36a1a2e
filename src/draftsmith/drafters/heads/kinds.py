"""The kinds of heads that are known, and who reads which folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from draftsmith.drafters.heads.block_kind import read_block_kind
from draftsmith.drafters.heads.block_layouts import MASK_FILE, claims_block
from draftsmith.drafters.heads.eagle3_kind import claims_eagle3, read_eagle3_kind
from draftsmith.drafters.heads.files import PICKLE, read_config
from draftsmith.drafters.heads.kind import Head
from draftsmith.drafters.heads.medusa_kind import read_medusa_kind
from draftsmith.drafters.heads.medusa_layout import MEDUSA_FILES, claims_medusa
from draftsmith.drafters.heads.mtp import claims_mtp, refuse_mtp
from draftsmith.drafters.heads.parallel_kind import read_parallel_kind
from draftsmith.drafters.heads.parallel_layout import claims_parallel
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.models.native.bounds import named_after

__all__ = ["KINDS", "Kind", "is_head", "is_head_config", "kind_of", "read_head"]


class Kind(NamedTuple):
    """One kind of head."""

    name: str
    claims: Callable[[Mapping[str, object]], bool]
    """Whether a config.json is that of such a head."""
    read: Callable[[Path, TargetTables | None], Head]
    """From its folder and its target's tables; without these, a head that needs none of them."""
    pickles: tuple[str, ...] = ()
    """Files beside the config and safetensors."""


KINDS: Final = (
    Kind("Medusa", claims_medusa, read_medusa_kind, MEDUSA_FILES),
    Kind("DFlash and DSpark", claims_block, read_block_kind, (MASK_FILE,)),
    Kind("MTP", claims_mtp, refuse_mtp),
    Kind("P-EAGLE", claims_parallel, read_parallel_kind, (PICKLE,)),
    Kind("EAGLE-3", claims_eagle3, read_eagle3_kind, (PICKLE,)),
)
"""The first that claims a folder reads it, or says what is not known there. EAGLE-3, the last,
claims whatever is marked as a head."""


def is_head(folder: Path) -> bool:
    """Whether a folder holds a draft head, of whatever kind, and no model.

    Example:
        >>> from pathlib import Path
        >>> is_head(Path("."))
        False
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False  # whoever reads it next says what is wrong
    return isinstance(config, dict) and is_head_config(config)


def is_head_config(config: Mapping[str, object]) -> bool:
    """The same of a parsed config.json.

    Example:
        >>> is_head_config({"architectures": ["LlamaForCausalLMEagle3"]})
        True
    """
    return any(kind.claims(config) for kind in KINDS)


def read_head(folder: Path, target: TargetTables | None) -> Head:
    """Read a head for a target, of whatever kind and in whatever layout it is.

    Args:
        folder: With a config.json and the weights.
        target: Whose layers and width fill in what the files leave to convention; None reads a
            head that leaves nothing to it.

    Returns:
        The head: its conventions, all of them, and its weights, checked against each other.

    Raises:
        ModelFormatError: It is of another kind, cut off, or says something that is not known here.
        InvalidRequestError: The target is None, and the files leave something to it.
    """
    return kind_of(folder).read(folder, target)


def kind_of(folder: Path) -> Kind:
    """Who reads a head's folder; EAGLE-3 where nobody claims it, which says what is wrong.

    Args:
        folder: With a config.json.

    Raises:
        ModelFormatError: The file cannot be read.
    """
    with named_after(folder):
        config = read_config(folder)
    return next((one for one in KINDS if one.claims(config)), KINDS[-1])
