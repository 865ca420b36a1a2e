"""How results look: a JSON object, a line of statistics, coloured tokens."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from draftsmith.core.statistics import SpeculationStatistics
    from draftsmith.engine.result import Completion, GenerationResult, TokenTrace
    from draftsmith.models.tokenizer import Tokenizer

__all__ = ["as_json", "coloured", "summary_line", "token_pieces"]

STYLES = {"kept": "green", "residual": "bold blue", "bonus": "cyan"}
"""Kept drafts are green, emitted tokens blue, as in Figure 1 of Leviathan et al."""


def as_json(result: "GenerationResult", **about: object) -> dict[str, Any]:
    """One object with text, token ids, finish reason and statistics."""
    first = result.completions[0]
    document = {
        **about,
        **_completion(first),
        "statistics": result.statistics.to_dict(),
        "num_prompt_tokens": len(result.prompt_token_ids),
        "elapsed_s": round(result.elapsed_s, 4),
        "tokens_per_second": round(result.tokens_per_second, 3),
    }
    if len(result.completions) > 1:
        document["completions"] = [_completion(one) for one in result.completions]
    return document


def summary_line(statistics: "SpeculationStatistics", tokens_per_second: float) -> str:
    """What a generation came to, in one line."""
    parts = [f"{statistics.num_committed} tokens", f"{tokens_per_second:.1f} tok/s"]
    if statistics.alpha is not None and statistics.tokens_per_pass is not None:
        parts += [
            f"alpha {statistics.alpha:.2f}",
            f"{statistics.tokens_per_pass:.2f} tokens per pass",
        ]
    return " · ".join(parts)


def token_pieces(
    tokenizer: "Tokenizer", tokens: Sequence["TokenTrace"]
) -> Iterator[tuple[str, "TokenTrace"]]:
    """The text that each token completes, with how the token came about."""
    from draftsmith.models.tokenizer import Detokenizer

    detokenizer = Detokenizer(tokenizer)
    for token in tokens:
        yield detokenizer.push(token.token_id), token


def coloured(completion: "Completion", tokenizer: "Tokenizer") -> Text:
    """The text with every token coloured by its origin, rejected drafts struck out."""
    text = Text()
    left = len(completion.text)
    for piece, token in token_pieces(tokenizer, completion.trace):
        if token.rejected is not None and left > 0:
            text.append(tokenizer.decode([token.rejected]), style="red strike")
        text.append(piece[:left], style=STYLES[token.origin.value])
        left -= len(piece)
    return text


def legend(console: Console) -> None:
    """Say what the colours mean."""
    console.print(
        Text.assemble(
            ("kept draft", STYLES["kept"]),
            " · ",
            ("emitted in the place of a rejected draft", STYLES["residual"]),
            " (",
            ("rejected", "red strike"),
            ") · ",
            ("emitted after the draft", STYLES["bonus"]),
        )
    )


def _completion(completion: "Completion") -> dict[str, Any]:
    document: dict[str, Any] = {
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "finish_reason": completion.finish_reason.value,
        "stop_reason": completion.stop_reason,
        "error": completion.error,
    }
    if completion.trace and completion.trace[0].logprob is not None:
        document["logprobs"] = [
            {
                "token_id": token.token_id,
                "logprob": token.logprob,
                "top": {str(top.token_id): top.logprob for top in token.top_logprobs},
            }
            for token in completion.trace
        ]
    return document
