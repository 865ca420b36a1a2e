"""Which `tokenizer.*` keys of a GGUF file are honoured, and which say nothing that matters here.

Every other key is refused by its name: it may change what a text means.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.header import GgufValue

__all__ = ["CHAT_TEMPLATE", "PREFIX", "check_keys", "flag", "token_id"]

PREFIX = "tokenizer.ggml."
CHAT_TEMPLATE = "tokenizer.chat_template"

_HONOURED = {
    "model", "pre", "tokens", "token_type", "scores", "merges",
    "add_bos_token", "add_eos_token", "add_space_prefix",
    "bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "unknown_token_id",
    "padding_token_id", "seperator_token_id", "cls_token_id", "mask_token_id",
    "fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id",
    "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id",
    "prefix_token_id", "suffix_token_id", "middle_token_id",
}  # fmt: skip
_HARMLESS = {
    PREFIX + "add_sep_token": "a separator stands between two texts; we encode one",
    PREFIX + "token_type_count": "kinds of segments, which encoders embed and decoders do not",
    "tokenizer.huggingface.json": "the same tokenizer in another format",
    "tokenizer.chat_templates": "the names of the templates in tokenizer.chat_template.*",
}
_HARMLESS_IF_FALSE = {
    "remove_extra_whitespaces",
    "normalizer.lowercase",
    "normalizer.strip_accents",
}


def check_keys(path: Path, keys: Iterable[str], values: Mapping[str, GgufValue]) -> None:
    """Refuse a file that says something of its tokenizer which we would not honour.

    Args:
        path: The file, for the message.
        keys: All keys of its metadata, those of arrays included.
        values: What the file gives for them.

    Raises:
        ModelFormatError: Naming the key.
    """
    for key in keys:
        if not key.startswith("tokenizer.") or _is_known(key, values.get(key)):
            continue
        given = f" = {values[key]!r:.40}" if key in values else ""
        raise ModelFormatError(
            f"{path}: {key}{given} is not supported by our tokenizers, and they do not ignore it; "
            "use the model's original folder, or a file without that key"
        )


def _is_known(key: str, value: GgufValue | None) -> bool:
    if key in _HARMLESS or key == CHAT_TEMPLATE or key.startswith(f"{CHAT_TEMPLATE}."):
        return True
    name = key.removeprefix(PREFIX)
    return name in _HONOURED or (name in _HARMLESS_IF_FALSE and value is False)


def flag(path: Path, values: Mapping[str, GgufValue], name: str, default: bool) -> bool:
    """Return what a file says to yes or no, under `tokenizer.ggml.NAME`.

    Raises:
        ModelFormatError: If it says something else.
    """
    value = values.get(PREFIX + name, default)
    if not isinstance(value, bool):
        raise ModelFormatError(
            f"{path}: {PREFIX}{name} is {value!r}, not true or false; fetch the file again"
        )
    return value


def token_id(path: Path, values: Mapping[str, GgufValue], name: str, num_tokens: int) -> int | None:
    """Return a token's id under `tokenizer.ggml.NAME_token_id`; None if the file has none.

    Raises:
        ModelFormatError: If it is no id of the vocabulary.
    """
    key = f"{PREFIX}{name}_token_id"
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < num_tokens:
        raise ModelFormatError(
            f"{path}: {key} is {value!r}, but the vocabulary has ids 0 to {num_tokens - 1}; "
            "convert the model again"
        )
    return value
