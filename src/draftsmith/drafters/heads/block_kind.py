"""A block head among the kinds: its drafter, its guesses at a text, its other readings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.block import BlockHead
from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_drafter import BlockDrafter
from draftsmith.drafters.heads.block_layouts import read_block
from draftsmith.drafters.heads.block_plain import BlockRows, PlainBlock
from draftsmith.drafters.heads.kind import Head, Reading, Written
from draftsmith.drafters.heads.product import format_of
from draftsmith.drafters.heads.tables import TargetTables, tables_of, theta_of
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import Dtype

__all__ = ["BlockKind", "read_block_kind"]


def read_block_kind(folder: Path, target: TargetTables | None) -> "BlockKind":
    """As `read_block` reads it."""
    return BlockKind(*read_block(folder, target))


@dataclass(frozen=True)
class BlockKind(Head):
    """A DFlash or DSpark head that was read."""

    drafts_on_gpus = True

    config: BlockConfig
    weights: HeadWeights

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Of the target."""
        return self.config.boundaries

    def described(self) -> dict[str, str]:
        """Its conventions."""
        return self.config.described()

    def made(
        self, target: LanguageModel, name: str = "block", dtype: Dtype = "auto", branches: int = 1
    ) -> BlockDrafter:
        """A drafter that runs one block a round."""
        tables, place = tables_of(target), target.device
        head = BlockHead(self.config, self.weights, tables, place, format_of(dtype))
        return BlockDrafter(head, name, branches)

    def guesses(
        self, text: Written, target: TargetTables, num_steps: int
    ) -> Int[Tensor, "steps rows"]:
        """A block behind every row, all at once."""
        config = self.config
        states = torch.stack([text.states[b] for b in config.boundaries], dim=1).unsqueeze(0)
        tensors = {name: one.to(states.device) for name, one in self.weights.tensors.items()}
        tokens = torch.tensor(text.tokens, device=states.device)
        head, rows = PlainBlock(config, tensors, target.logits), text.rows(num_steps)
        anchors = torch.arange(rows.start + 1, rows.stop + 1, device=states.device)
        read = torch.full((len(anchors), config.block_size), config.mask_id, device=states.device)
        read[:, 0] = tokens[anchors]
        ids = read.flatten().tolist()
        embedded = tensors["embedding"][ids] if config.has_embedding else target.embed(ids)
        embedded = embedded.view(1, *read.shape, -1)
        hidden = head.run(BlockRows(embedded, anchors.unsqueeze(0)), head.context(states))[0]
        first, count = 0 if config.drafts_from_anchor else 1, min(num_steps, config.longest)
        hidden = hidden[:, first : first + count]
        before = tokens[anchors.unsqueeze(1) + torch.arange(count, device=states.device)]
        logits = head.corrected(head.logits(hidden), head.corrections(hidden, before))
        found = logits.argmax(-1).T.cpu()
        return found if self.weights.ids is None else self.weights.ids[found]

    def readings(self, target: LanguageModel) -> Sequence[Reading]:
        """The other anchor, the neighbouring layers, other rope bases, the other mask."""
        config = self.config
        found: list[Reading] = []
        turned = not config.drafts_from_anchor
        if turned or (config.markov != "rnn" and config.block_size > 1):
            why = f"with sample_from_anchor {str(turned).lower()}"
            found.append(self._read_as(why, drafts_from_anchor=turned))
        for shift in (-1, 1):
            moved = tuple(b + shift for b in config.boundaries)
            if min(moved) >= 0 and max(moved) < target.num_boundaries:
                where = ", ".join(map(str, moved))
                found.append(self._read_as(f"with states behind layers {where}", boundaries=moved))
        found += [
            self._read_as(f"with rope_theta {theta:g}", rope_theta=theta)
            for theta in (10_000.0, theta_of(target))
            if abs(theta - config.rope_theta) > 1
        ]
        causal = not config.is_causal
        found.append(self._read_as(f"with causal {str(causal).lower()}", is_causal=causal))
        return found

    def _read_as(self, why: str, **changes: object) -> Reading:
        return Reading(BlockKind(replace(self.config, **changes), self.weights), why)
