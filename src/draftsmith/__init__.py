"""Exact speculative decoding: a transformer generates the same text, sooner.

Three altitudes over one code path: `generate` for one call, `Engine` for many prompts and
streams, `Drafter.propose` for a draft of your own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from draftsmith.api import generate, load_engine
    from draftsmith.core.params import SamplingParams
    from draftsmith.core.structured import StructuredOutputs
    from draftsmith.drafters import (
        BlockDrafter,
        Draft,
        DraftContext,
        Drafter,
        FreeDrafter,
        ModelDrafter,
        NgramDrafter,
        NgramTable,
        PromptLookupDrafter,
        RandomDrafter,
    )
    from draftsmith.engine.beams.search import beam_search
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.hierarchical import SpeculativeDrafter
    from draftsmith.engine.requests.result import Completion, GenerationResult, StreamEvent
    from draftsmith.errors import DraftsmithError

__version__ = "0.1.0"

_HOMES = {
    "BlockDrafter": "draftsmith.drafters",
    "Completion": "draftsmith.engine.requests.result",
    "Draft": "draftsmith.drafters",
    "DraftContext": "draftsmith.drafters",
    "Drafter": "draftsmith.drafters",
    "DraftsmithError": "draftsmith.errors",
    "Engine": "draftsmith.engine.engine",
    "FreeDrafter": "draftsmith.drafters",
    "GenerationResult": "draftsmith.engine.requests.result",
    "ModelDrafter": "draftsmith.drafters",
    "NgramDrafter": "draftsmith.drafters",
    "NgramTable": "draftsmith.drafters",
    "PromptLookupDrafter": "draftsmith.drafters",
    "RandomDrafter": "draftsmith.drafters",
    "SamplingParams": "draftsmith.core.params",
    "SpeculativeDrafter": "draftsmith.engine.hierarchical",
    "StreamEvent": "draftsmith.engine.requests.result",
    "StructuredOutputs": "draftsmith.core.structured",
    "beam_search": "draftsmith.engine.beams.search",
    "generate": "draftsmith.api",
    "load_engine": "draftsmith.api",
}

__all__ = [
    "BlockDrafter",
    "Completion",
    "Draft",
    "DraftContext",
    "Drafter",
    "DraftsmithError",
    "Engine",
    "FreeDrafter",
    "GenerationResult",
    "ModelDrafter",
    "NgramDrafter",
    "NgramTable",
    "PromptLookupDrafter",
    "RandomDrafter",
    "SamplingParams",
    "SpeculativeDrafter",
    "StreamEvent",
    "StructuredOutputs",
    "beam_search",
    "generate",
    "load_engine",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Import a public name when it is first used: torch is not needed for `--help`."""
    if name not in _HOMES:
        raise AttributeError(f"module 'draftsmith' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, imported yet or not, and what every module has."""
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
