"""A model that hands everything on, to be changed in one place."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from draftsmith.models.contract import Cache, LanguageModel, Rows

__all__ = ["PassedOn"]


class PassedOn(LanguageModel):
    """A model around another.

    Args:
        inner: The model that does the work.
    """

    def __init__(self, inner: LanguageModel) -> None:
        self.inner = inner
        self.traits = inner.traits
        self.device = inner.device
        self.uses_torch_threads = inner.uses_torch_threads
        self.takes_trees = inner.takes_trees
        self.num_ranks = inner.num_ranks
        self.num_boundaries, self.hidden_size = inner.num_boundaries, inner.hidden_size

    def open_cache(self) -> Cache:
        """The inner model's."""
        return self.inner.open_cache()

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """The inner model's logits."""
        return self.inner.forward(cache, batch)

    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Sequence[int]
    ) -> tuple[Float[Tensor, "batch rows vocab"], Float[Tensor, "batch rows boundaries hidden"]]:
        """The inner model's logits and streams."""
        return self.inner.forward_with_states(cache, batch, boundaries)

    def extend_with_states(
        self, cache: Cache, row: int, tokens: Sequence[int], boundaries: Sequence[int]
    ) -> Float[Tensor, "tokens boundaries hidden"]:
        """Append tokens to one row, without logits; the inner model's streams."""
        return self.inner.extend_with_states(cache, row, tokens, boundaries)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self.inner.extend(cache, row, tokens)

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append a prompt to one row, as the inner model does it."""
        self.inner.prefill(cache, row, tokens)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Run the encoder once over the source of a row."""
        self.inner.encode(cache, row, source)
