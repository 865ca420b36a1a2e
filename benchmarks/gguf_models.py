"""Tiny random models in GGUF files, of any family, tensor format and scaling that is tried."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

__all__ = ["FAMILIES", "FORMATS", "FamilyModel", "write_model"]

HIDDEN, HEADS, KV_HEADS, INNER, CONTEXT = 256, 4, 2, 512, 256
_TOKENS = (
    ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + [f"▁t{i}" for i in range(29)]
)
NUM_IDS = len(_TOKENS)

# Where the float16 scale of a block lies, where its minimum, and the mean of its codes.
_PLACES: dict[str, tuple[int, int | None, float]] = {
    "Q8_0": (0, None, 0), "Q4_0": (0, None, 0), "Q4_1": (0, 2, -7.5), "Q5_0": (0, None, 0),
    "Q5_1": (0, 2, -15.5), "Q2_K": (80, 82, 1.5), "Q3_K": (108, None, 0), "Q4_K": (0, 2, 7.5),
    "Q5_K": (0, 2, 15.5), "Q6_K": (208, None, 0), "IQ4_NL": (0, None, 0), "IQ4_XS": (0, None, 0),
    "IQ3_XXS": (0, None, 0), "IQ3_S": (0, None, 0), "IQ2_XXS": (0, None, 0),
    "IQ2_XS": (0, None, 0), "IQ2_S": (0, None, 0), "IQ1_S": (0, None, 0), "TQ1_0": (52, None, 0),
    "TQ2_0": (64, None, 0),
}  # fmt: skip
FORMATS = ("F32", "F16", "BF16", *_PLACES, "IQ1_M", "MXFP4")
"""Every format of the grid; the blocks of the quantised ones are random codes."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class FamilyModel:
    """What one family's files hold beside what all do."""

    name: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Under the architecture's prefix."""
    layer: Callable[[], Shapes] = dict
    """Tensors of a layer, by name; a name of the common ones with an empty shape leaves it out."""
    num_layers: int = 2
    is_tied: bool = False
    head_size: int = HIDDEN // HEADS


def _bias(**sizes: int) -> Callable[[], Shapes]:
    return lambda: {f"attn_{name}.bias": (size,) for name, size in sizes.items()}


def _output_norms() -> dict[str, tuple[int, ...]]:
    return {"post_attention_norm.weight": (HIDDEN,), "post_ffw_norm.weight": (HIDDEN,)}


def _fused() -> dict[str, tuple[int, ...]]:
    return {
        "attn_q.weight": (),
        "attn_k.weight": (),
        "attn_v.weight": (),
        "ffn_gate.weight": (),
        "attn_qkv.weight": (2 * HIDDEN, HIDDEN),
        "ffn_up.weight": (2 * INNER, HIDDEN),
    }


