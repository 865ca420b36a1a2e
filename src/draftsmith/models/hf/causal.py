"""Any decoder-only model of `transformers`, in ragged batches."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.hf.arguments import accepted_arguments, cache_argument
from draftsmith.models.hf.ragged_cache import RaggedCache

__all__ = ["CausalModel", "check_positions", "in_groups", "marked", "one_by_one", "padding_mask"]


class CausalModel(LanguageModel):
    """A `transformers` causal language model behind our contract.

    Models that take position ids run ragged batches in one pass. The others derive positions
    from the cache's length (ALiBi among them): their rows run in groups of equal length.

    Args:
        model: A model of `transformers`.
        traits: What is known of it.
        is_careful: Run any model's rows in groups of equal length, and show it keys and values
            laid out as its own cache would have them.
    """

    def __init__(self, model: Any, traits: ModelTraits, *, is_careful: bool = False) -> None:
        self.model = model
        self.traits = traits
        self.device = model.device
        accepted = accepted_arguments(model)
        self._cache_name = cache_argument(model, traits.name)
        self._takes_positions = "position_ids" in accepted
        self._is_careful = is_careful
        self._can_skip_logits = "logits_to_keep" in accepted

    def open_cache(self) -> RaggedCache:
        """An empty cache of this model."""
        cache = RaggedCache()
        cache.layout.is_contiguous = self._is_careful
        return cache

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        assert isinstance(cache, RaggedCache)
        assert batch.parents is None
        if self._takes_positions and not self._is_careful:
            return self._pass(cache, batch)
        return in_groups(batch, cache, lambda group: self._pass(cache, group))

    def extend(
        self, cache: Cache, row: int, tokens: Sequence[int], reach: int | None = None
    ) -> None:
        """Append tokens to one row, without logits.

        Args:
            cache: The rows.
            row: One of them.
            tokens: New ones.
            reach: Largest position that the pass is to show, in a column that no token sees and
                that is not kept; None is the tokens' own.
        """
        assert isinstance(cache, RaggedCache)
        self._pass(cache, Rows([row], [tokens]), num_logits=1, reach=reach)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    @torch.inference_mode()
    def _pass(
        self, cache: RaggedCache, batch: Rows, num_logits: int = 0, reach: int | None = None
    ) -> Tensor:
        past = [cache.length(row) for row in batch.rows]
        check_positions(self.traits, past, batch)
        ids = batch.padded(self.device)
        if reach is not None:
            ids = torch.nn.functional.pad(ids, (0, 1))
        width = ids.shape[1]
        cache.layout.begin(batch.rows, past, width, self.device)
        options: dict[str, Any] = {self._cache_name: cache.for_model}
        if self._takes_positions:
            options["position_ids"] = self._positions(past, batch, reach)
        if not cache.layout.is_aligned:
            options["attention_mask"] = padding_mask(cache.layout.past, width, self.device)
        if self._can_skip_logits:
            options["logits_to_keep"] = num_logits
        output = self.model(input_ids=ids, use_cache=True, **options)
        for row, tokens in zip(batch.rows, batch.tokens, strict=True):
            cache.append(row, len(tokens))
        return marked(output.logits, cache.lost())

    def _positions(self, past: Sequence[int], batch: Rows, reach: int | None) -> Tensor:
        start = torch.tensor(past, device=self.device).unsqueeze(1)
        last = torch.tensor([len(tokens) - 1 for tokens in batch.tokens], device=self.device)
        offsets = torch.arange(batch.width, device=self.device)
        # The padding of a short row stays at its last token: no position is shown that it lacks.
        positions = start + torch.minimum(offsets, last.unsqueeze(1))
        return (
            positions if reach is None else torch.nn.functional.pad(positions, (0, 1), value=reach)
        )


def marked(logits: Tensor, lost: Tensor | None) -> Tensor:
    """NaN for the columns whose tokens see what no cache can hold; all columns, or none."""
    if lost is None or logits.shape[1] != lost.shape[1]:
        return logits
    if logits.device.type == "cpu" and not bool(lost.any()):  # elsewhere asking would be a wait
        return logits
    return logits.masked_fill(lost.unsqueeze(-1).to(logits.device), torch.nan)


def check_positions(traits: ModelTraits, past: Sequence[int], batch: Rows) -> None:
    """Refuse a pass beyond the last position of a model's table.

    Raises:
        InvalidRequestError: With the model's name and its positions.
    """
    pairs = zip(past, batch.tokens, strict=True)
    longest = max(held + len(tokens) for held, tokens in pairs)
    if traits.position_limit is not None and longest > traits.position_limit:
        raise InvalidRequestError(
            f"a text of {longest} tokens, but {traits.name} has {traits.position_limit} "
            "positions: shorten the prompt"
        )


def padding_mask(past: Sequence[int], width: int, device: torch.device) -> Tensor:
    """`[batch, columns]`: 0 where a shorter row is padded on the left."""
    columns = torch.arange(max(past) + width, device=device)
    first = max(past) - torch.tensor(past, device=device).unsqueeze(1)
    return (columns >= first).long()


def _equal_length_groups(batch: Rows, cache: Cache) -> Iterator[list[int]]:
    """Indices into the batch, grouped by how many tokens their rows hold."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(batch.rows):
        groups[cache.length(row)].append(index)
    yield from groups.values()


def in_groups(batch: Rows, cache: Cache, run: Any) -> Tensor:
    """Run rows of equal length together, and put the logits back in the batch's order."""
    groups = list(_equal_length_groups(batch, cache))
    if len(groups) == 1:
        return run(batch)
    parts = [
        (group, run(Rows([batch.rows[i] for i in group], [batch.tokens[i] for i in group])))
        for group in groups
    ]
    first = parts[0][1]
    logits = first.new_zeros(len(batch.rows), batch.width, first.shape[-1])
    for group, part in parts:
        logits[group, : part.shape[1]] = part
    return logits


def one_by_one(batch: Rows, run: Callable[[Rows], Tensor]) -> Tensor:
    """Run a batch in passes of one token a row, and join the logits."""
    steps: list[tuple[list[int], Tensor]] = []
    for index in range(batch.width):
        live = [place for place, tokens in enumerate(batch.tokens) if len(tokens) > index]
        step = Rows([batch.rows[i] for i in live], [[batch.tokens[i][index]] for i in live])
        steps.append((live, run(step)))
    first = steps[0][1]
    logits = first.new_zeros(len(batch.rows), batch.width, first.shape[-1])
    for index, (live, part) in enumerate(steps):
        logits[live, index] = part[:, 0]
    return logits
