"""A block head as it drafts: a cache of the context for each sequence, one pass a block.

`PlainBlock` is its twin. Rows of all sequences lie one after another, so that each matrix is read
once a block; only attention goes sequence by sequence.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_markov import Markov
from draftsmith.drafters.heads.block_weights import check_block
from draftsmith.drafters.heads.product import PACKED, Place
from draftsmith.drafters.heads.tables import TargetTables, check_target
from draftsmith.drafters.heads.waves import Waves
from draftsmith.drafters.heads.weights import HeadWeights, layer_name
from draftsmith.kernels.cpu.pieces import (
    KeyValues,
    has_kernels,
    plain_attention,
    rms_norm,
    rotate,
    swiglu,
)

__all__ = ["Block", "BlockHead", "ContextRow"]


class ContextRow:
    """Keys and values of one sequence's context, in slots; a block's lie behind it for one pass."""

    def __init__(self, config: BlockConfig, device: torch.device) -> None:
        shape = config.num_layers, config.num_kv_heads, config.head_size
        self._packed = KeyValues(*shape) if has_kernels(device) else None
        nothing = torch.empty(0, *shape[1:], device=device)
        self._held = [(nothing, nothing)] * config.num_layers
        """Without the kernels: of each layer the keys and values, slots first."""
        self.length = 0
        """Tokens that are held."""

    def begin(self, count: int) -> None:
        """Make room for so many rows behind the context."""
        if self._packed is not None:
            self._packed.length = self.length
            self._packed.reserve(count)

    def store(
        self,
        layer: int,
        keys: Float[Tensor, "rows kv_heads head"],
        values: Float[Tensor, "rows kv_heads head"],
    ) -> None:
        """Put a layer's rows behind the context; they are of it when `length` is moved."""
        if self._packed is not None:
            self._packed.store(layer, keys, values)
        else:
            self._held[layer] = self._joined(layer, keys, values)

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "rows heads head"],
        keys: Float[Tensor, "rows kv_heads head"],
        values: Float[Tensor, "rows kv_heads head"],
        *,
        is_causal: bool,
    ) -> Float[Tensor, "rows width"]:
        """What a block's rows gather of the context and of each other."""
        if self._packed is not None:
            return self._packed.attend(layer, query, keys, values, is_causal=is_causal)
        joined = self._joined(layer, keys, values)
        return plain_attention(query, *joined, is_causal=is_causal)

    def _joined(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        old_keys, old_values = self._held[layer]
        return (
            torch.cat((old_keys[: self.length], keys)),
            torch.cat((old_values[: self.length], values)),
        )


class Block:
    """One sequence's block.

    Args:
        row: The context that it stands behind.
        tokens: The anchor, tokens behind it that are known, and masks.
        position: Of the anchor.
    """

    __slots__ = ("position", "row", "tokens")

    def __init__(self, row: ContextRow, tokens: Sequence[int], position: int) -> None:
        self.row, self.tokens, self.position = row, tokens, position


class _Layer:
    """One layer's matrices, those of equal inputs joined."""

    def __init__(self, weights: HeadWeights, number: int, place: Place) -> None:
        def named(part: str) -> Tensor:
            return weights.tensors[layer_name(number, part)]

        self.query = place.product([named("query")])
        # Apart from the queries: the context has none.
        self.keys_and_values = place.product([named("key"), named("value")])
        self.output = place.product([named("output")])
        self.gate_and_up = place.product([named("gate"), named("up")])
        self.down = place.product([named("down")])
        self.input_norm, self.post_norm, self.query_norm, self.key_norm = (
            place.vector(named(part))
            for part in ("input_norm", "post_norm", "query_norm", "key_norm")
        )


class BlockHead:
    """A head over its target's tables.

    Args:
        config: Its conventions.
        weights: Checked against them here.
        target: Whose embedding and output matrix it reads, unless it has its own.
        device: Where it runs.
        format: Of the packed matrices on a CPU; None keeps float32.

    Raises:
        DraftsmithError: It is not a head for this target; the message names what differs.
    """

    def __init__(
        self,
        config: BlockConfig,
        weights: HeadWeights,
        target: TargetTables,
        device: torch.device,
        format: str | None = PACKED,
    ) -> None:
        check_target(target, config.target_hidden_size, config.target_vocab_size, config.boundaries)
        check_block(config, weights)
        self.config, self.device = config, device
        place, tensors = Place(device, format), weights.tensors
        self._fc = place.product([tensors["fc"]])
        self._context_norm = place.vector(tensors["context_norm"])
        self._layers = [_Layer(weights, number, place) for number in range(config.num_layers)]
        self._norm = place.vector(tensors["norm"])
        self._head = place.product([tensors["head"]]) if config.has_head else target.logits
        self._ids = None if weights.ids is None else weights.ids.to(device)
        self._embedding = tensors["embedding"].to(device) if config.has_embedding else None
        self._embed = target.embed
        self.markov = None if config.markov == "none" else Markov(config, weights, place)
        self._sure = (
            (place.vector(tensors["confidence"][0]), place.vector(tensors["confidence_bias"]))
            if config.has_confidence
            else None
        )
        self._waves = Waves(config.rotary, device)

    def open_row(self) -> ContextRow:
        """An empty context for one sequence."""
        return ContextRow(self.config, self.device)

    def read(self, row: ContextRow, states: Float[Tensor, "tokens boundaries hidden"]) -> None:
        """Append tokens to a sequence's context.

        Args:
            row: The sequence's.
            states: The target's, of the tokens behind those that are held.
        """
        if not len(states):
            return
        config = self.config
        inputs = self._rms(self._fc(states.to(self.device).flatten(1)), self._context_norm)
        waves = self._waves.of([(row.length, len(states))])
        row.begin(len(states))
        for number, layer in enumerate(self._layers):
            both = layer.keys_and_values(inputs).unflatten(1, (-1, config.head_size))
            keys = self._rms(both[:, : config.num_kv_heads], layer.key_norm)
            row.store(number, rotate(keys, *waves), both[:, config.num_kv_heads :])
        row.length += len(states)

    def run(self, blocks: Sequence[Block]) -> Float[Tensor, "rows width"]:
        """One block of some sequences, each sequence once.

        Args:
            blocks: Anchors and masks.

        Returns:
            Of all their rows, one after another, what stands behind the final norm.
        """
        stream = self._embedded([token for block in blocks for token in block.tokens])
        waves = self._waves.of([(block.position, len(block.tokens)) for block in blocks])
        for block in blocks:
            block.row.begin(len(block.tokens))
        for number, layer in enumerate(self._layers):
            inputs = self._rms(stream, layer.input_norm)
            stream = stream + self._attended(number, layer, inputs, blocks, waves)
            both = layer.gate_and_up(self._rms(stream, layer.post_norm))
            stream = stream + layer.down(swiglu(both))
        return self._rms(stream, self._norm)

    def logits(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocab"]:
        """Of the drafted ids, without what the token before adds."""
        return self._head(hidden)

    def spread(self, logits: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows target_vocab"]:
        """Logits of the target's ids: those that the head does not draft have -inf."""
        if self._ids is None:
            return logits
        size = len(logits), self.config.target_vocab_size
        whole = torch.full(size, -torch.inf, device=self.device)
        return whole.index_copy_(1, self._ids, logits)

    def confidences(
        self, hidden: Float[Tensor, "rows width"], tokens: Sequence[int]
    ) -> list[float] | None:
        """How sure it is of the tokens that some rows foretell, before they are drawn.

        Args:
            hidden: Of those rows.
            tokens: The target's id before each.

        Returns:
            From 0 to 1; None of a head that does not say.
        """
        if self._sure is None:
            return None
        weight, bias = self._sure
        if self.config.confidence_reads_token:
            assert self.markov is not None
            hidden = torch.cat((hidden, self.markov.rows(tokens)), dim=1)
        return torch.sigmoid(hidden @ weight + bias).tolist()

    def _attended(
        self,
        number: int,
        layer: _Layer,
        inputs: Tensor,
        blocks: Sequence[Block],
        waves: tuple[Tensor, Tensor],
    ) -> Tensor:
        config, kv_heads = self.config, self.config.num_kv_heads
        query = layer.query(inputs).unflatten(1, (-1, config.head_size))
        both = layer.keys_and_values(inputs).unflatten(1, (-1, config.head_size))
        query = rotate(self._rms(query, layer.query_norm), *waves)
        keys = rotate(self._rms(both[:, :kv_heads], layer.key_norm), *waves)
        values = both[:, kv_heads:]
        gathered: list[Tensor] = []
        first = 0
        for block in blocks:
            part = slice(first, first := first + len(block.tokens))
            mine = query[part], keys[part], values[part]
            gathered.append(block.row.attend(number, *mine, is_causal=config.is_causal))
        return layer.output(gathered[0] if len(gathered) == 1 else torch.cat(gathered))

    def _embedded(self, tokens: Sequence[int]) -> Float[Tensor, "rows width"]:
        if self._embedding is not None:
            return self._embedding[torch.tensor(tokens, device=self.device)].float()
        return self._embed(tokens).to(self.device)

    def _rms(self, states: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(states, weight, self.config.norm_epsilon)
