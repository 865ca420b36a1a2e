"""Unigram and bigram tables: drafts of negligible cost (Leviathan et al., section 3.6)."""

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.values import check_whole, is_whole, require
from draftsmith.drafters.contract import DraftContext, Drafter
from draftsmith.drafters.draft import Draft
from draftsmith.errors import InvalidRequestError, ModelFormatError, ModelNotFoundError
from draftsmith.models.written import written_whole

__all__ = ["NgramDrafter", "NgramTable"]

_FORMAT = 1
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)
"""What numpy and zipfile raise at files that are not tables, or not whole."""


class NgramTable:
    """Counts of tokens, and of pairs of tokens for a bigram.

    The unigram law is the plain share of each token. The bigram law after `a` is
    (count(a, b) + unigram(b)) / (count(a) + 1): one pseudo-count, spread as the unigram is, so
    that a token never seen before backs off to the unigram. Tokens never seen have no mass.

    Args:
        counts: How often each token occurred.
        pairs: Distinct (first, second) pairs, sorted by first; None for a unigram.
        pair_counts: How often each pair occurred.

    Example:
        >>> table = NgramTable.from_tokens([[0, 1, 0, 1, 0, 2]], vocab_size=4)
        >>> table.law(0).argmax().item(), table.law(0)[3].item()
        (1, 0.0)
    """

    def __init__(
        self,
        counts: Int[Tensor, " vocab"],
        pairs: Int[Tensor, "pairs 2"] | None = None,
        pair_counts: Int[Tensor, " pairs"] | None = None,
    ) -> None:
        self.counts = counts
        self.pairs = pairs
        self.pair_counts = pair_counts
        self._unigram = counts.float() / counts.sum().clamp(min=1)
        if pairs is not None:
            firsts = pairs[:, 0].contiguous()
            self._ends = torch.searchsorted(firsts, torch.arange(len(counts)), right=True)

    @classmethod
    def from_tokens(
        cls, texts: Iterable[Sequence[int]], vocab_size: int, order: int = 2
    ) -> "NgramTable":
        """Count tokens (order 1) or pairs (order 2) in tokenised texts.

        A text may be a corpus, or what a target generated.

        Args:
            texts: Token ids of each.
            vocab_size: The target's number of ids.
            order: 1 for a unigram, 2 for a bigram.

        Returns:
            The table.

        Raises:
            InvalidRequestError: If there is not one token, or one is not of the vocabulary.
        """
        require(is_whole(order) and order in (1, 2), "order", "1 or 2", order)
        vocab_size = check_whole("vocab_size", vocab_size)
        require(vocab_size >= 1, "vocab_size", "1 or more", vocab_size)
        counts = torch.zeros(vocab_size, dtype=torch.long)
        codes: list[Tensor] = []
        for text in texts:
            tokens = torch.tensor(list(text), dtype=torch.long)
            if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
                raise InvalidRequestError(f"n-gram texts need ids below {vocab_size}")
            counts += torch.bincount(tokens, minlength=vocab_size)
            codes.append(tokens[:-1] * vocab_size + tokens[1:])
        if not int(counts.sum()):
            raise InvalidRequestError("an n-gram table needs at least one token of text")
        if order == 1:
            return cls(counts)
        pairs, pair_counts = torch.cat(codes).unique(return_counts=True)
        split = torch.stack([pairs // vocab_size, pairs % vocab_size], dim=1)
        return cls(counts, split, pair_counts)

    @property
    def order(self) -> int:
        """1 for a unigram, 2 for a bigram."""
        return 1 if self.pairs is None else 2

    def law(self, token: int) -> Float[Tensor, " vocab"]:
        """The law of the token after another.

        Args:
            token: An id; one that is not of the table has the unigram after it.

        Returns:
            Probabilities of all ids; those never seen have none.
        """
        if self.pairs is None or token >= len(self.counts):
            return self._unigram
        assert self.pair_counts is not None
        start = int(self._ends[token - 1]) if token else 0
        stop = int(self._ends[token])
        counts = self._unigram.clone()
        counts[self.pairs[start:stop, 1]] += self.pair_counts[start:stop]
        return counts / (self.pair_counts[start:stop].sum() + 1)

    def save(self, path: str | Path) -> None:
        """Write the table as an `.npz` file.

        Args:
            path: Where to; a file that is there is replaced, in one step.

        Example:
            >>> NgramTable.from_tokens([[0, 1, 2]], vocab_size=4).save("table.npz")
            >>> NgramTable.load("table.npz").order
            2
        """
        arrays = {"format": np.array(_FORMAT), "counts": self.counts.numpy()}
        if self.pairs is not None and self.pair_counts is not None:
            arrays |= {"pairs": self.pairs.numpy(), "pair_counts": self.pair_counts.numpy()}
        with written_whole(Path(path)) as place, place.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "NgramTable":
        """Read a table that `save` wrote.

        Args:
            path: The `.npz` file.

        Returns:
            The table.

        Raises:
            ModelNotFoundError: If there is no such file.
            ModelFormatError: If it is not a table.
        """
        try:
            # Opened here: numpy leaves it open where the zip is corrupt.
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                if int(arrays["format"]) != _FORMAT:
                    raise ModelFormatError(f"{path} is an n-gram table of another version")
                parts = {
                    name: torch.from_numpy(arrays[name]) for name in arrays if name != "format"
                }
            table = cls(parts["counts"], parts.get("pairs"), parts.get("pair_counts"))
            _check_table(table)
        except FileNotFoundError as error:
            raise ModelNotFoundError(f"n-gram table {path} does not exist") from error
        except _UNREADABLE as error:
            raise ModelFormatError(f"{path} is not an n-gram table: build it again") from error
        return table


def _check_table(table: NgramTable) -> None:
    """Refuse arrays that are no table's.

    Raises:
        ValueError: If counts or pairs are not what `from_tokens` makes.
    """
    vocab_size, pairs, pair_counts = len(table.counts), table.pairs, table.pair_counts
    if table.counts.ndim != 1 or table.counts.dtype != torch.long or int(table.counts.sum()) < 1:
        raise ValueError("counts")
    if pairs is None or pair_counts is None:
        if pairs is not pair_counts:
            raise ValueError("pairs without counts, or counts without pairs")
        return
    is_table = pairs.shape == (len(pair_counts), 2) and pairs.dtype == pair_counts.dtype
    if not is_table or pairs.dtype != torch.long:
        raise ValueError("pairs")
    if len(pairs) and not 0 <= int(pairs.min()) <= int(pairs.max()) < vocab_size:
        raise ValueError("ids")
    if bool((pairs[1:, 0] < pairs[:-1, 0]).any()):
        raise ValueError("order")


class NgramDrafter(Drafter):
    """Drafts from a table, through the target's own sampling transform.

    Args:
        table: Of the target's vocabulary.

    Example:
        >>> NgramDrafter(NgramTable.from_tokens([[0, 1, 2]], vocab_size=4)).name
        'bigram'
    """

    def __init__(self, table: NgramTable) -> None:
        self.table = table
        self.name = "unigram" if table.order == 1 else "bigram"
        self.uses_torch_threads = False

    def propose(self, context: DraftContext) -> Draft:
        """Draw token after token, each from the law after the one before.

        Args:
            context: The round.

        Returns:
            What was drawn, with its laws.
        """
        last = [view.tokens[-1] for view in context.sequences]
        live: Sequence[int] = range(len(last))
        while live := context.wanting(live):
            laws = torch.stack([self.table.law(last[i]) for i in live])
            drawn = context.draw(live, laws.log().to(context.device))
            for i, token in zip(live, drawn, strict=True):
                last[i] = token
        return context.drawn()
