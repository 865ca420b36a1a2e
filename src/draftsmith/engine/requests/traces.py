"""Where each committed token came from, and its log-probability if asked for.

A round notes next to nothing; what there is to tell is put together when somebody asks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from draftsmith.core.statistics import RoundRecord
from draftsmith.engine.requests.result import Origin, TokenTrace, TopLogprob
from draftsmith.engine.rounds.outcomes import Outcome

__all__ = ["Logprobs", "Rounds", "logprobs_of"]


class Logprobs(NamedTuple):
    """Of one output token, under the target's raw law."""

    own: float | None
    top: tuple[TopLogprob, ...]


_NOT_ASKED_FOR = Logprobs(None, ())


class Rounds(NamedTuple):
    """What some rounds of one sequence have left behind."""

    tokens: Sequence[int]
    records: Sequence[RoundRecord]
    rejected: Sequence[int | None]
    """Of each round, the drafted token whose place the emitted one took, if any."""
    logprobs: Sequence[Logprobs]
    """Of the tokens; empty where nobody asked."""
    first: int
    """The number of the first round."""

    def traces(self) -> tuple[TokenTrace, ...]:
        """One for each token, in order."""
        return tuple(self._traces())

    def _traces(self) -> Iterator[TokenTrace]:
        place = 0
        pairs = zip(self.records, self.rejected, strict=True)
        for number, (record, wrong) in enumerate(pairs, self.first):
            last = Origin.BONUS if wrong is None else Origin.RESIDUAL
            for column in range(record.num_committed):
                logprob, top = self.logprobs[place] if self.logprobs else _NOT_ASKED_FOR
                token = self.tokens[place]
                if column < record.num_accepted:
                    yield TokenTrace(token, Origin.KEPT, number, None, logprob, top)
                else:
                    yield TokenTrace(token, last, number, wrong, logprob, top)
                place += 1


def logprobs_of(outcome: Outcome, count: int | None) -> list[Logprobs]:
    """Of the tokens of a verdict, with the likeliest `count` beside each; none where it is None."""
    if count is None:
        return []
    return [_logprobs(outcome, *pair, count) for pair in enumerate(outcome.tokens)]


def _logprobs(outcome: Outcome, column: int, token: int, count: int) -> Logprobs:
    """Before sampling processing, as vLLM and OpenAI report it."""
    row = outcome.logits(column).float().log_softmax(dim=-1)
    values, ids = row.topk(count)
    top = zip(ids.tolist(), values.tolist(), strict=True)
    return Logprobs(float(row[token]), tuple(TopLogprob(*pair) for pair in top))
