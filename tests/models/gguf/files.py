"""Tiny models as GGUF files, converted as llama.cpp does it."""
# transformers' and gguf's objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind

from tests import tiny


def _permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's own conversion: the halves of a head are interleaved."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def write_gguf(path: Path, model: Any, kind: Kind = Kind.F32, **options: Any) -> None:
    """Convert a model as llama.cpp does; its own matrices become what the file's blocks mean."""
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_eos_token_id(tiny.EOS)
    if config.model_type == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    names = gguf.get_tensor_name_map(_arch(config.model_type), config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        base, _, suffix = name.rpartition(".")
        values = parameter.detach().numpy()
        here = kind if values.ndim == 2 else Kind.F32
        raw = gguf.quants.quantize(values, here)
        parameter.data = torch.from_numpy(gguf.dequantize(raw, here).reshape(values.shape))
        if config.model_type == "llama" and "q_proj" in name:
            raw = _permuted(raw, config.num_attention_heads)
        if config.model_type == "llama" and "k_proj" in name:
            raw = _permuted(raw, config.num_key_value_heads)
        writer.add_tensor(f"{names.get_name(base)}.{suffix}", raw, raw_dtype=here)
    for name, (values, here) in options.items():
        writer.add_tensor(name.replace("__", "."), values, raw_dtype=here)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _arch(name: str) -> Any:
    return next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
