"""What speculation did: counts of drafted, tested, kept and committed tokens, and their ratios.

Three ratios go by the name of acceptance rate, and each has its own name here: `alpha` divides by
the drafts that were tested (Leviathan et al., arXiv:2211.17192), `draft_yield` by all drafts (vLLM)
and `chen_efficiency` counts the emitted token as well (Chen et al., arXiv:2302.01318).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, zip_longest
from statistics import NormalDist
from typing import NamedTuple

from draftsmith.errors import InvalidRequestError

__all__ = ["Interval", "RoundRecord", "SpeculationStatistics", "wilson_interval"]


class RoundRecord(NamedTuple):
    """What one round of one sequence did.

    Example:
        >>> RoundRecord(num_drafted=4, num_tested=3, num_accepted=2, num_committed=3).num_accepted
        2
    """

    num_drafted: int
    """Tokens that the draft proposed, all of a tree's; 0 in a round of plain decoding."""
    num_tested: int
    """Drafts compared with the target: the kept ones and, if there is one, the rejected one. In a
    tree, siblings are one test: whether the target's token is among them."""
    num_accepted: int
    """Drafts kept."""
    num_committed: int
    """Tokens that reached the output: num_accepted + 1, or fewer where the text ended sooner."""


class Interval(NamedTuple):
    """Two bounds of an unknown rate.

    Example:
        >>> Interval(0.25, 0.75).high
        0.75
    """

    low: float
    """The lower bound."""
    high: float
    """The upper bound."""


