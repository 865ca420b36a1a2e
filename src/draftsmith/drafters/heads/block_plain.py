"""A block head in plain torch, differentiable: what is trained, and what the fast one equals.

    c_t = norm(fc(states_t)), the context;  x = embeddings of [anchor, mask, mask, ...]
    each layer: queries of x; keys and values of c, without a norm of the layer, and of x
    logits_k = head(norm(x_k)) + W2 W1[the token before]

Positions are absolute. A block sees the context before its anchor, and itself (DFlash,
arXiv:2602.06036). The last term is DSpark's; its other two forms are `gated`,
W2 (sigmoid(G [x; W1[token]]) * W1[token]), and `rnn`, a gated state s that runs along the block:
[g, n, o] = J [s; W1[token]; x], s <- sigmoid(g) s + (1 - sigmoid(g)) tanh(n), term W2 tanh(o).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.plain import rotated
from draftsmith.drafters.heads.weights import layer_name

__all__ = ["BlockRows", "PlainBlock"]


class BlockRows(NamedTuple):
    """Blocks over one context each: several of a text, or one."""

    embedded: Float[Tensor, "batch blocks rows width"]
    """Of anchors and masks."""
    anchors: Int[Tensor, "batch blocks"]
    """Their positions; a block sees the context's rows before them."""


