"""The target's own tokens along drafted chains, no further than they agree.

A verifier that compares each drafted token with the target's own needs no law behind the first that
differs. On a CPU laws are made one by one, or some at a time where there are many threads, so that
those that nobody needs take no time that is missed; on a GPU, where a call costs more than a law,
all at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from draftsmith.core.sampling_table import LogitRows
from draftsmith.engine.rounds.turn import Turn, noise_of_turns
from draftsmith.kernels.cpu.library import num_threads
from draftsmith.kernels.cpu.sampling import has_mass, laws

__all__ = ["Said", "say_along"]

_THREADS_A_ROW = 4
"""Waking a thread costs about what a law does, and far more where the cores have other work."""


class Said(NamedTuple):
    """What the target says along a chain."""

    tokens: list[int]
    """The drafted tokens that it says, too, and one more."""
    laws: list[Float[Tensor, " vocab"]]
    """One for each token, and perhaps more."""


def say_along(
    turns: Sequence[Turn], drafted: Sequence[Sequence[int]], rows: LogitRows
) -> dict[int, Said]:
    """What the target says along the drafts of some sequences.

    Args:
        turns: Of one verifier, which needs no law of the draft.
        drafted: Their chains, of one length.
        rows: The logits before the draft and behind each of its tokens, sequence by sequence.

    Returns:
        By place in the batch; nothing where a row on the way is no distribution.
    """
    num_rows = len(drafted[0]) + 1
    said: dict[int, list[int]] = {place: [] for place in range(len(turns))}
    made: dict[int, list[Tensor]] = {place: [] for place in said}
    live, start = list(said), 0
    while live and start < num_rows:
        columns = range(start, min(num_rows, start + _rows_at_once(rows, len(live))))
        found = _laws_at([turns[place] for place in live], live, columns, num_rows, rows)
        # The sync is the round's: its tokens are read below.
        is_law = has_mass(found.flatten(0, 1)).view(found.shape[:2]).all(dim=1).tolist()
        for place, law, is_one in zip(live, found, is_law, strict=True):
            made[place] += law
            if not is_one:
                del said[place]
        noise = noise_of_turns([turns[place] for place in live])
        going = [place in said for place in live]
        for column in columns:
            if not any(going):
                break
            law = found[:, column - start]
            tokens = turns[0].verifier.choose(law, noise, column).tolist()
            for index, (place, token) in enumerate(zip(live, tokens, strict=True)):
                if going[index]:
                    said[place].append(token)
                    going[index] = column + 1 < num_rows and token == drafted[place][column]
        live = [place for place, is_open in zip(live, going, strict=True) if is_open]
        start = columns.stop
    return {place: Said(tokens, made[place]) for place, tokens in said.items()}


def _rows_at_once(rows: LogitRows, num_sequences: int) -> int:
    """Rows of each sequence whose laws are made together."""
    if rows.logits.device.type != "cpu":
        return len(rows.places)
    return max(1, num_threads() // (_THREADS_A_ROW * num_sequences))


def _laws_at(
    turns: Sequence[Turn],
    places: Sequence[int],
    columns: range,
    num_rows: int,
    rows: LogitRows,
) -> Float[Tensor, "batch rows vocab"]:
    """The laws of some rows of some sequences."""
    where = [rows.places[place * num_rows + column] for place in places for column in columns]
    cuts = [one for turn in turns if (one := turn.law.cuts) is not None]
    each = [one for one in cuts for _ in columns]
    found = laws(LogitRows(rows.logits, where, rows.vocab_size), each)
    return found.view(len(places), len(columns), -1)
