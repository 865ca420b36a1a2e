"""A model's cache that follows sequences as tokens are committed to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import CacheFullError
from draftsmith.models.contract import (
    BoundedCache,
    Cache,
    CacheSettings,
    CountedCache,
    LanguageModel,
    PagedCache,
    Rows,
)
from draftsmith.models.followed import Followed, common_prefix
from draftsmith.models.states import StateLog
from draftsmith.models.trees import is_path, stem_of

__all__ = ["Followed", "Follower", "common_prefix"]

_MOST_AGAIN = 16
"""Tokens of each sequence that are read again in one pass of all."""
_MOST_WITH_LOGITS = 8
"""Tokens that are fed beside a wanted one; more are read first, without logits that nobody asks
for: a large vocabulary's would take more memory than the model."""


@dataclass(slots=True)
class _Row:
    """A row of the cache, and the tokens that it holds."""

    sequence: int
    """The sequence's id."""
    number: int
    """In the cache."""
    held: list[int]
    num_recalled: int = 0
    """Of `held`, those that were there before anything was read."""
    last: "_Pass | None" = None
    """The last pass, until something else changes the row."""


class _Pass(NamedTuple):
    """What a row was fed."""

    start: int
    """Tokens that it held before."""
    tokens: tuple[int, ...]
    parents: Sequence[int]
    has_branches: bool


