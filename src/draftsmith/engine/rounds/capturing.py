"""Whether an engine's rounds can be CUDA graphs, said without importing what makes them so."""

from typing import TYPE_CHECKING

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.model import ModelDrafter
from draftsmith.models.contract import LanguageModel

if TYPE_CHECKING:
    from draftsmith.engine.rounds.graphed import GraphedRounds

__all__ = ["graphed_rounds"]


def graphed_rounds(target: LanguageModel, draft: Drafter | None) -> "GraphedRounds | None":
    """What runs rounds as graphs; None where target or draft cannot be captured.

    Args:
        target: What checks.
        draft: What guesses; None decodes plainly.
    """
    if not target.can_be_captured:
        return None
    model = None
    if draft is not None:
        if not isinstance(draft, ModelDrafter) or not draft.model.can_be_captured:
            return None
        model = draft.model
        if model.device != target.device:
            return None
    # Here, because it imports Triton, which not every installation has.
    from draftsmith.engine.rounds.graphed import GraphedRounds
    from draftsmith.models.native.gpu import GpuDecoder

    assert isinstance(target, GpuDecoder)
    assert model is None or isinstance(model, GpuDecoder)
    return GraphedRounds(target, model)
