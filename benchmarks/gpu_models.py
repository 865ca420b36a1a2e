"""Models of random weights in real shapes, on a GPU."""

from typing import Any

import torch
from torch import Tensor

from draftsmith.kernels.matrix import Matrix
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_weights import GpuLayer, GpuWeights
from draftsmith.models.native.rotary import scaled_rotary
from draftsmith.models.native.weights import DecoderWeights, LayerWeights, Projection

__all__ = ["SHAPES", "adapted", "adapted_from", "plain_decoder", "random_weights", "shape"]

_QWEN = ("query", "key", "value")


def shape(
    sizes: tuple[int, int, int, int, int, int, int],
    context: int,
    biases: tuple[str, ...] = (),
    *,
    is_tied: bool = False,
) -> DecoderConfig:
    """A decoder's: layers, hidden, heads, key/value heads, their size, intermediate, vocabulary."""
    layers, hidden, heads, kv_heads, head, inner, vocab = sizes
    return DecoderConfig(
        architecture="qwen2" if biases else "llama",
        num_layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head,
        intermediate_size=inner,
        vocab_size=vocab,
        context_length=context,
        norm_epsilon=1e-6,
        rotary=scaled_rotary(1e6, head, context, {}),
        windows=(None,) * layers,
        eos_token_ids=(),
        biases=biases,
        is_tied=is_tied,
    )


SHAPES = {
    "0.5B": shape((24, 896, 14, 2, 64, 4864, 151_936), 32_768, _QWEN, is_tied=True),
    "1.5B": shape((28, 1536, 12, 2, 128, 8960, 151_936), 32_768, _QWEN, is_tied=True),
    "8B": shape((32, 4096, 32, 8, 128, 14_336, 128_256), 8192),
}
"""Of Qwen2.5 0.5B and 1.5B, and of Llama 3 8B."""


def random_weights(config: DecoderConfig, seed: int = 0) -> GpuWeights:
    """Weights of a spread that keeps activations near 1, bfloat16."""
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        return (torch.randn(*shape, generator=generator, device="cuda") * scale).bfloat16()

    def matrix(outputs: int, inputs: int) -> Tensor:
        return normal(outputs, inputs, scale=inputs**-0.5)

    hidden, inner = config.hidden_size, config.intermediate_size
    own = config.num_heads * config.head_size
    inputs = own + 2 * config.num_kv_heads * config.head_size
    ones = torch.ones(hidden, device="cuda", dtype=torch.bfloat16)
    layers = tuple(
        GpuLayer(
            attention_norm=ones,
            inputs=matrix(inputs, hidden),
            inputs_bias=normal(inputs, scale=0.1) if config.biases else None,
            head_norms=None,
            output=matrix(hidden, own),
            output_bias=None,
            feed_forward_norm=ones,
            gate_and_up=matrix(2 * inner, hidden),
            gate_and_up_bias=None,
            down=matrix(hidden, inner),
            down_bias=None,
        )
        for _ in range(config.num_layers)
    )
    embedding = normal(config.vocab_size, hidden, scale=0.5)
    head = embedding if config.is_tied else matrix(config.vocab_size, hidden)
    return GpuWeights(embedding, layers, ones, head)


def plain_decoder(model: GpuDecoder) -> TorchDecoder:
    """The plain decoder of the same weights."""
    config, weights = model.config, _packed(model)
    return TorchDecoder.from_weights(weights, config, model.device, torch.bfloat16)


def _packed(model: GpuDecoder) -> DecoderWeights:
    """The same weights as a file would give them."""
    config, held = model.config, model.weights
    own, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size

    def one(matrix: Tensor, bias: Tensor | None = None) -> Projection:
        return Projection(Matrix.from_float(matrix.cpu().float(), "BF16"), bias)

    def layer(of: GpuLayer) -> LayerWeights:
        parts = of.inputs.split((own, kv, kv))
        biases = (None,) * 3 if of.inputs_bias is None else of.inputs_bias.split((own, kv, kv))
        query, key, value = (one(m, b) for m, b in zip(parts, biases, strict=True))
        gate, up = (one(matrix) for matrix in of.gate_and_up.chunk(2))
        return LayerWeights(
            attention_norm=of.attention_norm,
            query=query,
            key=key,
            value=value,
            query_norm=None,
            key_norm=None,
            output=one(of.output),
            feed_forward_norm=of.feed_forward_norm,
            gate=gate,
            up=up,
            down=one(of.down),
        )

    embedding = one(held.embedding).matrix
    head = embedding if held.head is held.embedding else one(held.head).matrix
    return DecoderWeights(embedding, tuple(map(layer, held.layers)), held.final_norm, head)


def adapted(name: str) -> Any:
    """A `transformers` model of the same shape, random, bfloat16."""
    return _adapted(SHAPES[name]).bfloat16().eval()


def adapted_from(model: GpuDecoder) -> Any:
    """A `transformers` model of a Qwen2 decoder's own weights."""
    config, held = model.config, model.weights
    own, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    theirs = _adapted(config).to(held.embedding.dtype).eval()
    state = {
        "model.embed_tokens.weight": held.embedding,
        "model.norm.weight": held.final_norm,
        "lm_head.weight": held.head,
    }
    for number, layer in enumerate(held.layers):
        at = f"model.layers.{number}"
        assert layer.inputs_bias is not None
        weights, biases = (one.split((own, kv, kv)) for one in (layer.inputs, layer.inputs_bias))
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            state[f"{at}.self_attn.{name}_proj.weight"] = weight
            state[f"{at}.self_attn.{name}_proj.bias"] = bias
        gate, up = layer.gate_and_up.chunk(2)
        state |= {
            f"{at}.self_attn.o_proj.weight": layer.output,
            f"{at}.mlp.gate_proj.weight": gate,
            f"{at}.mlp.up_proj.weight": up,
            f"{at}.mlp.down_proj.weight": layer.down,
            f"{at}.input_layernorm.weight": layer.attention_norm,
            f"{at}.post_attention_layernorm.weight": layer.feed_forward_norm,
        }
    theirs.load_state_dict(state)
    return theirs


def _adapted(config: DecoderConfig) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    theirs = Qwen2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        max_position_embeddings=config.context_length,
        tie_word_embeddings=config.is_tied,
        rms_norm_eps=config.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    with torch.device("cuda"):
        return Qwen2ForCausalLM(theirs)
