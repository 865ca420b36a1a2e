"""When the drafts of one round are long enough, by the confidence of the drafter so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from draftsmith.core.scheduling import Candidate, best_cut, best_schedule
from draftsmith.core.trees import along
from draftsmith.engine.control.chances import Chances

__all__ = ["Costs", "Hearing", "RatePace"]


_CHEAPEST = 16
"""Rows of a check, up to which the cheapest are looked for."""


@dataclass(frozen=True)
class Costs:
    """What a round takes, in seconds."""

    check: NDArray[np.float64]
    """Entry n is the check with n drafted rows beside the one row of each sequence."""
    draft: NDArray[np.float64]
    """Entry d is the time of drafting d tokens deep."""

    @cached_property
    def cheapest_row(self) -> float:
        """The time of a drafted row where rows are cheapest, as a share of a plain round."""
        # Plain numbers, once for all rounds of a thought: amid passes a call of numpy takes 20 us.
        plain_s, *others = self.check[: 1 + _CHEAPEST].tolist()
        added = [(one - plain_s) / count for count, one in enumerate(others, start=1)]
        return min(added, default=math.inf) / plain_s


class Hearing:
    """Ends no draft: with it the first draft of all tells how sure the drafter is of each token."""

    def wanting(self, drafts: Sequence[Sequence[float]], rows: Sequence[int]) -> list[int]:
        """All of them."""
        del drafts
        return list(rows)

    def lengths(self, drafts: Sequence[Sequence[float]]) -> list[int]:
        """The whole drafts."""
        return list(map(len, drafts))

    def least_confidence(self, row: int) -> float:
        """None is ruled out."""
        del row
        return 0.0

    def nodes(
        self, drafts: Sequence[Sequence[float]], parents: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """All of them."""
        del parents
        return [list(range(len(draft))) for draft in drafts]


class RatePace:
    """Drafts on as long as the round's expected tokens per second rise.

    It is of one round: its drafts only grow, and what each token is worth is asked once.

    Args:
        ids: The sequences of the batch.
        chances: What confidences are worth.
        costs: What rows and steps take.
        min_depth: 1 checks a deterministic draft even where plain decoding seems better.
    """

    def __init__(
        self, ids: Sequence[int], chances: Chances, costs: Costs, min_depth: int = 0
    ) -> None:
        self._ids = ids
        self._chances = chances
        self._costs = costs
        self._min_depth = min_depth
        self._found: list[list[float]] = [[] for _ in ids]
        """Chances along each draft so far."""
        self._num_told = [0] * len(ids)
        """Tokens of each draft so far."""
        self._usual: dict[int, float] = {}
        """Chances of a token of which nothing is known yet."""
        self.has_cut = False
        """Whether it was shown deterministic drafts, to be cut when they are there."""

    def wanting(self, drafts: Sequence[Sequence[float]], rows: Sequence[int]) -> list[int]:
        """The likeliest next tokens, as many as the rate of the round rises by."""
        depth = max((len(drafts[row]) for row in rows), default=0)
        if depth == 0:
            return list(rows)
        chances = self._along(drafts)
        num_rows = sum(map(len, drafts))
        tokens = len(drafts) + sum(map(sum, chances))
        next_chance = {
            row: (chances[row][-1] if drafts[row] else 1.0) * self._usual_of(row) for row in rows
        }
        likeliest = sorted(rows, key=lambda row: -next_chance[row])
        rate = tokens / self._seconds(num_rows, depth)
        taken: list[int] = []
        for count, row in enumerate(likeliest, start=1):
            tokens += next_chance[row]
            longer = tokens / self._seconds(num_rows + count, depth + 1)
            if longer > rate:
                rate, taken = longer, likeliest[:count]
        return sorted(taken)

    def lengths(self, drafts: Sequence[Sequence[float]]) -> list[int]:
        """The cuts with the most expected tokens per second; the drafts are paid already."""
        self.has_cut = True
        is_forced, found = self._min_depth if any(drafts) else 0, self._along(drafts)
        if len(drafts) == 1:
            return [best_cut(found[0], self._costs.check, min_depth=is_forced)]
        candidates = [Candidate(np.array(chances)) for chances in found]
        free = np.zeros(len(self._costs.draft))
        return list(best_schedule(candidates, self._costs.check, free, min_depth=is_forced).gammas)

    def least_confidence(self, row: int) -> float:
        """At which a token is kept as often as its row costs, where rows are cheapest."""
        if self._min_depth:
            return 0.0
        return self._chances.confidence_of(self._ids[row], self._costs.cheapest_row)

    def nodes(
        self, drafts: Sequence[Sequence[float]], parents: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """Those with the most expected tokens per second, the likeliest first."""
        self.has_cut = True
        chances = [
            along(above, self._chances.each(id, draft))
            for id, draft, above in zip(self._ids, drafts, parents, strict=True)
        ]
        # A token is never likelier than its parent, which stands before it: it stays so.
        orders = [sorted(range(len(one)), key=one.__getitem__, reverse=True) for one in chances]
        is_forced = self._min_depth if any(drafts) else 0
        sorted_chances = [
            [one[node] for node in order] for one, order in zip(chances, orders, strict=True)
        ]
        if len(drafts) == 1:
            cut = best_cut(sorted_chances[0], self._costs.check, min_depth=is_forced)
            return [orders[0][:cut]]
        candidates = [Candidate(np.array(one)) for one in sorted_chances]
        free = np.zeros(max(map(len, chances), default=0) + 1)
        schedule = best_schedule(candidates, self._costs.check, free, min_depth=is_forced)
        pairs = zip(orders, schedule.gammas, strict=True)
        return [order[:count] for order, count in pairs]

    def _along(self, drafts: Sequence[Sequence[float]]) -> list[list[float]]:
        """Chances along each draft, of which only the new tokens are asked about."""
        for row, (id, draft) in enumerate(zip(self._ids, drafts, strict=True)):
            num_told = self._num_told[row]
            if len(draft) > num_told:
                self._chances.extend(self._found[row], id, draft[num_told:])
                self._num_told[row] = len(draft)
        return self._found

    def _usual_of(self, row: int) -> float:
        usual = self._usual.get(row)
        if usual is None:
            usual = self._usual[row] = self._chances.usual(self._ids[row])
        return usual

    def _seconds(self, num_rows: int, depth: int) -> float:
        check, draft = self._costs.check, self._costs.draft
        return float(check[min(num_rows, len(check) - 1)] + draft[min(depth, len(draft) - 1)])
