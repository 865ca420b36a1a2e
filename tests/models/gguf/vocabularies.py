"""Tiny GGUF files with a vocabulary of our choice."""
# gguf's annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
WIDTH = 32


def write(
    path: Path,
    tokens: Sequence[str],
    types: Sequence[int] | None = None,
    *,
    scores: Sequence[float] | None = None,
    merges: Sequence[str] | None = None,
    model: str | None = None,
    name: str = "tiny",
    architecture: str = "llama",
    rows: int | None = None,
    **keys: Any,
) -> Path:
    """Write a model of one layer whose weights are zeros.

    Args:
        path: Where.
        tokens: The vocabulary.
        types: Of the tokens; None is all normal.
        scores: Of the tokens, for a SentencePiece vocabulary.
        merges: For a byte-pair vocabulary.
        model: `tokenizer.ggml.model`; None is what the merges say.
        name: Of the model.
        architecture: Of the model.
        rows: Of the embedding; None is one a token.
        keys: Under `tokenizer.ggml.`; a list is an array of int32, and None is left out.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_tokenizer_model(model or ("llama" if merges is None else "gpt2"))
    writer.add_token_list(list(tokens))
    if types is not None:
        writer.add_token_types(list(types))
    if scores is not None:
        writer.add_token_scores(list(scores))
    if merges is not None:
        writer.add_token_merges(list(merges))
    for key, value in keys.items():
        _add(writer, f"tokenizer.ggml.{key}", value)
    _add_weights(writer, rows or len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: Any, key: str, value: Any) -> None:
    key = key.replace("tokenizer.ggml.chat_template", "tokenizer.chat_template")
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def _add_weights(writer: Any, rows: int) -> None:
    shapes = {
        "token_embd": (rows, WIDTH),
        "output": (rows, WIDTH),
        "output_norm": (WIDTH,),
        "blk.0.attn_norm": (WIDTH,),
        "blk.0.ffn_norm": (WIDTH,),
    }
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{part}": (WIDTH, WIDTH) for part in parts}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
