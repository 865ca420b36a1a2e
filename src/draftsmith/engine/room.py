"""Who may hold keys and values, where there is no memory for all who would.

A sequence opens its rows when there is room for all of its tokens; the ones behind it wait. Where a
round finds no room, the youngest sequence lets go of its rows, and reads its text again when there
is. Nothing but rows is let go of, and no round begins without its room: so rounds, random numbers
and laws are those that the sequence would have had, and so is its text.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from draftsmith.core.values import check_whole, require
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.errors import CacheFullError
from draftsmith.models.contract import CacheSettings
from draftsmith.models.follower import Follower
from draftsmith.models.native.prefixes import BLOCK

__all__ = ["CacheStatistics", "Room", "check_cache_tokens"]


class CacheStatistics(NamedTuple):
    """What an engine's target remembers, and what became of that so far.

    Example:
        >>> import draftsmith
        >>> engine = draftsmith.load_engine("smollm2-135m-instruct", cache_tokens=4096)
        >>> engine.cache_statistics().num_preemptions
        0
    """

    cache_tokens: int | None
    """The most that may be held and kept; None where none was asked for."""
    num_held: int
    """Tokens that there is memory for in the rows of sequences."""
    num_kept: int
    """Tokens of beginnings that are kept beside them, of sequences that have ended."""
    num_prompt_tokens: int
    """Tokens of all prompts that were read so far, or recalled."""
    num_recalled: int
    """Of these, the ones that were recalled from another sequence's beginning."""
    num_preemptions: int
    """How often a sequence had to let go of its rows."""


def check_cache_tokens(number: object) -> int | None:
    """The most tokens of a cache; None where nobody says.

    Raises:
        InvalidRequestError: If it is no whole number, or less than a block.

    Example:
        >>> check_cache_tokens(4096)
        4096
    """
    if number is None:
        return None
    rule = f"{BLOCK} or more"
    found = check_whole("cache_tokens", number, rule)
    require(found >= BLOCK, "cache_tokens", rule, number)
    return found


class Room:
    """Decides which sequences have rows.

    Args:
        settings: What each model's cache may hold.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings
        self.num_preemptions = 0
        self.num_prompt_tokens = 0
        self.num_recalled = 0
        self.is_full = False
        """Whether somebody waits, and nobody has let go of a row since."""

    def keep(
        self,
        live: Sequence[Sample],
        followers: Sequence[Follower],
        wanted: Callable[[Sample, Follower], int],
    ) -> None:
        """Make room for the next round of all sequences that have rows, the oldest first.

        Args:
            live: In the order in which they came.
            followers: Of all models, the target's first.
            wanted: Tokens that a model holds of a sequence in the round to come, 0 for none.
        """
        holders = [sample for sample in live if followers[0].holds(sample.id)]
        place = 0
        while place < len(holders):
            try:
                _make_room(holders[place], followers, wanted)
                place += 1
            except CacheFullError as error:
                youngest = holders.pop()
                self._let_go(youngest, followers)
                if holders:
                    self.num_preemptions += 1
                else:
                    youngest.fail(str(error))

    def admits(
        self,
        sample: Sample,
        live: Sequence[Sample],
        followers: Sequence[Follower],
        wanted: Callable[[Sample, Follower], int],
    ) -> bool:
        """Whether a sequence may read: it has rows, or there is room for all of its text.

        Args:
            sample: One of `live`.
            live: As for `keep`.
            followers: As for `keep`.
            wanted: As for `keep`.
        """
        if followers[0].holds(sample.id):
            return True
        if self.is_full or sample.finish_reason is not None:
            return False
        num_holders = sum(followers[0].holds(one.id) for one in live)
        try:
            _make_room(sample, followers, wanted)
        except CacheFullError as error:
            self._let_go(sample, followers)
            if not num_holders:
                sample.fail(str(error))
                return False
            self.is_full = True
            return False
        if _is_tight(followers, BLOCK * num_holders):
            # Whoever runs wants another block soon: this one would be the first to go.
            self._let_go(sample, followers)
            self.is_full = True
            return False
        return True

    def count(self, sample: Sample, target: Follower) -> None:
        """Note how much of a sequence's text was recalled, when it reads for the first time."""
        if sample.num_cached_tokens is None:
            sample.num_cached_tokens = target.num_recalled(sample)
            self.num_prompt_tokens += len(sample.prompt)
            self.num_recalled += sample.num_cached_tokens

    def _let_go(self, sample: Sample, followers: Sequence[Follower]) -> None:
        for follower in followers:
            follower.release(sample.id)
        self.is_full = False


def _make_room(
    sample: Sample, followers: Sequence[Follower], wanted: Callable[[Sample, Follower], int]
) -> None:
    for follower in followers:
        num_tokens = wanted(sample, follower)
        if num_tokens:
            follower.make_room(sample, num_tokens)


def _is_tight(followers: Sequence[Follower], num_tokens: int) -> bool:
    """Whether a cache has less than so many tokens left."""
    spares = [follower.cache.spare for follower in followers if follower.cache is not None]
    return any(spare is not None and spare < num_tokens for spare in spares)
