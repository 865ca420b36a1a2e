"""A P-EAGLE head among the kinds: its drafter, its guesses at a text, its other readings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.heads.eagle3_kind import Eagle3
from draftsmith.drafters.heads.kind import Head, Reading, Written
from draftsmith.drafters.heads.parallel import ParallelDrafter
from draftsmith.drafters.heads.parallel_layout import Mask, read_parallel
from draftsmith.drafters.heads.parallel_plain import depths
from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.product import format_of
from draftsmith.drafters.heads.tables import TargetTables, tables_of
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import Dtype

__all__ = ["ParallelEagle", "read_parallel_kind"]


def read_parallel_kind(folder: Path, target: TargetTables | None) -> "ParallelEagle":
    """As `read_parallel` reads it."""
    return ParallelEagle(*read_parallel(folder, target))


@dataclass(frozen=True)
class ParallelEagle(Head):
    """A P-EAGLE head that was read."""

    config: HeadConfig
    weights: HeadWeights
    mask: Mask

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Of the target."""
        return self.config.boundaries

    def described(self) -> dict[str, str]:
        """Its conventions."""
        told = {"kind": "P-EAGLE", **self.config.described()}
        told["fed back"] = "nothing: one pass drafts all tokens"
        return told | {"mask": f"id {self.mask.token} ({self.mask.key}), and its own mask_hidden"}

    def made(
        self, target: LanguageModel, name: str = "p-eagle", dtype: Dtype = "auto", branches: int = 1
    ) -> ParallelDrafter:
        """A drafter that takes one pass a draft."""
        tables, place = tables_of(target), target.device
        head = EagleHead(self.config, self.weights, tables, place, format_of(dtype))
        return ParallelDrafter(head, self.mask, name, branches)

    def guesses(
        self, text: Written, target: TargetTables, num_steps: int
    ) -> Int[Tensor, "steps rows"]:
        """Depth by depth from every row at once."""
        config, rows = self.config, text.rows(num_steps)
        head = PlainHead(config, self.weights.tensors, target.logits)
        states = torch.stack([text.states[b] for b in config.boundaries], dim=1)
        read = [*text.tokens[1:], self.mask.token]
        own = self.weights.tensors.get("embedding")
        embedded = target.embed(read) if own is None else own[read]
        streams = depths(head, states, embedded[:-1], self.mask.states, embedded[-1], num_steps)
        found = torch.stack(
            [head.logits(one[rows.start : rows.stop]).argmax(-1) for one in streams]
        )
        return found if self.weights.ids is None else self.weights.ids[found]

    def readings(self, target: LanguageModel) -> Sequence[Reading]:
        """Those of an EAGLE-3 head, but for what is fed back."""
        return [
            other._replace(head=replace(self, config=other.head.config))
            for other in Eagle3(self.config, self.weights).readings(target)
            if other.place == 0 and isinstance(other.head, Eagle3)
        ]
