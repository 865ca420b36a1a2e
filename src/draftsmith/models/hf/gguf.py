"""GGUF files into `transformers` models, without that library's slow reading of the file.

`transformers` walks the whole vocabulary several times per load and searches the name table
once a tensor. Here its conversion of config and tokenizer is done once and kept; the weights
are dequantised straight from the file by the `gguf` package. Families with other tensor
layouts than the ones below go the slow way.
"""
# transformers' and gguf's annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer as Backend
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from draftsmith.errors import ModelFormatError
from draftsmith.models.converted import converted_folder
from draftsmith.models.file_tokenizer import keep_tokenizer
from draftsmith.models.gguf.header import GgufTensor, check_gguf, list_tensors
from draftsmith.models.hf.chat import chat_renderer

__all__ = ["load_gguf_model", "load_gguf_tokenizer"]

_PLAIN_FAMILIES = {"llama", "qwen2", "qwen3"}
"""Families whose tensors need no rearrangement, but for llama's queries and keys."""

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


def load_gguf_model(path: Path, dtype: torch.dtype) -> Any:
    """The model in a GGUF file, dequantised to `dtype`.

    Raises:
        ModelFormatError: If the file is not whole, or tensors are missing or left over.
    """
    summary = check_gguf(path)
    options = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    if summary.architecture not in _PLAIN_FAMILIES:
        return AutoModelForCausalLM.from_pretrained(**options, dtype=dtype)
    kept = converted_folder(path)
    if not (kept / "config.json").exists():
        AutoConfig.from_pretrained(**options).save_pretrained(kept)
    config = AutoConfig.from_pretrained(kept)
    weights = dict(_weights(path, config, summary.architecture, dtype))
    kind: Any = AutoModelForCausalLM._model_mapping[type(config)]
    return kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)


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


def _weights(
    path: Path, config: Any, architecture: str, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its name in `transformers`."""
    names = _names(config, architecture)
    tensors = list_tensors(path)
    unknown = [tensor.name for tensor in tensors if tensor.name not in names]
    unknown = [name for name in unknown if name != "rope_freqs.weight"]
    if unknown:
        raise ModelFormatError(f"{path} has tensor {unknown[0]!r}, unknown to {architecture}")
    known = [tensor for tensor in tensors if tensor.name in names]

    def read(tensor: GgufTensor) -> tuple[str, Tensor]:
        name = names[tensor.name]
        weight = torch.from_numpy(_dequantise(path, tensor))
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            is_query = name.endswith("q_proj.weight")
            heads = config.num_attention_heads if is_query else config.num_key_value_heads
            weight = _unpermuted(weight, heads)
        return name, weight.to(dtype)

    # numpy lets go of the interpreter while it computes.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield from pool.map(read, known)


def _names(config: Any, architecture: str) -> dict[str, str]:
    """GGUF tensor names to those of `transformers`, for this model's size."""
    kind: Any = AutoModelForCausalLM._model_mapping[type(config)]
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    with torch.device("meta"):
        parameters = kind(config).state_dict()
    names: dict[str, str] = {}
    for parameter in parameters:
        base, _, suffix = parameter.rpartition(".")
        name = table.get_name(base)
        if name is not None:
            names[f"{name}.{suffix}"] = parameter
    return names


def _dequantise(path: Path, tensor: GgufTensor) -> np.ndarray:
    """Float32 values, `[..., fastest dimension]`."""
    kind = gguf.GGMLQuantizationType[tensor.type_name]
    shape = tuple(reversed(tensor.shape))
    raw = np.memmap(path, np.uint8, "r", tensor.offset, (tensor.num_bytes,))
    if kind == gguf.GGMLQuantizationType.F32:
        return np.array(raw).view(np.float32).reshape(shape)
    if kind == gguf.GGMLQuantizationType.F16:
        return np.array(raw).view(np.float16).reshape(shape).astype(np.float32)
    return gguf.dequantize(raw.reshape(*shape[:-1], -1), kind).reshape(shape)


def _unpermuted(weight: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's order of the rotary pairs: neighbours there, halves apart here."""
    rows, columns = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)