class PlainBlock:
    """The arithmetic of a block head over some tensors.

    Args:
        config: Its conventions.
        tensors: By the names of `block_weights.block_shapes`; they may want gradients.
        shared_head: The target's output matrix as a product, where the head has none of its own.
    """

    def __init__(
        self,
        config: BlockConfig,
        tensors: Mapping[str, Tensor],
        shared_head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.config = config
        self.tensors = tensors
        self._shared_head = shared_head

    def context(
        self, states: Float[Tensor, "batch tokens boundaries hidden"]
    ) -> Float[Tensor, "batch tokens width"]:
        """What the layers see of the target's states."""
        return self._norm(linear(states.flatten(-2), self.tensors["fc"]), "context_norm")

    def run(
        self, blocks: BlockRows, context: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch blocks rows width"]:
        """All layers over some blocks, and the final norm.

        Args:
            blocks: What they read.
            context: What `context` gave, of tokens from position 0.
        """
        rows = torch.arange(blocks.embedded.shape[2], device=context.device)
        positions = (blocks.anchors.unsqueeze(-1) + rows).flatten(1)
        stream = blocks.embedded
        for number in range(self.config.num_layers):
            inputs = self._norm(stream, layer_name(number, "input_norm"))
            stream = stream + self._attended(number, inputs, blocks.anchors, positions, context)
            stream = stream + self._feed_forward(number, stream)
        return self._norm(stream, "norm")

    def logits(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocab"]:
        """Of the drafted ids, without the term of the token before."""
        if self.config.has_head:
            return linear(hidden, self.tensors["head"])
        assert self._shared_head is not None
        return self._shared_head(hidden.flatten(0, -2)).unflatten(0, hidden.shape[:-1])

    def corrections(
        self, hidden: Float[Tensor, "*batch rows width"], before: Int[Tensor, "*batch rows"]
    ) -> Float[Tensor, "*batch rows rank"] | None:
        """What the tokens before some rows say, to be multiplied by `markov.following`.

        Args:
            hidden: What `run` gave, of a block's rows that draft, from the first on.
            before: The target's id before the one that each row foretells.

        Returns:
            None of a head without that term.
        """
        if self.config.markov == "none":
            return None
        token = self.tensors["markov.previous"][before]
        if self.config.markov == "vanilla":
            return token
        if self.config.markov == "gated":
            inputs = torch.cat((hidden, token), dim=-1)
            return torch.sigmoid(self._affine("markov.gate", inputs)) * token
        state, found = torch.zeros_like(token[..., 0, :]), list[Tensor]()
        for row in range(token.shape[-2]):
            inputs = torch.cat((state, token[..., row, :], hidden[..., row, :]), dim=-1)
            gate, new, out = self._affine("markov.joint", inputs).chunk(3, dim=-1)
            gate = torch.sigmoid(gate)
            state = gate * state + (1 - gate) * torch.tanh(new)
            found.append(torch.tanh(out))
        return torch.stack(found, dim=-2)

    def corrected(
        self,
        logits: Float[Tensor, "*batch vocab"],
        corrections: Float[Tensor, "*batch rank"] | None,
    ) -> Float[Tensor, "*batch vocab"]:
        """Logits with that term."""
        if corrections is None:
            return logits
        return logits + linear(corrections, self.tensors["markov.following"])

    def confidence(
        self, hidden: Float[Tensor, "*batch width"], before: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """Log-odds that a row's token is kept, if the head has a word on it."""
        if self.config.confidence_reads_token:
            hidden = torch.cat((hidden, self.tensors["markov.previous"][before]), dim=-1)
        return self._affine("confidence", hidden).squeeze(-1)

    def _affine(self, name: str, inputs: Tensor) -> Tensor:
        return linear(inputs, self.tensors[name], self.tensors[f"{name}_bias"])

    def _attended(
        self, number: int, inputs: Tensor, anchors: Tensor, positions: Tensor, context: Tensor
    ) -> Tensor:
        blocks, rows = inputs.shape[1:3]
        query = self._heads(number, "query", inputs.flatten(1, 2))
        keys, values = self._keys_and_values(number, context, inputs)
        num_context = context.shape[1]
        here = torch.arange(num_context, device=context.device).expand(len(context), -1)
        rotary, all_positions = self.config.rotary, torch.cat((here, positions), dim=1)
        query = rotated(query, positions.unsqueeze(1), rotary)
        keys = rotated(keys, all_positions.unsqueeze(1), rotary)
        group = self.config.num_heads // self.config.num_kv_heads
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
        query = query * self.config.head_size**-0.5
        # [batch, heads, blocks, rows, context] and, inside each block, [..., rows, rows].
        far = (query @ keys[:, :, :num_context].transpose(2, 3)).unflatten(2, (blocks, rows))
        is_seen = here.unsqueeze(1) < anchors.unsqueeze(-1)
        far = far.masked_fill(~is_seen[:, None, :, None], -torch.inf)
        own_keys, own_values = (
            part[:, :, num_context:].unflatten(2, (blocks, rows)) for part in (keys, values)
        )
        near = query.unflatten(2, (blocks, rows)) @ own_keys.transpose(3, 4)
        if self.config.is_causal:
            later = torch.ones(rows, rows, dtype=torch.bool, device=near.device).triu(1)
            near = near.masked_fill(later, -torch.inf)
        weights = torch.cat((far, near), dim=-1).softmax(dim=-1)
        gathered = weights[..., :num_context].flatten(2, 3) @ values[:, :, :num_context]
        gathered = gathered.unflatten(2, (blocks, rows)) + weights[..., num_context:] @ own_values
        joined = gathered.permute(0, 2, 3, 1, 4).flatten(-2)
        return linear(joined, self.tensors[layer_name(number, "output")])

    def _keys_and_values(
        self, number: int, context: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of the context, and behind it of all blocks."""
        both = torch.cat((context, inputs.flatten(1, 2)), dim=1)
        keys = self._heads(number, "key", both)
        name = layer_name(number, "value")
        values = linear(both, self.tensors[name]).unflatten(-1, (-1, self.config.head_size))
        return keys, values.transpose(1, 2)

    def _heads(self, number: int, part: str, inputs: Tensor) -> Tensor:
        """Queries or keys, normed, `[batch, heads, rows, head]`."""
        found = linear(inputs, self.tensors[layer_name(number, part)])
        found = found.unflatten(-1, (-1, self.config.head_size)).transpose(1, 2)
        return self._norm(found, layer_name(number, f"{part}_norm"))

    def _feed_forward(self, number: int, stream: Tensor) -> Tensor:
        inputs = self._norm(stream, layer_name(number, "post_norm"))
        gate, up, down = (self.tensors[layer_name(number, k)] for k in ("gate", "up", "down"))
        return linear(silu(linear(inputs, gate)) * linear(inputs, up), down)

    def _norm(self, states: Tensor, name: str) -> Tensor:
        weight = self.tensors[name]
        # In the weight's precision, also where products are in bfloat16.
        return rms_norm(states.to(weight.dtype), weight.shape, weight, self.config.norm_epsilon)
