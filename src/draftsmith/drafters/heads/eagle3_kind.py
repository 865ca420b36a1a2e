"""An EAGLE-3 head among the kinds: its drafter, its guesses at a text, its other readings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.drafter import HeadDrafter
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.heads.kind import Head, Reading, Written
from draftsmith.drafters.heads.layouts import read_eagle3
from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.product import format_of
from draftsmith.drafters.heads.tables import TargetTables, tables_of, theta_of
from draftsmith.drafters.heads.unroll import unrolled
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import Dtype

__all__ = ["Eagle3", "claims_eagle3", "read_eagle3_kind"]

_KINDS = ("Eagle", "DFlash", "DSpark", "Domino", "Speculator", "DraftModel")
"""What is in the architecture's name of a head of any kind."""


def claims_eagle3(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of a head, of whatever kind: one of another is refused here.

    Example:
        >>> claims_eagle3({"architectures": ["LlamaForCausalLMEagle3"]})
        True
    """
    names = config.get("architectures")
    is_marked = "speculators_model_type" in config or "draft_vocab_size" in config
    told = [str(name) for name in names] if isinstance(names, list) else []
    return is_marked or any(kind in name for name in told for kind in _KINDS)


def read_eagle3_kind(folder: Path, target: TargetTables | None) -> "Eagle3":
    """As `read_eagle3` reads it."""
    return Eagle3(*read_eagle3(folder, target))


@dataclass(frozen=True)
class Eagle3(Head):
    """An EAGLE-3 head that was read."""

    drafts_on_gpus = True
    config: HeadConfig
    weights: HeadWeights

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Of the target."""
        return self.config.boundaries

    def described(self) -> dict[str, str]:
        """Its conventions."""
        return self.config.described()

    def made(
        self, target: LanguageModel, name: str = "eagle3", dtype: Dtype = "auto", branches: int = 1
    ) -> HeadDrafter:
        """A drafter that goes on from its own states."""
        if target.can_be_captured:
            # Here, because it imports Triton, which not every installation has.
            from draftsmith.drafters.heads.gpu_head import GpuHead
            from draftsmith.models.native.gpu import GpuDecoder

            assert isinstance(target, GpuDecoder)
            return HeadDrafter(GpuHead(self.config, self.weights, target), name, branches)
        tables, place = tables_of(target), target.device
        head = EagleHead(self.config, self.weights, tables, place, format_of(dtype))
        return HeadDrafter(head, name, branches)

    def guesses(
        self, text: Written, target: TargetTables, num_steps: int
    ) -> Int[Tensor, "steps rows"]:
        """Step by step from every row at once."""
        config = self.config
        states = torch.stack([text.states[b] for b in config.boundaries], dim=1).unsqueeze(0)
        tensors = {name: one.to(states.device) for name, one in self.weights.tensors.items()}
        head = PlainHead(config, tensors, target.logits)
        read, rows = list(text.tokens[1:]), text.rows(num_steps)
        embedded = tensors["embedding"][read] if config.has_embedding else target.embed(read)
        steps = unrolled(head, states, embedded.unsqueeze(0), num_steps)
        found = torch.stack(
            [head.logits(one[0, rows.start : rows.stop]).argmax(-1) for one in steps]
        ).cpu()
        return found if self.weights.ids is None else self.weights.ids[found]

    def readings(self, target: LanguageModel) -> Sequence[Reading]:
        """The neighbouring layers, the other residual, other rope bases, the other feedback."""
        config = self.config
        found: list[Reading] = []
        for shift in (-1, 1):
            moved = tuple(b + shift for b in config.boundaries)
            if min(moved) >= 0 and max(moved) < target.num_boundaries:
                where = ", ".join(map(str, moved))
                found.append(self._read_as(f"with states behind layers {where}", boundaries=moved))
        turned = not config.norm_before_residual
        why = f"with norm_before_residual {str(turned).lower()}"
        found.append(self._read_as(why, norm_before_residual=turned))
        found += [
            self._read_as(f"with rope_theta {theta:g}", rope_theta=theta)
            for theta in (10_000.0, theta_of(target))
            if abs(theta - config.rope_theta) > 1
        ]
        fed = not config.feeds_back_normed
        other = self._read_as(f"with norm_output {str(fed).lower()}", feeds_back_normed=fed)
        # Only what goes on from the head's own state differs.
        return [*found, other._replace(place=2)]

    def _read_as(self, why: str, **changes: object) -> Reading:
        return Reading(Eagle3(replace(self.config, **changes), self.weights), why)
