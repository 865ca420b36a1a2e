"""What a request has used, and what speculation did for it."""

from collections.abc import Sequence
from typing import Any

from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.engine.requests.result import Completion

__all__ = ["usage_of"]


def usage_of(
    num_prompt_tokens: int,
    completions: Sequence[Completion],
    *,
    n: int = 1,
    has_prediction: bool = False,
    has_statistics: bool = False,
) -> dict[str, Any]:
    """Counts of tokens, as OpenAI's API names them.

    Args:
        num_prompt_tokens: Each prompt once.
        completions: All choices.
        n: Of each prompt.
        has_prediction: Whether what was drafted were tokens of a prediction.
        has_statistics: Whether speculation's own counts are asked for.
    """
    num_tokens = sum(len(one.token_ids) for one in completions)
    counts = sum((one.statistics for one in completions), SpeculationStatistics())
    # Tokens that a form forces are drafted as well, but not from a prediction.
    drafted = sum(one.num_guessed for one in completions)
    accepted = sum(one.num_guesses_kept for one in completions)
    usage: dict[str, Any] = {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
        "prompt_tokens_details": {
            "cached_tokens": sum(one.num_cached_tokens for one in completions[::n])
        },
        "completion_tokens_details": {
            "accepted_prediction_tokens": accepted if has_prediction else 0,
            "rejected_prediction_tokens": drafted - accepted if has_prediction else 0,
        },
    }
    if has_statistics:
        usage["speculation"] = counts.to_dict()
    return usage
