"""How many tokens to draft for each sequence of a batch, from chances and costs."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidate", "Schedule", "best_cut", "best_schedule", "least_seconds"]


class Candidate(NamedTuple):
    """One sequence that could be drafted for."""

    chances: NDArray[np.float64]
    """Entry j is the chance that the drafts up to j, from 0, are all kept, if there is a draft;
    never increasing. As many entries as tokens may be drafted."""
    availability: float = 1.0
    """Chance that the drafter proposes anything; a round without a proposal checks one row."""


class Schedule(NamedTuple):
    """What to draft, and what it should bring."""

    gammas: tuple[int, ...]
    """Tokens to draft, for each sequence."""
    tokens: float
    """Expected tokens of the round, all sequences together."""
    seconds: float
    """Expected time of the round."""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def best_schedule(
    candidates: Sequence[Candidate],
    check_seconds: NDArray[np.float64],
    draft_seconds: NDArray[np.float64],
    *,
    min_depth: int = 0,
) -> Schedule:
    """The draft lengths with the most expected tokens per second.

    For every depth that the drafter could run to, the slots (sequence, position) above it are
    taken by falling chance; of all prefixes of that order the best is kept. A slot's chance never
    exceeds that of the slot before it in its sequence, so a prefix of the order is a draft of
    each sequence.

    Args:
        candidates: The sequences of the batch.
        check_seconds: Entry n is the time of a round's check with n drafted rows beside the one
            row of each sequence; at least as many entries as there are slots, and one.
        draft_seconds: Entry d is the time of drafting d tokens deep.
        min_depth: 1 leaves plain decoding out, to ask for the best draft there is.

    Returns:
        The schedule; without slots, that of plain decoding.

    References:
        Slots by falling chance, as long as tokens times steps per second rise, are algorithm 1
        of DSpark; here with measured times, and over all depths, as neither curve need be smooth.
    """
    num_sequences = len(candidates)
    longest = max((len(one.chances) for one in candidates), default=0)
    best = Schedule((0,) * num_sequences, float(num_sequences), float(check_seconds[0]))
    if longest == 0:
        return best
    if num_sequences == 1:
        [one] = candidates
        most = min(longest, len(draft_seconds) - 1)
        check, draft = check_seconds[: most + 1].tolist(), draft_seconds[: most + 1].tolist()
        chances = one.chances[:most].tolist()
        gamma, *found = _best_alone(chances, one.availability, check, draft, min_depth)
        return Schedule((gamma,), *found)
    owner, depth, chance, weight = _slots(candidates)
    order = np.argsort(-chance, kind="stable")
    owner, depth, chance, weight = owner[order], depth[order], chance[order], weight[order]
    deepest = np.arange(1, min(longest, len(draft_seconds) - 1) + 1)[:, None]
    is_in = depth < deepest
    count = np.cumsum(is_in, axis=1)
    tokens = num_sequences + np.cumsum(is_in * (chance * weight), axis=1)
    # Where only some drafts come about, so does only their share of the added time.
    share = np.cumsum(is_in * weight, axis=1) / np.maximum(count, 1)
    added = share * (check_seconds[count] - check_seconds[0])
    seconds = check_seconds[0] + added + draft_seconds[deepest]
    rates = np.where(is_in, tokens / seconds, -np.inf)
    row, at = np.unravel_index(int(np.argmax(rates)), rates.shape)
    if min_depth == 0 and rates[row, at] <= best.rate:
        return best
    taken = np.bincount(owner[: at + 1][is_in[row, : at + 1]], minlength=num_sequences)
    gammas = tuple(int(gamma) for gamma in taken)
    return Schedule(gammas, float(tokens[row, at]), float(seconds[row, at]))


def least_seconds(
    availabilities: Iterable[float],
    check_seconds: NDArray[np.float64],
    draft_seconds: NDArray[np.float64],
) -> float:
    """What a round with any draft takes at least: a token of the sequence that has one seldomest.

    Of times that never fall with rows and depth; without looking at any chance.
    """
    added = float(check_seconds[1] - check_seconds[0])
    return float(check_seconds[0] + draft_seconds[1]) + min(availabilities) * added


def best_cut(
    chances: Sequence[float], check_seconds: NDArray[np.float64], *, min_depth: int = 0
) -> int:
    """How much of one draft to check that is there already, as `best_schedule` has it.

    Args:
        chances: Entry j is the chance that the tokens up to j are all kept; never increasing.
        check_seconds: Entry n is the time of a check of n drafted rows beside the sequence's own.
        min_depth: 1 leaves plain decoding out.

    Returns:
        So many of the first tokens.

    Example:
        >>> import numpy as np
        >>> best_cut([0.9, 0.5, 0.1], np.array([1.0, 1.2, 1.4, 1.6]))
        2
    """
    most = len(chances)
    check = check_seconds[: most + 1].tolist()
    return _best_alone(chances, 1.0, check, [0.0] * (most + 1), min_depth)[0]


def _best_alone(
    chances: Sequence[float],
    share: float,
    check: Sequence[float],
    draft: Sequence[float],
    min_depth: int,
) -> tuple[int, float, float]:
    """Tokens to draft for one sequence, whose slots are in order already; what comes, and its time.

    A few numbers: arrays would take longer.
    """
    kept, best = 0.0, (0, 1.0, check[0] + draft[0])
    for gamma, chance in enumerate(chances, start=1):
        kept += chance
        tokens = 1 + share * kept
        seconds = check[0] + share * (check[gamma] - check[0]) + draft[gamma]
        if tokens * best[2] > best[1] * seconds or gamma == min_depth:
            best = gamma, tokens, seconds
    return best


def _slots(
    candidates: Sequence[Candidate],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Sequence, position, chance and availability of every slot."""
    lengths = [len(one.chances) for one in candidates]
    owner = np.repeat(np.arange(len(candidates)), lengths)
    depth = np.concatenate([np.arange(length) for length in lengths])
    chance = np.concatenate([one.chances for one in candidates])
    weight = np.repeat([one.availability for one in candidates], lengths)
    return owner, depth, chance, weight
