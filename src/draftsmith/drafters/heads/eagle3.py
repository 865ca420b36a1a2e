"""An EAGLE-3 head as it drafts: few calls a step, a cache a sequence, ragged batches.

`PlainHead` is its twin. Rows of all sequences lie one after another, so that each matrix is read
once a step; only attention goes sequence by sequence.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.product import PACKED, Place
from draftsmith.drafters.heads.steps import Span
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

__all__ = ["BranchRow", "EagleHead", "HeadRow"]

_MOST_ROWS = 256
"""Rows of a prompt that are read at once."""


class HeadRow:
    """Keys and values of one sequence, in slots; the next step writes over what was dropped."""

    def __init__(self, config: HeadConfig, device: torch.device) -> None:
        shape = config.num_layers, config.num_kv_heads, config.head_size
        self._packed = KeyValues(*shape) if has_kernels(device) else None
        self._held: list[tuple[Tensor, Tensor]] = []
        """Without the kernels: of each layer the keys and values, slots first."""
        if self._packed is None:
            nothing = torch.empty(0, *shape[1:], device=device)
            self._held = [(nothing, nothing)] * config.num_layers
        self.length = 0

    def has_room(self, num_tokens: int) -> bool:
        """It grows as it is written to."""
        del num_tokens
        return True

    def begin(self, count: int) -> None:
        """Make room for a step of so many rows."""
        if self._packed is not None:
            self._packed.length = self.length
            self._packed.reserve(count)

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "rows heads head"],
        keys: Float[Tensor, "rows kv_heads head"],
        values: Float[Tensor, "rows kv_heads head"],
    ) -> Float[Tensor, "rows width"]:
        """Put a layer's new rows behind those that are held; what each gathers up to itself."""
        if self._packed is not None:
            return self._packed.attend(layer, query, keys, values)
        held = self._held[layer]
        keys, values = (
            torch.cat((old[: self.length], new))
            for old, new in zip(held, (keys, values), strict=True)
        )
        self._held[layer] = keys, values
        return plain_attention(query, keys, values)


class BranchRow:
    """One drafted row of a tree: it sees what a sequence's row holds, and its own path behind that.

    The path's keys and values are kept here, and put behind the sequence's for each look.

    Args:
        trunk: The sequence's row.
        above: The branch that it follows; None follows the trunk.
    """

    def __init__(self, trunk: HeadRow, above: "BranchRow | None") -> None:
        self._trunk = trunk
        self._path: list[BranchRow] = [] if above is None else [*above._path, above]
        self._held: list[tuple[Tensor, Tensor]] = []
        """Of each layer the key and the value, `[1, kv_heads, head]`."""
        self.length = 0

    def has_room(self, num_tokens: int) -> bool:
        """As the sequence's row has."""
        return self._trunk.has_room(num_tokens)

    def begin(self, count: int) -> None:
        """Make room for its only row, behind its path."""
        assert count == 1
        self._trunk.begin(len(self._path) + 1)

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "1 heads head"],
        keys: Float[Tensor, "1 kv_heads head"],
        values: Float[Tensor, "1 kv_heads head"],
    ) -> Float[Tensor, "1 width"]:
        """What the row gathers, as the last of its path."""
        self._held.append((keys, values))
        path = [*self._path, self]
        keys, values = (torch.cat([one._held[layer][part] for one in path]) for part in (0, 1))
        # Only the last row's is asked for; the others are there for their keys and values.
        queries = query.expand(len(path), -1, -1).contiguous()
        return self._trunk.attend(layer, queries, keys, values)[-1:]


class _Layer:
    """One layer's matrices, those of equal inputs joined."""

    def __init__(self, config: HeadConfig, weights: HeadWeights, number: int, place: Place) -> None:
        def named(part: str) -> Tensor:
            return weights.tensors[layer_name(number, part)]

        self.inputs = place.product([named(part) for part in ("query", "key", "value")])
        self.output = place.product([named("output")])
        self.gate_and_up = place.product([named("gate"), named("up")])
        self.down = place.product([named("down")])
        self.input_norm, self.post_norm = (
            place.vector(named("input_norm")),
            place.vector(named("post_norm")),
        )
        self.hidden_norm = place.vector(named("hidden_norm")) if number == 0 else None
        self.head_norms: tuple[Tensor, Tensor] | None = None
        if config.normalises_heads:
            self.head_norms = place.vector(named("query_norm")), place.vector(named("key_norm"))