@dataclass(frozen=True, slots=True)
class SpeculationStatistics:
    """Counts over any number of rounds; the statistics of two runs add.

    Only what cannot be derived is stored: how many rounds drafted, tested and kept a token at each
    position. Without arguments it is the statistics of no rounds.

    Args:
        num_rounds: Rounds, those of plain decoding included.
        num_committed: Tokens that reached the output.
        drafted_per_position: Entry i counts the rounds that drafted more than i tokens.
        tested_per_position: Entry i counts the rounds that tested the draft at position i.
        accepted_per_position: Entry i counts the rounds that kept the draft at position i.

    Raises:
        InvalidRequestError: If no rounds can have these counts.

    Example:
        >>> rounds = [RoundRecord(4, 3, 2, 3), RoundRecord(4, 4, 4, 5)]
        >>> statistics = SpeculationStatistics.from_rounds(rounds)
        >>> statistics.draft_yield, statistics.tokens_per_pass, statistics.accepted_histogram
        (0.75, 4.0, (0, 0, 1, 0, 1))
        >>> round(statistics.alpha, 3)
        0.857
    """

    num_rounds: int = 0
    num_committed: int = 0
    drafted_per_position: tuple[int, ...] = ()
    tested_per_position: tuple[int, ...] = ()
    accepted_per_position: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_counts(self)

    @classmethod
    def from_rounds(cls, records: Iterable[RoundRecord]) -> "SpeculationStatistics":
        """Count what rounds did.

        Args:
            records: One record per round and sequence, in any order.

        Returns:
            The statistics, with as many positions as the longest draft has.

        Raises:
            InvalidRequestError: If a record contradicts itself.

        Example:
            >>> SpeculationStatistics.from_rounds([RoundRecord(2, 1, 0, 1)]).tested_per_position
            (1, 0)
        """
        # Many rounds, but few different ones.
        counts = Counter(records)
        for record in counts:
            _check_record(record)
        longest = max((record.num_drafted for record in counts), default=0)
        rounds = counts.items()
        return cls(
            num_rounds=counts.total(),
            num_committed=sum(count * one.num_committed for one, count in rounds),
            drafted_per_position=_count_above([(r.num_drafted, n) for r, n in rounds], longest),
            tested_per_position=_count_above([(r.num_tested, n) for r, n in rounds], longest),
            accepted_per_position=_count_above([(r.num_accepted, n) for r, n in rounds], longest),
        )

    def __add__(self, other: "SpeculationStatistics") -> "SpeculationStatistics":
        return SpeculationStatistics(
            num_rounds=self.num_rounds + other.num_rounds,
            num_committed=self.num_committed + other.num_committed,
            drafted_per_position=_add(self.drafted_per_position, other.drafted_per_position),
            tested_per_position=_add(self.tested_per_position, other.tested_per_position),
            accepted_per_position=_add(self.accepted_per_position, other.accepted_per_position),
        )

    @property
    def num_drafted(self) -> int:
        """Tokens that the draft proposed."""
        return sum(self.drafted_per_position)

    @property
    def num_tested(self) -> int:
        """Drafts compared with the target; those after a rejection never are."""
        return sum(self.tested_per_position)

    @property
    def num_accepted(self) -> int:
        """Drafts kept."""
        return sum(self.accepted_per_position)

    @property
    def num_drafting_rounds(self) -> int:
        """Rounds that drafted at least one token; vLLM's num_drafts."""
        return self.drafted_per_position[0] if self.drafted_per_position else 0

    @property
    def accepted_histogram(self) -> tuple[int, ...]:
        """Rounds by the number of drafts they kept: entry n counts those that kept n."""
        reached = (self.num_rounds, *self.accepted_per_position, 0)
        return tuple(here - beyond for here, beyond in pairwise(reached))

    @property
    def alpha(self) -> float | None:
        """Acceptance rate, accepted / tested; None if nothing was tested.

        Drafts after a rejection were never tested, and do not count.
        """
        return _ratio(self.num_accepted, self.num_tested)

    @property
    def draft_yield(self) -> float | None:
        """Kept share of all drafts, accepted / drafted; None if nothing was drafted."""
        return _ratio(self.num_accepted, self.num_drafted)

    @property
    def tokens_per_pass(self) -> float | None:
        """Tokens that reached the output per target pass; None if there were no rounds."""
        return _ratio(self.num_committed, self.num_rounds)

    @property
    def mean_acceptance_length(self) -> float | None:
        """1 + accepted / drafting rounds, as vLLM has it; None if nothing was drafted.

        Unlike `tokens_per_pass` it leaves out rounds of plain decoding, and counts an emitted
        token in every round even where the text ended before it.
        """
        accepted = _ratio(self.num_accepted, self.num_drafting_rounds)
        return None if accepted is None else 1 + accepted

    @property
    def acceptance_per_position(self) -> tuple[float | None, ...]:
        """Entry i is the rate at position i given that it was tested; None where it never was."""
        return tuple(map(_ratio, self.accepted_per_position, self.tested_per_position))

    @property
    def acceptance_per_position_unconditional(self) -> tuple[float, ...]:
        """Entry i is the share of drafting rounds that kept position i, as vLLM has it.

        It falls with i even if every position is equally easy, and counts a round whose draft was
        too short to reach i as one that did not keep it.
        """
        return tuple(kept / self.num_drafting_rounds for kept in self.accepted_per_position)

    @property
    def chen_efficiency(self) -> float | None:
        """Committed tokens over checked rows, gamma + 1 a round; None if there were no rounds.

        Figure 1 of Chen et al., arXiv:2302.01318, calls it acceptance rate: it is 1 for plain
        decoding.
        """
        return _ratio(self.num_committed, self.num_drafted + self.num_rounds)

    def alpha_interval(self, confidence: float = 0.95) -> Interval | None:
        """Wilson score interval of `alpha`, which stays inside [0, 1] and works for few tests.

        It takes the tests to be independent. Those of one text are not quite, so that the truth
        lies outside somewhat more often than 1 - confidence says.

        Args:
            confidence: How often the interval should cover the truth, strictly between 0 and 1.

        Returns:
            The interval, or None if nothing was tested.

        Raises:
            InvalidRequestError: If confidence is out of range.

        Example:
            >>> statistics = SpeculationStatistics.from_rounds([RoundRecord(4, 4, 3, 4)])
            >>> low, high = statistics.alpha_interval()
            >>> round(low, 3), round(high, 3)
            (0.301, 0.954)

        References:
            Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
        """
        if not 0 < confidence < 1:
            raise InvalidRequestError(f"confidence must be above 0 and below 1, got {confidence!r}")
        if self.num_tested == 0:
            return None
        return wilson_interval(self.num_accepted, self.num_tested, confidence)

    def to_dict(self) -> dict[str, object]:
        """Every count and ratio by name, ready for JSON; ratios are shares, not percentages.

        `mean_acceptance_length` and `draft_acceptance_rate` are vLLM's names and formulas.

        Returns:
            Names to numbers, to None where a ratio has no denominator, or to tuples of these.

        Example:
            >>> values = SpeculationStatistics.from_rounds([RoundRecord(4, 3, 2, 3)]).to_dict()
            >>> values["draft_yield"], values["draft_acceptance_rate"]
            (0.5, 0.5)
        """
        derived = {name: getattr(self, name) for name in _DERIVED}
        return {**asdict(self), **derived, "draft_acceptance_rate": self.draft_yield}


