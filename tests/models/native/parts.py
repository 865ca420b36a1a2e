"""The parts of a decoder put together again: their matrices, or the sums of what they compute."""
# pyright: basic

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn.functional import linear

from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder, _capped, _norm
from draftsmith.models.native.shards import Part, shard_config
from draftsmith.models.native.torch_context import waves_by_window
from draftsmith.models.native.weights import DecoderWeights, Projection

BY_INPUTS = ("output", "down")


def matrices(weights: DecoderWeights) -> dict[str, Tensor]:
    """Every tensor of a model in float32, by field and layer."""
    found = {
        "embedding": weights.embedding.dequantise(),
        "head": weights.head.dequantise(),
        "final_norm": weights.final_norm,
    }
    for number, layer in enumerate(weights.layers):
        for field in fields(layer):
            value = getattr(layer, field.name)
            if isinstance(value, Projection):
                found[f"{number}.{field.name}"] = value.matrix.dequantise()
                value, name = value.bias, f"{number}.{field.name}.bias"
            else:
                name = f"{number}.{field.name}"
            if value is not None:
                found[name] = value
    return found


def joined(parts: Sequence[DecoderWeights], config: DecoderConfig) -> dict[str, Tensor]:
    """The whole model's tensors; what several ranks have must be the same on each of them."""
    shards = [matrices(part) for part in parts]
    return {name: _joined(name, [one[name] for one in shards], config) for name in shards[0]}


def _joined(name: str, parts: list[Tensor], config: DecoderConfig) -> Tensor:
    field = name.removesuffix(".bias").split(".")[-1]
    if name in ("embedding", "head"):
        table = torch.cat(parts)
        assert not table[config.vocab_size :].any()
        return table[: config.vocab_size]
    if field in ("query", "gate", "up"):
        return torch.cat(parts)
    if field in ("key", "value"):
        copies = max(1, len(parts) // config.num_kv_heads)
        assert all(
            torch.equal(one, parts[rank // copies * copies]) for rank, one in enumerate(parts)
        )
        return torch.cat(parts[::copies])
    if field in BY_INPUTS and not name.endswith("bias"):
        return torch.cat(parts, 1)
    assert all(torch.equal(one, parts[0]) for one in parts)
    return parts[0]


def summed_logits(
    parts: Sequence[DecoderWeights], config: DecoderConfig, tokens: list[int]
) -> Tensor:
    """The logits after each token of a text: every part computes alone, and partial sums meet.

    Args:
        parts: Of all ranks.
        config: The whole model's shape.
        tokens: The text.
    """
    size = len(parts)
    ranks = [
        TorchDecoder.from_weights(_without_late_biases(one), shard_config(config, Part(rank, size)))
        for rank, one in enumerate(parts)
    ]
    hidden = config.scales.embedding * _embedded(parts, tokens)
    waves = waves_by_window(config, torch.arange(len(tokens)).unsqueeze(0))
    for number, layer in enumerate(parts[0].layers):
        window = config.windows[number]
        parts_added = [
            rank._look_back(rank._weights.layers[number], hidden, waves[window], window)
            for rank in ranks
        ]
        added = _sum(parts_added, layer.output.bias)
        hidden = hidden + ranks[0]._to_add(added, layer.output_norm)
        parts_added = [rank._feed_forward(rank._weights.layers[number], hidden) for rank in ranks]
        hidden = hidden + ranks[0]._to_add(_sum(parts_added, layer.down.bias), layer.down_norm)
    hidden = _norm(hidden, parts[0].final_norm, config.norm_epsilon)
    logits = torch.cat([linear(hidden, one.head.dequantise()) for one in parts], -1)
    return _capped(config.scales.logits * logits, config.scales.logit_cap)[
        0, :, : config.vocab_size
    ]


def _sum(parts: Sequence[Tensor], bias: Tensor | None) -> Tensor:
    total = torch.stack(list(parts)).sum(0)
    return total if bias is None else total + bias


def _embedded(parts: Sequence[DecoderWeights], tokens: list[int]) -> Tensor:
    """Every rank has the rows of its own ids, and zeros for all others."""
    rows = parts[0].embedding.num_outputs
    found = torch.zeros(1, len(tokens), parts[0].embedding.num_inputs)
    for rank, part in enumerate(parts):
        own = [place for place, id in enumerate(tokens) if id // rows == rank]
        found[0, own] += part.embedding.rows([tokens[place] - rank * rows for place in own])
    return found


def _without_late_biases(weights: DecoderWeights) -> DecoderWeights:
    """The same without the biases that are added after the sum over the ranks."""
    layers = tuple(
        replace(
            layer,
            **{field: Projection(getattr(layer, field).matrix) for field in BY_INPUTS},
        )
        for layer in weights.layers
    )
    return replace(weights, layers=layers)
