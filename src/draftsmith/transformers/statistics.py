"""What speculation did in a call of `model.generate`, for its caller."""

from collections.abc import Sequence

from draftsmith.core.statistics import SpeculationStatistics

__all__ = ["Statistics"]


class Statistics:
    """Collects what the rounds of `model.generate(custom_generate=...)` did.

    Pass one as `statistics=`; with `return_dict_in_generate=True` the output has one as well.

    Example:
        statistics = draftsmith.transformers.Statistics()
        model.generate(**inputs, custom_generate=draftsmith.transformers.generate,
                       assistant_model=draft, statistics=statistics)
        print(statistics.total.tokens_per_pass, statistics.total.alpha)
    """

    def __init__(self) -> None:
        self.rows: list[SpeculationStatistics] = []
        """Of each sequence of the calls that it was passed to, in order."""

    @property
    def total(self) -> SpeculationStatistics:
        """Of all sequences together."""
        return sum(self.rows, SpeculationStatistics())

    def add(self, rows: Sequence[SpeculationStatistics]) -> None:
        """Note the sequences of a call."""
        self.rows += rows

    def __repr__(self) -> str:
        """The totals."""
        return f"Statistics({len(self.rows)} sequences, {self.total})"
