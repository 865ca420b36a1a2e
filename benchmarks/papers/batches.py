"""Batches of tokens, from memory-mapped files straight to the device, in one order for all models.

The order depends on the seed alone, so that every model of a pair sees the same text in the same
batches.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.papers.packed import read_pairs
from benchmarks.papers.vocabulary import T5_IDS

__all__ = ["Batch", "PairBatches", "TextBatches"]

Batch = dict[str, Tensor]
"""Named arguments of the model, and `labels`; a label of -100 is not learned."""

_WIDTHS = (16, 32, 64, 128)
_IGNORED = -100


class TextBatches:
    """Windows of a packed text, each starting where the one before ended, shuffled every epoch.

    Args:
        path: A packed text.
        num_tokens: Tokens in a batch.
        width: Tokens in a window.
        device: Where batches are wanted; the text is moved there once.
    """

    def __init__(self, path: Path, num_tokens: int, width: int, device: torch.device) -> None:
        self._tokens = torch.from_numpy(np.fromfile(path, dtype=np.int16)).to(device)
        self._width = width
        self._rows = max(1, num_tokens // width)
        self._columns = torch.arange(width + 1, device=device)

    def epochs(self, seed: int) -> Iterator[tuple[Batch, int]]:
        """Batches without end, each with its number of tokens; windows move from epoch to epoch."""
        order = np.random.default_rng(seed)
        while True:
            first = int(order.integers(self._width))
            starts = np.arange(first, len(self._tokens) - self._width - 1, self._width)
            order.shuffle(starts)
            for at in range(0, len(starts) - self._rows + 1, self._rows):
                yield self._batch(starts[at : at + self._rows])

    def once(self, most: int) -> Iterator[tuple[Batch, int]]:
        """The first windows, in order: at most `most` tokens."""
        starts = np.arange(0, len(self._tokens) - self._width - 1, self._width)
        starts = starts[: max(1, most // self._width)]
        for at in range(0, len(starts), self._rows):
            yield self._batch(starts[at : at + self._rows])

    def _batch(self, starts: np.ndarray) -> tuple[Batch, int]:
        place = torch.from_numpy(starts).to(self._tokens.device, non_blocking=True)
        # Ids are below 8,192, so that int16 holds what was written as uint16.
        windows = self._tokens[place.unsqueeze(1) + self._columns].long()
        return {"input_ids": windows[:, :-1], "labels": windows[:, 1:]}, windows[:, 1:].numel()


class PairBatches:
    """Pairs of like length, padded to one of a few widths, in an order by chance.

    The decoder's input is the translation behind the start token, which is the padding token, 0.
    """

    def __init__(self, path: Path, num_tokens: int, device: torch.device) -> None:
        sources, targets = read_pairs(path)
        longest = np.array([max(map(len, pair)) for pair in zip(sources, targets, strict=True)])
        places = np.searchsorted(_WIDTHS, longest)
        self._device = device
        self._rows: list[int] = []
        self._tables: list[tuple[Tensor, Tensor]] = []
        for index, width in enumerate(_WIDTHS):
            chosen = np.flatnonzero(places == index)
            self._rows.append(max(1, num_tokens // width))
            self._tables.append(
                (
                    _table([sources[i] for i in chosen], width).to(device),
                    _table([targets[i] for i in chosen], width).to(device),
                )
            )

    def epochs(self, seed: int) -> Iterator[tuple[Batch, int]]:
        """Batches without end, each with its number of target tokens, padding included."""
        order = np.random.default_rng(seed)
        while True:
            batches = [
                (index, rows)
                for index, (sources, _) in enumerate(self._tables)
                for rows in self._cut(order.permutation(len(sources)), self._rows[index])
            ]
            for place in order.permutation(len(batches)):
                yield self._batch(*batches[place])

    def once(self, most: int) -> Iterator[tuple[Batch, int]]:
        """The first pairs of every width, in order: at most about `most` tokens."""
        for index, (sources, _) in enumerate(self._tables):
            count = min(len(sources), max(1, most // len(_WIDTHS) // _WIDTHS[index]))
            for at in range(0, count, self._rows[index]):
                yield self._batch(index, np.arange(at, min(count, at + self._rows[index])))

    def _batch(self, index: int, rows: np.ndarray) -> tuple[Batch, int]:
        place = torch.from_numpy(rows).to(self._device, non_blocking=True)
        source, target = (table[place].long() for table in self._tables[index])
        batch = {
            "input_ids": source,
            "attention_mask": (source != T5_IDS["<pad>"]).long(),
            "decoder_input_ids": torch.nn.functional.pad(target[:, :-1], (1, 0)),
            "labels": target.masked_fill(target == T5_IDS["<pad>"], _IGNORED),
        }
        return batch, target.numel()

    def _cut(self, order: np.ndarray, size: int) -> Iterator[np.ndarray]:
        # The last, smaller batch waits for the next epoch's order: shapes stay the same.
        last = max(len(order) // size * size, min(len(order), 1))
        return (order[at : at + size] for at in range(0, last, size))


def _table(rows: list[np.ndarray], width: int) -> Tensor:
    table = np.zeros((len(rows), width), dtype=np.int16)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(table)