_DERIVED = (
    "num_drafted",
    "num_tested",
    "num_accepted",
    "num_drafting_rounds",
    "accepted_histogram",
    "alpha",
    "draft_yield",
    "tokens_per_pass",
    "mean_acceptance_length",
    "acceptance_per_position",
    "acceptance_per_position_unconditional",
    "chen_efficiency",
)


def _count_above(values: Sequence[tuple[int, int]], longest: int) -> tuple[int, ...]:
    """Entry i is the number of values above i, for i below `longest`; values with their counts."""
    return tuple(sum(count for value, count in values if value > i) for i in range(longest))


def _add(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip_longest(left, right, fillvalue=0))


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Score interval of a rate from independent trials: stays inside [0, 1], works for few.

    Args:
        successes: At most `trials`.
        trials: 1 or more.
        confidence: How often the interval should cover the truth, strictly between 0 and 1.

    Example:
        >>> wilson_interval(0, 10).low
        0.0

    References:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    z = -NormalDist().inv_cdf((1 - confidence) / 2)
    rate = successes / trials
    spread = z * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    center, scale = rate + z * z / (2 * trials), 1 + z * z / trials
    # Clamped, because rounding alone could carry an end past a rate of exactly 0 or 1.
    low = max(0.0, min(rate, (center - spread) / scale))
    high = min(1.0, max(rate, (center + spread) / scale))
    return Interval(low, high)


def _check_record(record: RoundRecord) -> None:
    drafted, tested, accepted, committed = record
    if not 0 <= accepted <= tested <= drafted:
        raise InvalidRequestError(f"a round needs 0 <= accepted <= tested <= drafted, got {record}")
    if tested > accepted + 1:
        raise InvalidRequestError(f"a round tests at most one draft it rejects, got {record}")
    if not 0 <= committed <= accepted + 1:
        raise InvalidRequestError(f"a round commits 0 to num_accepted + 1 tokens, got {record}")


def _check_counts(counts: SpeculationStatistics) -> None:
    drafted, tested = counts.drafted_per_position, counts.tested_per_position
    accepted = counts.accepted_per_position
    if not len(drafted) == len(tested) == len(accepted):
        raise InvalidRequestError(f"the counts per position must be equally long, got {counts}")
    # Chains only: a position is tested where the one before it was kept.
    reached = (counts.num_rounds, *accepted)[: len(accepted)]
    positions = zip(drafted, reached, tested, accepted, strict=True)
    is_chain = all(
        min(drafts, before) >= tests >= kept >= 0 for drafts, before, tests, kept in positions
    )
    is_prefix = all(
        longer <= shorter for shorter, longer in pairwise((counts.num_rounds, *drafted))
    )
    is_committed = 0 <= counts.num_committed <= counts.num_rounds + sum(accepted)
    if not (is_chain and is_prefix and is_committed):
        raise InvalidRequestError(f"no rounds can have these counts: {counts}")
