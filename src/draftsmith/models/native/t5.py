"""A T5 of our own: encode a source once, then decode ragged batches, rows bit for bit alike.

References:
    Raffel et al., arXiv:1910.10683.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError
from draftsmith.kernels.cpu.library import num_threads, using_threads
from draftsmith.kernels.matrix import Matrix
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.native.bounds import named_after
from draftsmith.models.native.checkpoint import open_checkpoint
from draftsmith.models.native.stored import StoredTensor
from draftsmith.models.native.t5_cache import T5Cache, T5Row
from draftsmith.models.native.t5_config import T5Config, read_t5_config
from draftsmith.models.native.t5_layers import attend, attend_one, bias_between, gelu, rms_norm
from draftsmith.models.native.t5_weights import (
    AttentionWeights,
    ExactMatrix,
    FeedForwardWeights,
    FloatMatrix,
    LayerWeights,
    T5Matrix,
    T5Weights,
    arrange_t5_weights,
)

__all__ = ["NativeT5", "read_plain_t5", "read_t5"]

_CPU = torch.device("cpu")


def read_t5(
    folder: Path,
    format: str | None = None,
    *,
    name: str | None = None,
    exact_activations: bool = False,
    threads: int | None = None,
) -> "NativeT5":
    """Read a T5 (v1.0, v1.1 or mT5) into packed matrices, for the CPU.

    Args:
        folder: `config.json` and safetensors files, as `transformers` saves them.
        format: One of `kernels.matrix.FORMATS`; None keeps the numbers of the file. Another
            format is a different model.
        name: What the traits call it; None is the folder's name.
        exact_activations: Keep activations in float32. Otherwise products with quantised weights
            round them to 8 bits in groups of 16, each row by itself.
        threads: Of the kernels in its passes; None is the process's default as it is now.

    Raises:
        ModelNotFoundError: There is no such folder.
        ModelFormatError: The folder is not a T5 that can run here; the message says why.

    Example:
        >>> from pathlib import Path
        >>> read_t5(Path("t5-small")).traits.is_encoder_decoder
        True
    """

    def pack(stored: StoredTensor) -> T5Matrix:
        packed = _packed(stored, format)
        return ExactMatrix(packed) if exact_activations else packed

    with named_after(folder):
        checkpoint, config = open_checkpoint(folder), read_t5_config(folder)
        weights = arrange_t5_weights(checkpoint, config, pack, _CPU)
        return NativeT5(config, weights, name or folder.name, _CPU, threads)


def _packed(stored: StoredTensor, format: str | None) -> Matrix:
    if format is None or format == stored.format:
        num_outputs, num_inputs = stored.shape
        return Matrix.pack(stored.read(), stored.format, num_outputs, num_inputs, stored.name)
    return Matrix.from_float(stored.tensor(), format, stored.name)


def read_plain_t5(
    folder: Path, device: torch.device = _CPU, *, name: str | None = None
) -> "NativeT5":
    """Read a T5 into float32 tensors: the twin that the packed one is checked against.

    Args:
        folder: As for `read_t5`.
        device: Where it runs. Rows are promised bit for bit alike on the CPU only.
        name: What the traits call it; None is the folder's name.

    Raises:
        ModelNotFoundError: There is no such folder.
        ModelFormatError: The folder is not a T5 that can run here; the message says why.
    """

    def load(stored: StoredTensor) -> FloatMatrix:
        return FloatMatrix(stored.tensor().to(device))

    with named_after(folder):
        checkpoint, config = open_checkpoint(folder), read_t5_config(folder)
        weights = arrange_t5_weights(checkpoint, config, load, device)
        return NativeT5(config, weights, name or folder.name, device)


class _Place(NamedTuple):
    """Where a new token of a pass goes."""

    row: T5Row
    position: int
    bias: Tensor
    """Towards itself and the tokens before it, `[heads, 1, position + 1]`."""


class NativeT5(LanguageModel):
    """A T5 behind our contract, without `transformers`.

    A token's logits are the same bits whatever else is in the pass (the number of rows, their
    order, the tokens that come with it), on the CPU and as far as its matrices keep to that.
    """

    def __init__(
        self,
        config: T5Config,
        weights: T5Weights,
        name: str,
        device: torch.device,
        threads: int | None = None,
    ) -> None:
        self.config = config
        self.num_threads = num_threads() if threads is None else threads
        """Of the kernels in its passes."""
        self.weights = weights
        self.device = device
        self.traits = ModelTraits(
            name=name,
            vocab_size=config.vocab_size,
            eos_token_ids=config.eos_token_ids,
            context_length=None,
            is_encoder_decoder=True,
            decoder_start_token_id=config.decoder_start_token_id,
        )

    def open_cache(self) -> T5Cache:
        """An empty cache of this model."""
        return T5Cache()

    @torch.inference_mode()
    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Run the encoder over a row's source, and project it for every decoder layer.

        Raises:
            InvalidRequestError: The source is empty, or the row is not open.
        """
        assert isinstance(cache, T5Cache)
        if not source:
            raise InvalidRequestError("the source has 0 tokens; give at least one")
        with self._on_own_threads():
            states = self._encoder_states(source)
            layers = self.weights.decoder.layers
            projected = [self._project_source(states, layer) for layer in layers]
        cache.begin(row, T5Row(self.config, torch.stack(projected)))

    @torch.inference_mode()
    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them.

        Raises:
            InvalidRequestError: A row has no source.
        """
        assert batch.parents is None
        with self._on_own_threads():
            flat = self.weights.head.multiply(self._decode(cache, batch) * self.config.output_scale)
        widths = [len(tokens) for tokens in batch.tokens]
        if len(widths) == 1:
            return flat.unsqueeze(0)
        logits = flat.new_zeros(len(widths), batch.width, self.config.vocab_size)
        for line, own in zip(logits, flat.split(widths), strict=True):
            line[: len(own)] = own
        return logits

    @torch.inference_mode()
    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        with self._on_own_threads():
            self._decode(cache, Rows([row], [tokens]))

    def _on_own_threads(self) -> AbstractContextManager[None]:
        return using_threads(num_threads(self.num_threads))

    # --- the encoder --------------------------------------------------------------------------

    def _encoder_states(self, source: Sequence[int]) -> Tensor:
        """`[source, hidden]`. A source is always whole and alone, so any order of sums will do."""
        stack = self.weights.encoder
        bias = bias_between(stack.bias, range(len(source)), len(source))
        states = self.weights.embedding.rows(source)
        for layer in stack.layers:
            weights = layer.self_attention
            normed = self._norm(states, weights.norm)
            queries, keys, values = (
                self._by_token(matrix, normed).transpose(0, 1)
                for matrix in (weights.query, weights.key, weights.value)
            )
            states = states + weights.output.multiply(attend(queries, keys, values, bias))
            states = self._feed_forward(states, layer.feed_forward)
        return self._norm(states, stack.final_norm)

    def _project_source(self, states: Tensor, layer: LayerWeights) -> Tensor:
        """A decoder layer's keys and values of the source, `[2, heads, source, head]`."""
        weights = _cross(layer)
        pair = [self._by_token(one, states) for one in (weights.key, weights.value)]
        return torch.stack(pair).transpose(1, 2).contiguous()

    # --- the decoder --------------------------------------------------------------------------

    def _decode(self, cache: Cache, batch: Rows) -> Tensor:
        """Append the tokens; the last states of all of them, row after row, `[tokens, hidden]`."""
        assert isinstance(cache, T5Cache)
        stack = self.weights.decoder
        places = [
            place
            for row, tokens in zip(batch.rows, batch.tokens, strict=True)
            for place in _places(cache.at(row), len(tokens), stack.bias)
        ]
        states = self.weights.embedding.rows([token for own in batch.tokens for token in own])
        for number, layer in enumerate(stack.layers):
            states = self._attend_to_self(places, number, states, layer.self_attention)
            states = self._attend_to_source(places, number, states, _cross(layer))
            states = self._feed_forward(states, layer.feed_forward)
        for row, tokens in zip(batch.rows, batch.tokens, strict=True):
            cache.at(row).length += len(tokens)
        return self._norm(states, stack.final_norm)

    def _attend_to_self(
        self, places: Sequence[_Place], layer: int, states: Tensor, weights: AttentionWeights
    ) -> Tensor:
        """Remember each new token, and let it attend to its row up to itself."""
        normed = self._norm(states, weights.norm)
        keys, values = (self._by_token(one, normed) for one in (weights.key, weights.value))
        queries = self._by_token(weights.query, normed)
        mixed: list[Tensor] = []
        for place, query, key, value in zip(places, queries, keys, values, strict=True):
            place.row.write(layer, place.position, key, value)
            held = place.row.read(layer, place.position + 1)
            mixed.append(attend_one(query, *held, place.bias))
        return states + weights.output.multiply(torch.cat(mixed))

    def _attend_to_source(
        self, places: Sequence[_Place], layer: int, states: Tensor, weights: AttentionWeights
    ) -> Tensor:
        """Let each new token attend to its row's source."""
        queries = self._by_token(weights.query, self._norm(states, weights.norm))
        mixed = [
            attend_one(query, *place.row.read_source(layer), None)
            for place, query in zip(places, queries, strict=True)
        ]
        return states + weights.output.multiply(torch.cat(mixed))

    # --- both ---------------------------------------------------------------------------------

    def _feed_forward(self, states: Tensor, weights: FeedForwardWeights) -> Tensor:
        normed = self._norm(states, weights.norm)
        inner = weights.up.multiply(normed)
        if weights.gate is None:
            inner = inner.relu()
        else:
            inner = gelu(weights.gate.multiply(normed)) * inner
        return states + weights.down.multiply(inner)

    def _norm(self, states: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(states, weight, self.config.norm_epsilon)

    def _by_token(self, matrix: T5Matrix, normed: Tensor) -> Float[Tensor, "tokens heads head"]:
        return matrix.multiply(normed).view(len(normed), self.config.num_heads, -1)


def _places(row: T5Row, num_tokens: int, bias: Tensor) -> list[_Place]:
    """Where a row's new tokens go."""
    row.reserve(num_tokens)
    return [
        _Place(row, position, bias_between(bias, range(position, position + 1), position + 1))
        for position in range(row.length, row.length + num_tokens)
    ]


def _cross(layer: LayerWeights) -> AttentionWeights:
    assert layer.cross_attention is not None
    return layer.cross_attention
