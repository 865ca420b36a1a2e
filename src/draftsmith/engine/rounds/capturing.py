"""Whether an engine's rounds can be CUDA graphs, said without importing what makes them so."""

from typing import TYPE_CHECKING

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.heads.drafter import HeadDrafter
from draftsmith.drafters.model import ModelDrafter
from draftsmith.drafters.prompt_lookup import PromptLookupDrafter
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
    # Here, because it imports Triton, which not every installation has.
    from draftsmith.drafters.heads.gpu_head import GpuHead
    from draftsmith.engine.rounds.graphed import GraphedRounds
    from draftsmith.models.native.gpu import GpuDecoder

    assert isinstance(target, GpuDecoder)
    match draft:
        case None:
            return GraphedRounds(target)
        case PromptLookupDrafter(ngrams=ngrams):
            return GraphedRounds(target, ngrams=ngrams)
        case ModelDrafter(model=GpuDecoder() as model):
            has_same_ranks = (model.runner.told is None) == (target.runner.told is None)
            can_be_captured = model.can_be_captured and model.device == target.device
            return GraphedRounds(target, model) if can_be_captured and has_same_ranks else None
        case HeadDrafter(head=GpuHead() as head):
            return GraphedRounds(target, head) if head.device == target.device else None
        case _:
            return None
