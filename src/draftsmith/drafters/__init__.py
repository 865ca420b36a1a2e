"""What guesses: models, tables, copies of the context, and the contract for your own."""

from draftsmith.drafters.contract import (
    DraftContext,
    Drafter,
    DraftState,
    SequenceView,
    StatefulDrafter,
)
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.free import FreeDrafter
from draftsmith.drafters.model import ModelDrafter
from draftsmith.drafters.ngram import NgramDrafter, NgramTable
from draftsmith.drafters.prompt_lookup import PromptLookupDrafter
from draftsmith.drafters.simple import BlockDrafter, RandomDrafter
from draftsmith.drafters.translated import TranslatedDrafter
from draftsmith.drafters.trees import Growth, Tip

__all__ = [
    "BlockDrafter",
    "Draft",
    "DraftContext",
    "DraftState",
    "Drafter",
    "FreeDrafter",
    "Growth",
    "ModelDrafter",
    "NgramDrafter",
    "NgramTable",
    "PromptLookupDrafter",
    "RandomDrafter",
    "SequenceView",
    "StatefulDrafter",
    "Tip",
    "TranslatedDrafter",
]
