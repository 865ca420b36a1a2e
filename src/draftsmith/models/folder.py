"""A folder of a checkpoint, looked over before anything is built from it.

What is wrong with a file is said here, by the file's name; a library that meets it later says it
in its own words, or not at all.
"""

import json
from pathlib import Path
from typing import Any, TypeGuard, cast

from draftsmith.core.values import is_whole
from draftsmith.errors import ModelFormatError
from draftsmith.models.native.bounds import MOST_LAYERS, check_sizes, extent_of, named_after

__all__ = ["check_folder", "check_vocabulary"]

_OBJECTS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model.safetensors.index.json",
)
_COUNTS = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "vocab_size",
)
_VOCABULARIES = ("vocab_size", "decoder_vocab_size", "tgt_vocab_size")
_LAYERS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers"),
    *("encoder_layers", "decoder_layers"),
)
_SIZES = (
    *("hidden_size", "d_model", "n_embd", "intermediate_size", "d_ff", "vocab_size", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "num_heads", "n_head"),
)
_INDEX = "model.safetensors.index.json"
_WITHOUT_FILES = {"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"}
"""Tokenizers of bytes or characters, which have no vocabulary to keep."""
_AGAIN = "fetch it again, whole"
_HEADER_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000  # as the format's own library allows


def check_folder(folder: Path, *, with_weights: bool) -> None:
    """Refuse a folder with a file that is not what its name says.

    Args:
        folder: Holds a config.json.
        with_weights: Whether the weights are looked at too: that they are whole, not their values.

    Raises:
        ModelFormatError: Naming the file, what is wrong and the remedy.
    """
    with named_after(folder):
        _check(folder, with_weights=with_weights)


def _check(folder: Path, *, with_weights: bool) -> None:
    found = {name: _object(folder / name) for name in _OBJECTS if (folder / name).exists()}
    _check_config(folder / "config.json", found.get("config.json", {}))
    for name in ("config.json", "generation_config.json"):
        _check_ends(folder / name, found.get(name, {}), found.get("config.json", {}))
    if with_weights:
        _check_index(folder, found.get(_INDEX))
        shapes = [s for path in sorted(folder.glob("*.safetensors")) for s in _shapes(path)]
        if shapes:
            check_sizes(found.get("config.json", {}), _LAYERS, _SIZES, extent_of(shapes))


def check_vocabulary(folder: Path) -> None:
    """Refuse a folder without a tokenizer.

    Raises:
        ModelFormatError: With the remedy.
    """
    patterns = ("tokenizer*.json", "*.model", "*.tiktoken", "*vocab*", "tekken.json")
    files = [path for pattern in patterns for path in folder.glob(pattern)]
    is_byte_level = "tokenizer_config.json" in {path.name for path in files} and (
        _object(folder / "tokenizer_config.json").get("tokenizer_class") in _WITHOUT_FILES
    )
    has_words = any(path.name != "tokenizer_config.json" for path in files)
    if not has_words and not is_byte_level:
        raise ModelFormatError(
            f"folder {folder} has no tokenizer (tokenizer.json, tokenizer.model or a vocabulary): "
            "fetch or save it beside the model"
        )


def _object(path: Path) -> dict[str, Any]:
    try:
        content: object = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}: {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path} is not JSON ({error}): {_AGAIN}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ModelFormatError(f"{path} must hold a JSON object, got a {kind}: {_AGAIN}")
    return cast(dict[str, Any], content)


def _check_config(path: Path, config: dict[str, Any]) -> None:
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise ModelFormatError(
            f"{path}: model_type must be a name, such as 'llama', got {kind!r}: {_AGAIN}"
        )
    for name in _COUNTS:
        value = config.get(name)
        # Some families have a list, one count a layer.
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not isinstance(value, list) and not is_count:
            raise ModelFormatError(
                f"{path}: {name} must be a whole number, 1 or more, got {value!r}: {_AGAIN}"
            )
    for name in _LAYERS:
        value = config.get(name)
        if isinstance(value, int) and value > MOST_LAYERS:
            raise ModelFormatError(f"{path}: {name} must be at most {MOST_LAYERS}, got {value!r}")


def _check_ends(path: Path, options: dict[str, Any], config: dict[str, Any]) -> None:
    """Every id that ends a text is one that the model can say; -1 says that there is none."""
    sizes = [config[name] for name in _VOCABULARIES if isinstance(config.get(name), int)]
    value = options.get("eos_token_id")
    found = cast(list[object], value) if isinstance(value, list) else [value]
    if value is not None and not all(is_whole(one) for one in found):
        raise ModelFormatError(
            f"{path}: eos_token_id must be a token id or a list of them, got {value!r:.60}: "
            f"{_AGAIN}"
        )
    beyond = [one for one in found if isinstance(one, int) and one >= max(sizes, default=0)]
    if sizes and beyond:
        raise ModelFormatError(
            f"{path}: eos_token_id {beyond[0]} is beyond the vocabulary of {max(sizes)} ids: take "
            "the config and the weights from one place"
        )


def _check_index(folder: Path, index: dict[str, Any] | None) -> None:
    """Every part that the index names is here."""
    if index is None:
        return
    parts: object = index.get("weight_map")
    if not isinstance(parts, dict):
        raise ModelFormatError(f"{folder / _INDEX} has no weight_map of tensors to files: {_AGAIN}")
    for name in sorted({str(part) for part in cast(dict[str, object], parts).values()}):
        if Path(name).name != name:
            raise ModelFormatError(
                f"{folder / _INDEX} names {name!r}, which is outside the folder: take another copy"
            )
        if not (folder / name).is_file():
            raise ModelFormatError(
                f"{folder} lacks {name!r}, a part of its weights that the index names: "
                "fetch that file too"
            )


def _shapes(path: Path) -> list[tuple[int, ...]]:
    """The shapes in a file that is as long as its header says (8 bytes of length, JSON, data)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_HEADER_BYTES), "little")
            header: object = (
                json.loads(file.read(length))
                if length + _HEADER_BYTES <= size and length <= _MOST_HEADER_BYTES
                else None
            )
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}: {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path} is not a safetensors file ({error}): {_AGAIN}") from error
    if not isinstance(header, dict):
        raise ModelFormatError(
            f"{path} is cut off or no safetensors file: it has {size:,} bytes, and its header "
            f"alone would take {length + _HEADER_BYTES:,}: {_AGAIN}"
        )
    expected = length + _HEADER_BYTES + _num_data_bytes(cast(dict[str, Any], header))
    if size != expected:
        raise ModelFormatError(
            f"{path} is cut off or overlong: it has {size:,} bytes, and its header says "
            f"{expected:,}: {_AGAIN}"
        )
    entries = [one for one in cast(dict[str, Any], header).values() if isinstance(one, dict)]
    found: list[object] = [cast(dict[str, Any], entry).get("shape") for entry in entries]
    return [tuple(shape) for shape in found if _is_shape(shape)]


def _is_shape(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(size, int) for size in cast(list[object], value)
    )


def _num_data_bytes(header: dict[str, Any]) -> int:
    ends = [
        entry["data_offsets"][1]
        for entry in header.values()
        if isinstance(entry, dict) and _is_range(cast(dict[str, Any], entry).get("data_offsets"))
    ]
    return max(ends, default=0)


def _is_range(value: object) -> bool:
    if not isinstance(value, list):
        return False
    numbers = cast(list[object], value)
    return len(numbers) == 2 and all(isinstance(number, int) for number in numbers)
