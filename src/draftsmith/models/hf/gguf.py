"""The tokenizer in a GGUF file, as `transformers` converts it, once.

`transformers` walks the whole vocabulary several times; here its conversion is kept.
"""
# transformers' and gguf's annotations are looser than pyright's strict mode asks:
# pyright: basic

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from draftsmith.models.converted import converted_folder
from draftsmith.models.file_tokenizer import keep_tokenizer
from draftsmith.models.hf.chat import chat_renderer

__all__ = ["load_gguf_tokenizer"]

_DONE_BY_BACKEND = (
    "__call__",
    "_convert_encoding",
    "_decode",
    "_encode_plus",
    "apply_chat_template",
    "decode",
    "get_chat_template",
    "get_vocab",
    "set_truncation_and_padding",
)
"""Methods of `PreTrainedTokenizerFast` that hand the work on, unless a class has its own."""


def load_gguf_tokenizer(path: Path) -> Any:
    """The tokenizer in a GGUF file, converted once, and kept for `open_tokenizer` if it can be."""
    kept = converted_folder(path)
    if not (kept / "tokenizer.json").exists():
        options = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        AutoTokenizer.from_pretrained(**options).save_pretrained(kept)
    tokenizer = AutoTokenizer.from_pretrained(kept)
    if _runs_on_backend(tokenizer):
        backend = tokenizer.backend_tokenizer
        keep_tokenizer(kept, backend, tokenizer.chat_template, tokenizer.special_tokens_map)
    return tokenizer


def _runs_on_backend(tokenizer: Any) -> bool:
    """Whether all that our contract asks of a tokenizer is done by its backend and template.

    A class may do more: change the text first, or the ids after. Then it cannot be left out.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.split_special_tokens:
        return False
    kind, plain = type(tokenizer), PreTrainedTokenizerFast
    if any(getattr(kind, name, None) is not getattr(plain, name) for name in _DONE_BY_BACKEND):
        return False
    text = tokenizer.backend_tokenizer.to_str()
    renderer = chat_renderer(tokenizer.chat_template, tokenizer.special_tokens_map)
    is_read_back = Backend.from_str(text).to_str() == text
    return is_read_back and renderer.special_tokens_map == tokenizer.special_tokens_map