class EagleHead:
    """A head over its target's tables.

    Args:
        config: Its conventions.
        weights: Checked against them here.
        target: Whose embedding, and perhaps output matrix, it reads.
        device: Where it runs.
        format: Of the packed matrices on a CPU; None keeps float32.

    Raises:
        DraftsmithError: It is not a head for this target; the message names what differs.
    """

    def __init__(
        self,
        config: HeadConfig,
        weights: HeadWeights,
        target: TargetTables,
        device: torch.device,
        format: str | None = PACKED,
    ) -> None:
        sizes = config.target_hidden_size, config.target_vocab_size
        check_target(target, *sizes, config.boundaries)
        weights.check(config)
        self.config, self.device = config, device
        self.uses_torch_threads = not has_kernels(device)
        place, tensors = Place(device, format), weights.tensors
        self._fc = place.product([tensors["fc"]])
        self._layers = [_Layer(config, weights, i, place) for i in range(config.num_layers)]
        self._norm = place.vector(tensors["norm"])
        self._head = place.product([tensors["head"]]) if config.has_head else target.logits
        self._feature_norms = [
            place.vector(tensors[name])
            for name in ("input_norm", *(f"fc_norm.{i}" for i in range(len(config.boundaries))))
            if name in tensors
        ]
        self._embedding = tensors["embedding"].to(device) if config.has_embedding else None
        self._embed = target.embed
        self._ids = None if weights.ids is None else weights.ids.to(device)
        self._waves = Waves(config.rotary, device)

    def most_rows(self, num_tokens: int) -> int:
        """However long a sequence is, so many rows of it are read at once."""
        del num_tokens
        return _MOST_ROWS

    def open_row(self) -> HeadRow:
        """An empty cache for one sequence."""
        return HeadRow(self.config, self.device)

    @torch.inference_mode()
    def feature(
        self, states: Float[Tensor, "rows boundaries hidden"]
    ) -> Float[Tensor, "rows width"]:
        """What `fc` makes of the target's states."""
        states = states.to(self.device)
        kind, norms = self.config.feature_norm, self._feature_norms
        if kind == "each":
            pairs = zip(states.unbind(1), norms, strict=True)
            states = torch.stack([self._rms(part, weight) for part, weight in pairs], dim=1)
        joined = states.flatten(1)
        return self._fc(self._rms(joined, norms[0]) if kind == "joint" else joined)

    @torch.inference_mode()
    def run(
        self, spans: Sequence[Span], feature: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """Append rows to their sequences; what stands before the final norm.

        Args:
            spans: Of each sequence once, or of branches.
            feature: Of all their rows, one after another.
        """
        config, layer = self.config, self._layers[0]
        assert layer.hidden_norm is not None
        embedded = self._embedded([token for span in spans for token in span.tokens])
        waves = self._waves.of([(span.position, len(span.tokens)) for span in spans])
        for span in spans:
            _held(span).begin(len(span.tokens))
        hidden = self._rms(feature, layer.hidden_norm)
        inputs = torch.cat((self._rms(embedded, layer.input_norm), hidden), dim=1)
        stream = hidden if config.norm_before_residual else feature
        for number, layer in enumerate(self._layers):
            if number:
                inputs = self._rms(stream, layer.input_norm)
            stream = stream + self._attended(number, layer, inputs, spans, waves)
            both = layer.gate_and_up(self._rms(stream, layer.post_norm))
            stream = stream + layer.down(swiglu(both))
        for span in spans:
            span.row.length += len(span.tokens)
        return stream

    @torch.inference_mode()
    def finish(
        self, stream: Float[Tensor, "rows width"]
    ) -> tuple[Float[Tensor, "rows target_vocab"], Float[Tensor, "rows width"]]:
        """Logits of the target's ids behind some rows, and the next step's features.

        Args:
            stream: What `run` gave for them.

        Returns:
            Ids that the head does not draft have -inf.
        """
        normed = self._rms(stream, self._norm)
        logits = self._head(normed)
        if self._ids is not None:
            size = len(stream), self.config.target_vocab_size
            whole = torch.full(size, -torch.inf, device=self.device)
            logits = whole.index_copy_(1, self._ids, logits)
        return logits, normed if self.config.feeds_back_normed else stream

    def _attended(
        self,
        number: int,
        layer: _Layer,
        inputs: Tensor,
        spans: Sequence[Span],
        waves: tuple[Tensor, Tensor],
    ) -> Tensor:
        config = self.config
        heads, kv_heads = config.num_heads, config.num_kv_heads
        states = layer.inputs(inputs).unflatten(1, (-1, config.head_size))
        turned, values = states[:, : heads + kv_heads], states[:, heads + kv_heads :]
        if layer.head_norms is not None:
            of_query, of_key = layer.head_norms
            parts = self._rms(turned[:, :heads], of_query), self._rms(turned[:, heads:], of_key)
            turned = torch.cat(parts, dim=1)
        turned = rotate(turned, *waves)
        gathered: list[Tensor] = []
        first = 0
        for span in spans:
            part = slice(first, first := first + len(span.tokens))
            gathered.append(
                _held(span).attend(number, turned[part, :heads], turned[part, heads:], values[part])
            )
        return layer.output(gathered[0] if len(gathered) == 1 else torch.cat(gathered))

    def _embedded(self, tokens: Sequence[int]) -> Float[Tensor, "rows width"]:
        if self._embedding is not None:
            return self._embedding[torch.tensor(tokens, device=self.device)].float()
        return self._embed(tokens).to(self.device)

    def _rms(self, states: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(states, weight, self.config.norm_epsilon)


def _held(span: Span) -> HeadRow | BranchRow:
    assert isinstance(span.row, HeadRow | BranchRow)
    return span.row
