"""What the tensors of a decoder are called, and the shapes that they must have."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.config import DecoderConfig

__all__ = ["GGUF", "TRANSFORMERS", "Naming", "check_names"]


@dataclass(frozen=True)
class Naming:
    """One convention of names."""

    embedding: str
    final_norm: str
    head: str
    layer: str
    """The prefix of a layer's tensors, with a place for its number."""
    parts: dict[str, str]
    """The fields of `LayerWeights`, and what the tensor is called after the prefix."""

    def part(self, layer: int, field: str, kind: str = "weight") -> str:
        """The name of one tensor of a layer; `kind` is `weight` or `bias`."""
        return f"{self.layer.format(layer)}{self.parts[field]}.{kind}"

    def shapes(self, config: DecoderConfig) -> dict[str, tuple[int, ...]]:
        """Every tensor that a model of this shape has, and its own shape, rows first."""
        table = (config.vocab_size, config.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {
            self.embedding: table,
            self.final_norm: (config.hidden_size,),
        }
        if not config.is_tied:
            shapes[self.head] = table
        for layer in range(config.num_layers):
            for field, kind, shape in _layer_shapes(config):
                shapes[self.part(layer, field, kind)] = shape
        return shapes


TRANSFORMERS = Naming(
    embedding="model.embed_tokens.weight",
    final_norm="model.norm.weight",
    head="lm_head.weight",
    layer="model.layers.{}.",
    parts={
        "attention_norm": "input_layernorm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "query_norm": "self_attn.q_norm",
        "key_norm": "self_attn.k_norm",
        "output": "self_attn.o_proj",
        "feed_forward_norm": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
)
"""As in a checkpoint of `transformers`."""

GGUF = Naming(
    embedding="token_embd.weight",
    final_norm="output_norm.weight",
    head="output.weight",
    layer="blk.{}.",
    parts={
        "attention_norm": "attn_norm",
        "query": "attn_q",
        "key": "attn_k",
        "value": "attn_v",
        "query_norm": "attn_q_norm",
        "key_norm": "attn_k_norm",
        "output": "attn_output",
        "feed_forward_norm": "ffn_norm",
        "gate": "ffn_gate",
        "up": "ffn_up",
        "down": "ffn_down",
        "output_norm": "post_attention_norm",
        "down_norm": "post_ffw_norm",
    },
)
"""As in a GGUF file."""


def check_names(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that a file holds the very tensors of a model.

    Args:
        found: Shapes of what the file holds, by name.
        wanted: Shapes of what the model has, by name.

    Raises:
        ModelFormatError: If a tensor is missing, unknown or of another shape; it is named.
    """
    for name, shape in wanted.items():
        if name not in found:
            raise ModelFormatError(f"it lacks tensor {name!r}; fetch it again, whole")
        if found[name] != shape:
            raise ModelFormatError(
                f"tensor {name!r} has shape {found[name]}, but the config means {shape}: "
                "take the config and the weights from one place"
            )
    for name in found:
        if name not in wanted:
            raise ModelFormatError(
                f"tensor {name!r} is unknown to a model of its kind: take another copy"
            )


def _layer_shapes(config: DecoderConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Field, kind and shape of every tensor of a layer."""
    hidden, head, inner = config.hidden_size, config.head_size, config.intermediate_size
    queries, keys = config.num_heads * head, config.num_kv_heads * head
    matrices = {
        "query": (queries, hidden),
        "key": (keys, hidden),
        "value": (keys, hidden),
        "output": (hidden, queries),
        "gate": (inner, hidden),
        "up": (inner, hidden),
        "down": (hidden, inner),
    }
    for field, shape in matrices.items():
        yield field, "weight", shape
    for field in config.biases:
        yield field, "bias", matrices[field][:1]
    yield "attention_norm", "weight", (hidden,)
    yield "feed_forward_norm", "weight", (hidden,)
    if config.normalises_outputs:
        yield "output_norm", "weight", (hidden,)
        yield "down_norm", "weight", (hidden,)
    if config.normalises_heads:
        yield "query_norm", "weight", (head,)
        yield "key_norm", "weight", (head,)
