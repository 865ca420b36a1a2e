"""An EAGLE-3 head in plain torch, differentiable: what is trained, and what the fast one equals.

    g_t = fc(states_t);  x = [norm(embedding of token t+1), norm(g_t)], at position t
    y_t = layers(x) around the residual g_t;  logits of token t+2 = head(norm(y_t))

Drafting goes on with y in the place of g (Li et al., arXiv:2503.01840).
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.weights import layer_name
from draftsmith.models.native.rotary import RotaryConfig

__all__ = ["Attend", "PlainHead", "causal", "rotated"]

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""From a layer's number and its new queries, keys and values `[batch, heads, rows, head]` to what
each query has gathered, of the queries' shape."""


class PlainHead:
    """The arithmetic of a head over some tensors.

    Args:
        config: Its conventions.
        tensors: By the names of `weights.shapes`; they may want gradients.
        shared_head: The target's output matrix as a product, where the head has none of its own.
    """

    def __init__(
        self,
        config: HeadConfig,
        tensors: Mapping[str, Tensor],
        shared_head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.config = config
        self.tensors = tensors
        self._shared_head = shared_head

    def feature(
        self, states: Float[Tensor, "*batch boundaries hidden"]
    ) -> Float[Tensor, "*batch width"]:
        """What `fc` makes of the target's states."""
        if self.config.feature_norm == "each":
            parts = [
                self._norm(part, f"fc_norm.{i}") for i, part in enumerate(states.unbind(dim=-2))
            ]
            states = torch.stack(parts, dim=-2)
        joined = states.flatten(-2)
        if self.config.feature_norm == "joint":
            joined = self._norm(joined, "input_norm")
        return linear(joined, self.tensors["fc"])

    def run(
        self,
        embedded: Float[Tensor, "batch rows width"],
        feature: Float[Tensor, "batch rows width"],
        positions: Int[Tensor, " rows"],
        attend: Attend,
    ) -> Float[Tensor, "batch rows width"]:
        """All layers over some rows, before the final norm.

        Args:
            embedded: Of each row the embedding of the token behind its feature's.
            feature: What `feature` gave, or `fed_back` after an earlier step.
            positions: For the rotary embeddings.
            attend: What a row sees.
        """
        hidden = self._norm(feature, layer_name(0, "hidden_norm"))
        first = torch.cat((self._norm(embedded, layer_name(0, "input_norm")), hidden), dim=-1)
        stream = hidden if self.config.norm_before_residual else feature
        for number in range(self.config.num_layers):
            inputs = first if number == 0 else self._norm(stream, layer_name(number, "input_norm"))
            stream = stream + self._attended(number, inputs, positions, attend)
            stream = stream + self._feed_forward(number, stream)
        return stream

    def logits(self, stream: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocab"]:
        """Of the drafted ids, after what `run` gave."""
        normed = self._norm(stream, "norm")
        if self.config.has_head:
            return linear(normed, self.tensors["head"])
        assert self._shared_head is not None
        return self._shared_head(normed.flatten(0, -2)).unflatten(0, normed.shape[:-1])

    def fed_back(self, stream: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The next step's feature."""
        return self._norm(stream, "norm") if self.config.feeds_back_normed else stream

    def _attended(self, number: int, inputs: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        config = self.config
        query, key, value = (
            linear(inputs, self.tensors[layer_name(number, part)])
            .unflatten(-1, (-1, config.head_size))
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        if config.normalises_heads:
            query = self._norm(query, layer_name(number, "query_norm"))
            key = self._norm(key, layer_name(number, "key_norm"))
        query, key = (rotated(states, positions, config.rotary) for states in (query, key))
        gathered = attend(number, query, key, value).transpose(1, 2).flatten(-2)
        return linear(gathered, self.tensors[layer_name(number, "output")])

    def _feed_forward(self, number: int, stream: Tensor) -> Tensor:
        inputs = self._norm(stream, layer_name(number, "post_norm"))
        gate, up, down = (self.tensors[layer_name(number, k)] for k in ("gate", "up", "down"))
        return linear(silu(linear(inputs, gate)) * linear(inputs, up), down)

    def _norm(self, states: Tensor, name: str) -> Tensor:
        weight = self.tensors[name]
        # In the weight's precision, also where products are in bfloat16.
        return rms_norm(states.to(weight.dtype), weight.shape, weight, self.config.norm_epsilon)


def causal(number: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every row sees those before it, and itself."""
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def rotated(
    states: Float[Tensor, "*batch rows head"],
    positions: Int[Tensor, "... rows"],
    rotary: RotaryConfig,
) -> Float[Tensor, "*batch rows head"]:
    """Turn element i of each head with element i + half, by its row's position.

    Args:
        states: Queries or keys.
        positions: Of the rows, for all of the batch or along some of its dimensions.
        rotary: The frequencies.

    Returns:
        The turned states.
    """
    frequencies = rotary.inverse_frequencies.to(positions.device, non_blocking=True)
    angles = positions.unsqueeze(-1) * frequencies
    cosine, sine = angles.cos() * rotary.scale, angles.sin() * rotary.scale
    first, second = states.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