FAMILIES: dict[str, FamilyModel] = {
    "llama": FamilyModel("llama"),
    "llama with biases": FamilyModel(
        "llama",
        layer=lambda: {
            **_bias(q=HIDDEN, k=HIDDEN // 2, v=HIDDEN // 2, output=HIDDEN)(),
            "ffn_gate.bias": (INNER,),
            "ffn_up.bias": (INNER,),
            "ffn_down.bias": (HIDDEN,),
        },
    ),
    "qwen2": FamilyModel("qwen2", layer=_bias(q=HIDDEN, k=HIDDEN // 2, v=HIDDEN // 2)),
    "qwen3": FamilyModel(
        "qwen3",
        layer=lambda: {"attn_q_norm.weight": (64,), "attn_k_norm.weight": (64,)},
        is_tied=True,
    ),
    "granite": FamilyModel(
        "granite",
        {
            "logit_scale": 4.0,
            "residual_scale": 0.6,
            "embedding_scale": 3.0,
            "attention.scale": 0.2,
        },
    ),
    "phi3": FamilyModel("phi3", {"rope.dimension_count": 48}, layer=_fused),
    "gemma": FamilyModel("gemma", is_tied=True),
    "gemma2": FamilyModel(
        "gemma2",
        {
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 8.0,
            "attention.sliding_window": 16,
        },
        layer=_output_norms,
        is_tied=True,
        head_size=128,
    ),
    "gemma3": FamilyModel(
        "gemma3",
        {"attention.sliding_window": 16, "rope.freq_base_swa": 100.0},
        layer=lambda: _output_norms() | {f"attn_{x}_norm.weight": (64,) for x in "qk"},
        num_layers=7,
        is_tied=True,
    ),
}


def write_model(
    path: Path,
    family: FamilyModel,
    format: str,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    *,
    without: str | None = None,
    as_floats: bool = False,
    num_parts: int = 1,
) -> list[str]:
    """Write a model with random weights, the same for the same arguments.

    Args:
        path: The file.
        family: One of `FAMILIES`.
        format: Of every matrix, one of `FORMATS`.
        metadata: More keys, under the architecture's prefix; they come last.
        tensors: More tensors, float32.
        without: A tensor to leave out.
        as_floats: Write the values that the format's blocks mean, as float32.
        num_parts: Split the model into so many files, named after `path` as llama.cpp does.

    Returns:
        The names of all tensors.
    """
    most = -(-(len(_shapes(family)) + len(tensors or {})) // num_parts) if num_parts > 1 else 0
    writer = gguf.GGUFWriter(path, family.name, split_max_tensors=most)
    _write_metadata(writer, family, dict(family.metadata) | dict(metadata or {}))
    names: list[str] = []
    for name, kind, values in _weights(family, format, as_floats=as_floats):
        names.append(name)
        if name != without:
            writer.add_tensor(name, values, raw_dtype=kind)
    for name, values in (tensors or {}).items():
        names.append(name)
        if name != without:
            writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return names


def _write_metadata(writer: gguf.GGUFWriter, family: FamilyModel, more: Mapping[str, Any]) -> None:
    writer.add_vocab_size(NUM_IDS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(_TOKENS)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 29)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(29)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    common = {
        "block_count": family.num_layers,
        "context_length": CONTEXT,
        "embedding_length": HIDDEN,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": family.head_size,
        "attention.value_length": family.head_size,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 1000.0,
        "rope.dimension_count": family.head_size,
    }
    for key, value in (common | dict(more)).items():
        if value is not None:
            _write(writer, f"{family.name}.{key}", value)


def _write(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _shapes(family: FamilyModel) -> dict[str, tuple[int, ...]]:
    queries, keys = HEADS * family.head_size, KV_HEADS * family.head_size
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (HIDDEN,),
        "attn_q.weight": (queries, HIDDEN),
        "attn_k.weight": (keys, HIDDEN),
        "attn_v.weight": (keys, HIDDEN),
        "attn_output.weight": (HIDDEN, queries),
        "ffn_norm.weight": (HIDDEN,),
        "ffn_gate.weight": (INNER, HIDDEN),
        "ffn_up.weight": (INNER, HIDDEN),
        "ffn_down.weight": (HIDDEN, INNER),
    } | dict(family.layer())
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (NUM_IDS, HIDDEN)}
    for number in range(family.num_layers):
        shapes |= {f"blk.{number}.{name}": shape for name, shape in layer.items() if shape}
    shapes["output_norm.weight"] = (HIDDEN,)
    return shapes if family.is_tied else shapes | {"output.weight": (NUM_IDS, HIDDEN)}


@lru_cache(maxsize=4)
def _weights(
    family: FamilyModel, format: str, *, as_floats: bool
) -> tuple[tuple[str, Kind, np.ndarray], ...]:
    rng = np.random.default_rng(7)
    return tuple(
        (name, *_values(name, shape, format, rng, as_floats=as_floats))
        for name, shape in _shapes(family).items()
    )


def _values(
    name: str, shape: tuple[int, ...], format: str, rng: np.random.Generator, *, as_floats: bool
) -> tuple[Kind, np.ndarray]:
    """A tensor as the file holds it; queries and keys are large, so that positions matter."""
    if len(shape) == 1:
        start = 0.0 if name.endswith("bias") else 1.0
        return Kind.F32, (start + 0.2 * rng.standard_normal(shape)).astype(np.float32)
    gain = 3.0 if ("attn_q" in name or "attn_k" in name) else 1.5
    std = 0.3 if name.startswith("token_embd") else gain / np.sqrt(shape[1])
    kind = Kind[format]
    if format in ("F32", "F16", "BF16"):
        values = (std * rng.standard_normal(shape)).astype(np.float32)
        raw = gguf.quantize(values, kind)
    else:
        raw = _random_blocks(format, shape, std, rng)
    if as_floats:
        return Kind.F32, gguf.dequantize(raw, kind).reshape(shape).astype(np.float32)
    return kind, raw


def _random_blocks(
    format: str, shape: tuple[int, ...], std: float, rng: np.random.Generator
) -> np.ndarray:
    """Random codes, with scales that give the values about this standard deviation."""
    size, num_bytes = gguf.GGML_QUANT_SIZES[Kind[format]]
    raw = rng.integers(0, 256, (shape[0] * shape[1] // size, num_bytes), dtype=np.uint8)
    scale = rng.uniform(0.7, 1.3, len(raw))
    _set_scale(format, raw, scale)
    values = gguf.dequantize(raw, Kind[format])
    _set_scale(format, raw, scale * std / float(values.std()))
    return raw.reshape(shape[0], -1)


def _set_scale(format: str, raw: np.ndarray, scale: np.ndarray) -> None:
    if format == "MXFP4":
        raw[:, 0] = np.clip(np.round(np.log2(scale)) + 127, 1, 254)
        return
    halves = scale.astype(np.float16).view(np.uint16)
    if format == "IQ1_M":  # four bits in each of the last four 16-bit words
        words = raw[:, 48:].view(np.uint16)
        for place in range(4):
            words[:, place] = (words[:, place] & 0x0FFF) | (((halves >> (4 * place)) & 15) << 12)
        return
    start, minimum, mean = _PLACES[format]
    raw[:, start : start + 2] = halves.view(np.uint8).reshape(-1, 2)
    if minimum is not None:
        low = (mean * scale).astype(np.float16)
        raw[:, minimum : minimum + 2] = low.view(np.uint8).reshape(-1, 2)
