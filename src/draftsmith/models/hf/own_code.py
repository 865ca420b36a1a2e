"""Python code that a checkpoint names: it is never run, and where it would be needed, refused.

`transformers` has classes of its own for many checkpoints that also carry code; those are run by
the library. Code under another class's name is another computation, which the library would leave
out without a word.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from draftsmith.errors import ModelFormatError

__all__ = ["check_own_code", "check_tokenizer_class"]

_TABLES = {
    "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "AutoModelForSeq2SeqLM": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
_SETTINGS = "tokenizer_config.json"


def check_own_code(config: Mapping[str, object], reference: str) -> None:
    """Refuse a model whose class is another than the library's of the same `model_type`.

    Args:
        config: Of config.json, with a type that the library knows.
        reference: How the user named the model.

    Raises:
        ModelFormatError: Naming the class.
    """
    own, kind = config.get("auto_map"), config.get("model_type")
    for auto, names in _TABLES.items():
        given = own.get(auto) if isinstance(own, dict) else None
        known = cast(Mapping[object, object], names).get(kind)
        if given is not None and _class_name(given).lower() != str(known).lower():
            raise ModelFormatError(
                f"model {reference!r}: its config.json has {_class_name(given)!r} of Python code "
                f"of its own for {kind!r}, which is never run here: take a model that transformers "
                "knows"
            )


def check_tokenizer_class(folder: Path, reference: str) -> None:
    """Refuse a tokenizer of a class that the library does not know, and would replace.

    Args:
        folder: Of the checkpoint.
        reference: How the user named it.

    Raises:
        ModelFormatError: Naming the class.
    """
    path = folder / _SETTINGS
    settings = json.loads(path.read_bytes()) if path.is_file() else {}
    own, named = settings.get("auto_map"), settings.get("tokenizer_class")
    pair: Any = own.get("AutoTokenizer") if isinstance(own, dict) else own
    for given in [*(pair if isinstance(pair, list) else [pair]), named]:
        if given is None or _is_tokenizer(given):
            continue
        raise ModelFormatError(
            f"model {reference!r}: transformers {transformers.__version__} has no tokenizer_class "
            f"{_class_name(given)!r}, and code of a checkpoint is never run here: where "
            f"tokenizer.json says all, set it to PreTrainedTokenizerFast in {_SETTINGS}"
        )


def _is_tokenizer(name: object) -> bool:
    known = tokenizer_class_from_name(_class_name(name))
    # A class whose own library is not installed is known: loading says what to install.
    is_stand_in = ".dummy_" in getattr(known, "__module__", "")
    return is_stand_in or (
        isinstance(known, type) and issubclass(known, transformers.PreTrainedTokenizerBase)
    )


def _class_name(given: object) -> str:
    """The class of `module.Class`, perhaps behind `org/name--`."""
    return str(given).rpartition(".")[2]
