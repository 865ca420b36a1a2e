"""Multi-token prediction layers (MTP), which some targets bring along: refused by name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from draftsmith.drafters.heads.files import read_config
from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.errors import ModelFormatError

__all__ = ["claims_mtp", "refuse_mtp"]

_NAMED = re.compile(r".*(MTP|NextN)([A-Z][A-Za-z]*)?|(.*[_-])?(mtp|nextn)")
"""A class with the word in it, or a type that ends with it: not its letters by chance."""


def claims_mtp(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of MTP layers alone, not of a model that brings some along.

    Example:
        >>> claims_mtp({"architectures": ["Qwen3_5MTP"]})
        True
        >>> claims_mtp({"architectures": ["DeepseekV3ForCausalLM"], "num_nextn_predict_layers": 1})
        False
    """
    return _named(config) is not None


def refuse_mtp(folder: Path, target: TargetTables | None) -> NoReturn:
    """Say that there is no reader.

    Args:
        folder: With a config.json of which `claims_mtp` is true.
        target: Whatever it is.

    Raises:
        ModelFormatError: Always.
    """
    del target
    name = _named(read_config(folder))
    raise ModelFormatError(
        f"{folder} holds MTP layers ({name}), which read the states of their own family "
        "(Qwen3-Next, Qwen3.5, DeepSeek), and no native decoder runs one: use another draft"
    )


def _named(config: Mapping[str, object]) -> str | None:
    """What names them."""
    listed = config.get("architectures")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    told = (config.get("speculators_model_type"), config.get("model_type"), *names)
    found = [str(one) for one in told if one is not None]
    return next((one for one in found if _NAMED.fullmatch(one)), None)
