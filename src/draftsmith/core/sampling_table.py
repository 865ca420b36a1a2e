"""Laws of many sequences as columns: rows of logits transformed together, each by its own numbers.

`SamplingLaw` is the law of one sequence, and this its shortcut for rows that no prefix changes: the
same numbers, in one call for a batch.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.laws import Cuts, History, SamplingLaw, best_tokens
from draftsmith.core.params import SamplingParams

__all__ = ["LogitRows", "laws_of_rows", "points_of_rows", "top_ids", "top_ids_of_rows"]


class LogitRows(NamedTuple):
    """Some rows of a pass's logits, by where they lie; nothing is copied."""

    logits: Float[Tensor, "batch width columns"]
    places: Sequence[tuple[int, int]]
    """Of each row: which sequence of the batch, and which of its tokens."""
    vocab_size: int
    """Ids that count: the first columns; what is missing has no mass."""

    def picked(self) -> Float[Tensor, "rows vocab"]:
        """A copy, float32."""
        batch, column = torch.tensor(self.places, device=self.logits.device).T
        rows = self.logits[batch, column].float()
        missing = self.vocab_size - rows.shape[-1]
        if missing > 0:
            return torch.nn.functional.pad(rows, (0, missing), value=-torch.inf)
        return rows[:, : self.vocab_size]


def points_of_rows(rows: LogitRows) -> Int[Tensor, " rows"]:
    """Where the point masses of greedy laws stand; `NO_TOKEN` for a row that is no distribution.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 2.0, 1.0]], [[3.0, 2.0, 1.0]]])
        >>> points_of_rows(LogitRows(logits, [(1, 0), (0, 0)], 3)).tolist()
        [0, 1]
    """
    return best_tokens(rows.picked())


def top_ids_of_rows(rows: LogitRows, count: int) -> Int[Tensor, "rows count"]:
    """The ids with the largest logits, the largest first; of equals the lower id.

    Args:
        rows: Logits.
        count: How many; all, where there are fewer.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 2.0, 1.0, 2.0]]])
        >>> top_ids_of_rows(LogitRows(logits, [(0, 0)], 4), 3).tolist()
        [[1, 3, 2]]
    """
    return top_ids(rows.picked().nan_to_num(nan=-torch.inf), count)


def top_ids(scores: Float[Tensor, "rows n"], count: int) -> Int[Tensor, "rows count"]:
    """Where the largest scores of each row stand, the largest first; of equals the first.

    `torch.topk` alone leaves open which of equals it takes, and their order.

    Args:
        scores: Without NaN.
        count: How many; all, where there are fewer.

    Example:
        >>> import torch
        >>> top_ids(torch.tensor([[0.0, 2.0, 1.0, 2.0]]), 3).tolist()
        [[1, 3, 2]]
    """
    values, ids = scores.topk(min(count, scores.shape[-1]))
    if not ids.shape[-1]:
        return ids
    least = values[:, -1:]
    if bool(((scores == least).sum(dim=-1) > (values == least).sum(dim=-1)).any()):
        # Some of those that equal the last one are left out, and topk does not say which.
        return scores.sort(dim=-1, descending=True, stable=True).indices[:, : ids.shape[-1]]
    found = ids.sort().values
    # By falling score; sorted by id before, and the order of equals is kept.
    order = scores.gather(-1, found).sort(descending=True, stable=True).indices
    return found.gather(-1, order)


def laws_of_rows(rows: LogitRows, cuts: Sequence[Cuts]) -> Float[Tensor, "rows vocab"]:
    """The laws of rows, each by its own numbers; zeros for a row that is no distribution.

    Args:
        rows: Logits.
        cuts: One for each row, none of them greedy.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[0.0, 2.0, 1.0]]])
        >>> from draftsmith.core.laws import Cuts
        >>> one = Cuts(temperature=1.0, top_k=1, top_p=1.0, min_p=0.0)
        >>> laws_of_rows(LogitRows(logits, [(0, 0)], 3), [one]).tolist()
        [[0.0, 1.0, 0.0]]
    """
    picked = rows.picked()
    laws = torch.empty_like(picked)
    alike: defaultdict[Cuts, list[int]] = defaultdict(list)
    for row, one in enumerate(cuts):
        alike[one].append(row)
    none = torch.empty(0, dtype=torch.long, device=picked.device)
    for one, members in alike.items():
        law = SamplingLaw(SamplingParams(**one._asdict()), ())
        # Nothing looks at a prefix, so that any rows are neighbours.
        laws[members] = law(picked[members], History(none, none), none)
    return laws
