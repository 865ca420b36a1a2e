"""What speculation did in a call of `model.generate`, for its caller."""

from collections.abc import Sequence

from draftsmith.core.statistics import SpeculationStatistics

__all__ = ["Statistics"]


class Statistics:
    """Collects what the rounds of `model.generate(custom_generate=...)` did.

    Pass one as `statistics=`; with `return_dict_in_generate=True` the output has one as well.

    Example:
        >>> import draftsmith.transformers, torch, transformers
        >>> model = transformers.AutoModelForCausalLM.from_pretrained("./target")
        >>> statistics = draftsmith.transformers.Statistics()
        >>> output = model.generate(
        ...     torch.tensor([[5, 6, 7, 5, 6]]),
        ...     custom_generate=draftsmith.transformers.generate,
        ...     prompt_lookup_num_tokens=3, max_new_tokens=8, statistics=statistics)
        >>> statistics.total.num_committed
        8
    """

    def __init__(self) -> None:
        self.rows: list[SpeculationStatistics] = []
        """Of each sequence of the calls that it was passed to, in order."""

    @property
    def total(self) -> SpeculationStatistics:
        """Of all sequences together."""
        return sum(self.rows, SpeculationStatistics())

    def add(self, rows: Sequence[SpeculationStatistics]) -> None:
        """Note the sequences of a call.

        Args:
            rows: What the rounds of each did.
        """
        self.rows += rows

    def __repr__(self) -> str:
        """The totals."""
        return f"Statistics({len(self.rows)} sequences, {self.total})"
