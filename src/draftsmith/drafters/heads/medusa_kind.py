"""Medusa heads among the kinds: their drafter, their guesses at a text, their other readings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from draftsmith.drafters.heads.kind import Head, Reading, Written
from draftsmith.drafters.heads.medusa import MedusaDrafter, MedusaHeads
from draftsmith.drafters.heads.medusa_config import MedusaConfig
from draftsmith.drafters.heads.medusa_layout import read_medusa
from draftsmith.drafters.heads.medusa_plain import plain_medusa
from draftsmith.drafters.heads.product import format_of
from draftsmith.drafters.heads.tables import TargetTables, tables_of
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import Dtype

__all__ = ["Medusa", "read_medusa_kind"]


def read_medusa_kind(folder: Path, target: TargetTables | None) -> "Medusa":
    """As `read_medusa` reads it."""
    return Medusa(*read_medusa(folder, target))


@dataclass(frozen=True)
class Medusa(Head):
    """Medusa heads that were read."""

    config: MedusaConfig
    weights: HeadWeights
    lead: int = 0
    """Heads that guess what is committed already; of published ones none does."""

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The target's last one."""
        boundary = self.config.boundary
        return () if boundary is None else (boundary,)

    def described(self) -> dict[str, str]:
        """Their conventions."""
        return self.config.described()

    def made(
        self, target: LanguageModel, name: str = "medusa", dtype: Dtype = "auto", branches: int = 1
    ) -> MedusaDrafter:
        """A drafter that guesses with all heads behind one state."""
        tables, place = tables_of(target), target.device
        heads = MedusaHeads(self.config, self.weights, tables, place, format_of(dtype))
        return MedusaDrafter(heads, name, branches)

    def guesses(
        self, text: Written, target: TargetTables, num_steps: int
    ) -> Int[Tensor, "steps rows"]:
        """Every head's at every row."""
        rows = text.rows(num_steps)
        states = text.states[target.num_layers][rows.start : rows.stop]
        found = plain_medusa(self.config, self.weights, target, states).argmax(-1)
        return found[self.lead : self.lead + num_steps]

    def readings(self, target: LanguageModel) -> Sequence[Reading]:
        """States before the final norm; heads of which the first guesses the next token."""
        del target
        raw = replace(self.config, reads_normed=False)
        found = [
            Reading(
                Medusa(raw, self.weights),
                "with states before the final norm",
                remedy="its files cannot say so; train it on states behind the norm",
            )
        ]
        if self.config.num_heads > 1:
            why = "if its first head guessed the target's own next token"
            found.append(
                Reading(
                    replace(self, lead=1),
                    why,
                    remedy="drop that head, and count the others from 0",
                )
            )
        return found
