"""Medusa heads as they draft: one state of the target, and every head's law behind it.

With n tokens committed the target has read tokens 0 to n-2. Behind the state of token n-2 the
target's own head foretold token n-1, which is committed; head k foretells token n+k. Nothing is
kept of a sequence but that state. `plain_medusa` is the twin.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from draftsmith.core.gamma import check_branches
from draftsmith.drafters.contract import DraftContext, DraftState, StatefulDrafter
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.heads.medusa_config import (
    MedusaConfig,
    bias_name,
    block_name,
    output_name,
)
from draftsmith.drafters.heads.one_pass import Asked, Places, drafted
from draftsmith.drafters.heads.product import PACKED, Place, Product
from draftsmith.drafters.heads.tables import TargetTables, check_target
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.kernels.cpu.pieces import has_kernels, rms_norm

__all__ = ["MedusaDrafter", "MedusaHeads", "MedusaState"]


class MedusaHeads:
    """Heads over their target's tables.

    Args:
        config: Their conventions.
        weights: Checked against them here.
        target: Whose final norm, and perhaps output matrix, they go by.
        device: Where they run.
        format: Of the packed matrices on a CPU; None keeps float32.

    Raises:
        DraftsmithError: They are not for this target; the message names what differs.
    """

    def __init__(
        self,
        config: MedusaConfig,
        weights: HeadWeights,
        target: TargetTables,
        device: torch.device,
        format: str | None = PACKED,
    ) -> None:
        check_target(target, config.hidden_size, config.target_vocab_size, ())
        config.check(weights)
        self.config, self.device = config, device
        self.boundary = target.num_layers
        tensors, heads, place = weights.tensors, range(config.num_heads), Place(device, format)

        def product(*names: str) -> Product:
            return place.product([tensors[name] for name in names])

        # All first blocks read the same state, so that they are one matrix.
        self._first = product(*(block_name(head, 0) for head in heads))
        self._later = [
            [product(block_name(head, block)) for block in range(1, config.num_blocks)]
            for head in heads
        ]
        self._biases: list[list[Tensor]] | None = None
        if config.has_bias:
            self._biases = [
                [place.vector(tensors[bias_name(head, one)]) for one in range(config.num_blocks)]
                for head in heads
            ]
        self._outputs = (
            [product(output_name(head)) for head in heads] if config.outputs == "each" else []
        )
        self._output = product(output_name(None)) if config.outputs == "one" else target.logits
        weight, self._epsilon = target.final_norm
        self._norm = place.vector(weight)
        self._ids = None if weights.ids is None else weights.ids.to(device)

    @torch.inference_mode()
    def streams(self, states: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows heads hidden"]:
        """What stands before the output of every head.

        Args:
            states: The target's residual stream behind its last layer.
        """
        given = states.to(self.device)
        if self.config.reads_normed:
            given = rms_norm(given, self._norm, self._epsilon)
        inner = self._first(given).unflatten(1, (self.config.num_heads, -1))
        if self._biases is not None:
            inner = inner + torch.stack([biases[0] for biases in self._biases])
        stream = given.unsqueeze(1) + silu(inner)
        if self.config.num_blocks == 1:
            return stream
        parts = [self._through(head, part) for head, part in enumerate(stream.unbind(1))]
        return torch.stack(parts, dim=1)

    @torch.inference_mode()
    def logits(
        self, head: int, streams: Float[Tensor, "rows hidden"]
    ) -> Float[Tensor, "rows target_vocab"]:
        """Of the target's ids, by one head.

        Args:
            head: Its number.
            streams: Its own, of some sequences; where all share an output matrix, of any heads.

        Returns:
            Ids that the heads do not draft have -inf.
        """
        found = (self._outputs[head] if self._outputs else self._output)(streams)
        if self._ids is None:
            return found
        size = len(streams), self.config.target_vocab_size
        return torch.full(size, -torch.inf, device=self.device).index_copy_(1, self._ids, found)

    @property
    def has_one_output(self) -> bool:
        """Whether the heads share an output matrix."""
        return not self._outputs

    def _through(self, head: int, stream: Tensor) -> Tensor:
        for number, block in enumerate(self._later[head], 1):
            inner = block(stream.contiguous())
            inner = inner if self._biases is None else inner + self._biases[head][number]
            stream = stream + silu(inner)
        return stream


class MedusaDrafter(StatefulDrafter):
    """Drafts with Medusa heads that were trained for the target.

    Args:
        heads: Loaded, over the target's tables.
        name: For messages and tables.
        branches: Guesses for each position at most: 1 drafts chains, more a tree of gamma tokens.

    Raises:
        InvalidRequestError: If `branches` is no number from 1 to 8.
    """

    def __init__(self, heads: MedusaHeads, name: str = "medusa", branches: int = 1) -> None:
        self.heads = heads
        self.name = name
        self.branches = check_branches(branches)
        self.longest = heads.config.num_heads
        self.boundaries = (heads.boundary,)
        self.uses_torch_threads = not has_kernels(heads.device)

    def open(self) -> "MedusaState":
        """A state without sequences."""
        return MedusaState(self.heads, self.branches)

    def with_branches(self, branches: int) -> "MedusaDrafter":
        """The same over the same heads, with so many guesses for each position at most."""
        return MedusaDrafter(self.heads, self.name, branches)


class MedusaState(DraftState):
    """Of each of one engine's sequences, the last state that the target has handed out."""

    def __init__(self, heads: MedusaHeads, branches: int = 1) -> None:
        self._heads, self._branches = heads, branches
        self._last: dict[int, tuple[int, Float[Tensor, " hidden"]]] = {}
        """How many tokens' states were handed out, and the last."""

    def propose(self, context: DraftContext) -> Draft:
        """Draft from the heads' laws, each drawn from when its token is wanted."""
        views, count = context.sequences, self._heads.config.num_heads
        wanted = [i for i, view in enumerate(views) if view.gamma > 0 and self._read(context, i)]
        places: dict[int, Places] = {}
        for row in wanted:
            num_read, _ = self._last[views[row].id]
            # What a grammar has forced since, the target has not read: the first heads' tokens.
            ahead = len(views[row].tokens) - 1 - num_read
            places[row] = Places(ahead, count - ahead)
        laws = _Laws(self._heads, {row: self._last[views[row].id][1] for row in wanted})
        return drafted(context, places, laws, self._branches)

    def release(self, sequence: int) -> None:
        """Forget a sequence."""
        self._last.pop(sequence, None)

    def _read(self, context: DraftContext, row: int) -> bool:
        """Take what the target has read since; whether it has read anything."""
        key, states = context.sequences[row].id, context.states(row)
        if len(states):
            before = self._last[key][0] if key in self._last else 0
            self._last[key] = before + len(states), states[-1, 0].clone()
        return key in self._last


class _Laws:
    """Logits of some places, head by head; of all at once where the heads share their output."""

    def __init__(self, heads: MedusaHeads, states: dict[int, Float[Tensor, " hidden"]]) -> None:
        self._heads = heads
        self._lines = {row: line for line, row in enumerate(states)}
        self._streams = heads.streams(torch.stack(list(states.values()))) if states else None

    def __call__(self, asked: Sequence[Asked]) -> Float[Tensor, "asked vocab"]:
        assert self._streams is not None
        lines = [self._lines[row] for row, _ in asked]
        streams = self._streams[lines, [place for _, place in asked]]
        if self._heads.has_one_output:
            return self._heads.logits(0, streams)
        found: list[Tensor] = [streams] * len(asked)
        of: defaultdict[int, list[int]] = defaultdict(list)
        for number, (_, place) in enumerate(asked):
            of[place].append(number)
        for head, numbers in of.items():
            lines_of_head = self._heads.logits(head, streams[numbers])
            for number, line in zip(numbers, lines_of_head, strict=True):
                found[number] = line
        return torch.stack(found)