class Follower:
    """One model and its cache rows, a row for each live sequence.

    A row may hold drafted tokens that were rejected since, and lacks the newest committed ones:
    `catch_up` forgets the first and names the second. The target and a draft model use the same.

    Something that raises on the way (an interrupt, a lack of memory) may leave rows that hold other
    tokens than is written here: let go of the follower then, and open another.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._cache: Cache = model.open_cache()
        self._bounded = self._cache if isinstance(self._cache, BoundedCache) else None
        self._rows: dict[int, _Row] = {}
        self._log: StateLog | None = None

    def hand_out(self, boundaries: Sequence[int]) -> None:
        """Keep the residual streams at some boundaries of all that is read, until they are taken.

        Beginnings that others share are then read again: their streams are kept nowhere.
        """
        assert not self._rows
        self._log = StateLog(boundaries)

    @property
    def hands_out(self) -> bool:
        """Whether residual streams are kept until they are taken."""
        return self._log is not None

    def take_states(self, sequence: Followed) -> Float[Tensor, "tokens boundaries hidden"]:
        """The streams of the settled tokens that were read since this was last asked for them."""
        assert self._log is not None
        self.recover_states([sequence])
        return self._log.take(sequence.id, len(sequence.tokens) - 1)

    def pass_over_states(self, sequence: Followed, length: int) -> None:
        """Hand out no streams of the first `length` tokens: who wants them has read them."""
        assert self._log is not None
        self._log.pass_over(sequence.id, length)

    def limit_states(self, num_tokens: int) -> None:
        """Keep the streams of so many tokens at most, where any are kept."""
        if self._log is not None:
            self._log.limit(num_tokens)

    def recover_states(self, sequences: Sequence[Followed]) -> None:
        """Read again what was fed outside of here, whose streams are nowhere.

        Args:
            sequences: Whose settled tokens' streams are wanted; each has a row.
        """
        together: list[Followed] = []
        missing: list[Sequence[int]] = []
        for sequence in sequences:
            found = self._without_states(sequence)
            if len(found) > _MOST_AGAIN:
                self._prefill(self._rows[sequence.id], found)
            elif found:
                together.append(sequence)
                missing.append(found)
        if together:
            numbers = [self._rows[sequence.id].number for sequence in together]
            self._run(together, Rows(numbers, [self._readable(tokens) for tokens in missing]))
        for sequence, tokens in zip(together, missing, strict=True):
            self._rows[sequence.id].held.extend(tokens)

    def _without_states(self, sequence: Followed) -> Sequence[int]:
        """Settled tokens that a row holds and whose streams are nowhere; it forgets them."""
        row = self._rows.get(sequence.id)
        assert self._log is not None
        start = self._log.stop(sequence.id)
        if row is None or start >= len(row.held):
            return []
        end = common_prefix(row.held, sequence.tokens[:-1])
        row.last = None
        self._roll_back(row, start)
        return sequence.tokens[start:end]

    def forget(self, sequence: int) -> None:
        """Let go of a sequence that will not come back, by its id."""
        self.release(sequence)
        if self._log is not None:
            self._log.release(sequence)

    def bound(self, settings: CacheSettings) -> None:
        """Settle what the cache may hold, where it is one that can be told."""
        if self._bounded is not None:
            self._bounded.settings = settings

    @property
    def cache(self) -> BoundedCache | None:
        """The cache, where it is one whose memory is counted."""
        return self._bounded

    def release(self, sequence: int) -> None:
        """Close the row of a sequence, by its id, if it has one; others may share what it held."""
        row = self._rows.pop(sequence, None)
        if row is not None:
            self._remember(row, is_leaving=True)
            self._cache.remove(row.number)

    def release_all_but(self, present: Sequence[Followed]) -> None:
        """Close the rows of sequences that are gone."""
        for gone in self._rows.keys() - {sequence.id for sequence in present}:
            self.release(gone)

    def discard(self) -> None:
        """Close all rows, which may hold other tokens than is written here; nothing is kept."""
        while self._rows:
            _, row = self._rows.popitem()
            self._cache.remove(row.number)
        if self._bounded is not None:
            self._bounded.forget_kept()

    def holds(self, sequence: int) -> bool:
        """Whether a sequence, by its id, has a row."""
        return sequence in self._rows

    def num_recalled(self, sequence: Followed) -> int:
        """Tokens of a sequence with a row that were there before it read any."""
        return self._rows[sequence.id].num_recalled

    def make_room(self, sequence: Followed, num_tokens: int) -> None:
        """Make room for so many tokens of a sequence, which has a row from then on.

        Raises:
            CacheFullError: There is none; a row that it had, it still has.
        """
        if self._bounded is None or not self._bounded.may_be_full:
            return
        row = self._rows.get(sequence.id)
        if row is not None:
            self._bounded.reserve(row.number, num_tokens)
            return
        row = self._open(sequence)
        try:
            self._bounded.reserve(row.number, num_tokens)
        except CacheFullError:
            self.release(sequence.id)
            raise

    def read(self, sequence: Followed, budget: int | None = None) -> int:
        """Read settled tokens that the row lacks, without logits, the newest token left out.

        Args:
            sequence: Its source is encoded, if it is seen for the first time.
            budget: At most so many tokens; None is all.

        Returns:
            Tokens that were read.
        """
        row = self._rows.get(sequence.id)
        is_new = row is None
        if row is None:
            row = self._open(sequence)
        self._forget_branches(row)
        missing = sequence.tokens[len(row.held) : -1]
        part = missing if budget is None else missing[:budget]
        if part or is_new:
            self._prefill(row, part)
        if len(part) == len(missing):
            # Not chunk by chunk: a long text would be looked through again for each.
            self._remember(row)
        return len(part)

    def has_read(self, sequence: Followed) -> bool:
        """Whether the row holds at least as much as the settled tokens."""
        row = self._rows.get(sequence.id)
        return row is not None and len(row.held) >= len(sequence.tokens) - 1

    def catch_up(self, sequence: Followed) -> list[int]:
        """Forget rejected tokens; return the committed tokens to feed, the newest at least.

        What is missing by more than a few tokens is read here, without logits.
        """
        if sequence.id not in self._rows:
            self.read(sequence)
        row, tokens = self._rows[sequence.id], sequence.tokens
        self._forget_branches(row)
        # The newest token is always fed: its logits are wanted.
        settled = tokens[:-1]
        if row.held == settled:
            return [tokens[-1]]
        common = common_prefix(row.held, settled)
        if common < len(row.held):
            self._roll_back(row, common)
        if len(tokens) - common > _MOST_WITH_LOGITS:
            self._prefill(row, tokens[common:-1])
            self._remember(row)
            common = len(tokens) - 1
        return list(tokens[common:])

    def settle(self, sequence: Followed) -> None:
        """Hold all settled tokens, and no others: all but the newest."""
        feed = self.catch_up(sequence)
        self._prefill(self._rows[sequence.id], feed[:-1])

    def note_fed(self, sequence: Followed, coming: Sequence[int], num_open: int) -> None:
        """Note what a pass outside of here has fed.

        Args:
            sequence: Whose row agrees with it.
            coming: Tokens that are about to be committed.
            num_open: How many of the last of them the row lacks.
        """
        row = self._rows[sequence.id]
        new = [*sequence.tokens[len(row.held) :], *coming]
        assert isinstance(self._cache, CountedCache)
        self._cache.append(row.number, len(new) - num_open)
        row.held.extend(new[: len(new) - num_open])

    def reserve(self, sequence: Followed, num_tokens: int) -> int:
        """Make room for so many tokens of a sequence; the pages that they take."""
        return self._paged.reserve(self._rows[sequence.id].number, num_tokens)

    def slot(self, sequence: Followed) -> int:
        """Where the device finds the pages of a sequence."""
        return self._paged.slot(self._rows[sequence.id].number)

    @property
    def _paged(self) -> PagedCache:
        assert isinstance(self._cache, PagedCache)
        return self._cache

    def forward(
        self,
        sequences: Sequence[Followed],
        tokens: Sequence[Sequence[int]],
        parents: Sequence[Sequence[int]] | None = None,
    ) -> Float[Tensor, "batch rows vocab"]:
        """Append tokens to the rows of sequences; logits after each of them.

        Args:
            sequences: Each at most once.
            tokens: Of each, one or more.
            parents: Of each, what its tokens follow, as in `Rows`; None is the one before. What
                the row goes on with `keep` says; else with as many of the first as are a chain.
        """
        assert parents is None or self.model.takes_trees
        rows = [self._rows[sequence.id] for sequence in sequences]
        for row in rows:
            self._forget_branches(row)
        are_known = max(map(max, tokens)) < self.model.traits.vocab_size
        readable = tokens if are_known else [self._readable(new) for new in tokens]
        numbers = [row.number for row in rows]
        logits = self._run(sequences, Rows(numbers, readable, parents))
        for index, (row, new) in enumerate(zip(rows, tokens, strict=True)):
            follows = range(-1, len(new) - 1) if parents is None else parents[index]
            stem = len(new) if parents is None else stem_of(follows)
            row.last = _Pass(len(row.held), tuple(new), follows, has_branches=stem < len(new))
            # Behind a branch the slots of a row hold no text.
            row.held.extend(new[:stem])
        return logits

    def _run(self, sequences: Sequence[Followed], batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        if self._log is None:
            return self.model.forward(self._cache, batch)
        model, log = self.model, self._log
        logits, states = model.forward_with_states(self._cache, batch, log.boundaries)
        for sequence, new, own in zip(sequences, batch.tokens, states, strict=True):
            if len(sequences) > 1:
                # A copy: the rest of the pass is not kept alive by it.
                own = own[: len(new)].clone()
            log.note(sequence.id, len(self._rows[sequence.id].held), own)
        return logits

    def keep(self, sequence: Followed, path: Sequence[int]) -> None:
        """Of the tokens of the last pass over a sequence keep some, and forget the rest.

        Args:
            sequence: Whose row has had nothing but that pass since.
            path: Which: indices into what was fed, each of a token that follows the one before it.
        """
        row = self._rows[sequence.id]
        last = row.last
        assert last is not None
        assert is_path(last.parents, path)
        row.last = None
        assert isinstance(self._cache, CountedCache)
        self._cache.keep(row.number, last.start, path)
        if self._log is not None:
            self._log.keep(sequence.id, last.start, path)
        row.held[last.start :] = [last.tokens[index] for index in path]

    def _forget_branches(self, row: _Row) -> None:
        """Forget what the last pass left of a tree, but for the part that is a chain."""
        if row.last is not None and row.last.has_branches:
            self._roll_back(row, len(row.held))
        row.last = None

    def _roll_back(self, row: _Row, length: int) -> None:
        self._cache.rollback(row.number, length)
        del row.held[length:]
        if self._log is not None:
            self._log.cut(row.sequence, length)

    def _open(self, sequence: Followed) -> _Row:
        row = self._rows[sequence.id] = _Row(sequence.id, self._cache.add(), [])
        if self.model.traits.is_encoder_decoder:
            self.model.encode(self._cache, row.number, self._readable(sequence.source))
        elif self._log is None and self._bounded and self._bounded.settings.shares_prefixes:
            # The newest token is always fed.
            settled = self._readable(sequence.tokens[:-1])
            try:
                row.num_recalled = self._bounded.recall(row.number, settled)
            except CacheFullError:
                del self._rows[sequence.id]
                self._cache.remove(row.number)
                raise
            row.held.extend(sequence.tokens[: row.num_recalled])
        return row

    def _remember(self, row: _Row, *, is_leaving: bool = False) -> None:
        if self._bounded is not None and self._bounded.settings.shares_prefixes:
            held = self._readable(row.held)
            self._bounded.remember(row.number, held, is_leaving=is_leaving)

    def _prefill(self, row: _Row, tokens: Sequence[int]) -> None:
        readable = self._readable(tokens)
        if self._log is None:
            self.model.prefill(self._cache, row.number, readable)
        else:
            for place, part in self.model.prompt_chunks(readable):
                states = self.model.extend_with_states(
                    self._cache, row.number, part, self._log.boundaries
                )
                self._log.note(row.sequence, len(row.held) + place, states)
        row.held.extend(tokens)

    def _readable(self, tokens: Sequence[int]) -> list[int]:
        """The ids, and 0 for those that only a padded twin of this vocabulary has."""
        # Whatever a draft model makes of it, its drafts may be wrong; a target knows all ids.
        size = self.model.traits.vocab_size
        return [token if token < size else 0 for token in tokens]
