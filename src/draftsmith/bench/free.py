"""Drafters that cost nothing to have."""

from draftsmith.bench.prompts import encode
from draftsmith.drafters import Drafter, NgramDrafter, NgramTable, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.workloads import load_workload

__all__ = ["free_drafters"]


def free_drafters(engine: Engine, workload: str) -> dict[str, Drafter]:
    """Prompt lookup, and bigrams counted in all prompts of a workload, its outputs unseen.

    Raises:
        DraftsmithError: As `load_workload`.
    """
    prompts, _ = encode(load_workload(workload), engine.tokenizer)
    table = NgramTable.from_tokens(prompts, engine.target.traits.vocab_size, order=2)
    return {"prompt-lookup": PromptLookupDrafter(), "bigrams of the prompts": NgramDrafter(table)}
