"""Where each committed token came from, and its log-probability if asked for."""

from draftsmith.engine.result import Origin, TokenTrace, TopLogprob
from draftsmith.engine.rounds.verdicts import Outcome
from draftsmith.engine.sequence import Sequence

__all__ = ["traced"]


def traced(sequence: Sequence, outcome: Outcome) -> list[TokenTrace]:
    """One trace for each token of a verdict, in order."""
    return [_trace(sequence, outcome, column) for column in range(len(outcome.tokens))]


def _trace(sequence: Sequence, outcome: Outcome, column: int) -> TokenTrace:
    is_kept = column < outcome.num_accepted
    is_rejection = not is_kept and column < len(outcome.drafted)
    origin = Origin.KEPT if is_kept else Origin.RESIDUAL if is_rejection else Origin.BONUS
    token = outcome.tokens[column]
    count = sequence.params.logprobs
    logprob, top = (None, ()) if count is None else _logprobs(outcome, column, token, count)
    return TokenTrace(
        token_id=token,
        origin=origin,
        round=len(sequence.records),
        rejected=outcome.drafted[column] if is_rejection else None,
        logprob=logprob,
        top_logprobs=top,
    )


def _logprobs(
    outcome: Outcome, column: int, token: int, count: int
) -> tuple[float, tuple[TopLogprob, ...]]:
    """Under the target's raw law, before sampling processing, as vLLM and OpenAI report it."""
    row = outcome.logits(column).float().log_softmax(dim=-1)
    values, ids = row.topk(count)
    top = zip(ids.tolist(), values.tolist(), strict=True)
    return float(row[token]), tuple(TopLogprob(*pair) for pair in top)
