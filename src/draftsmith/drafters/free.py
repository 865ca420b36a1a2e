"""A draft without a model that learns: from the text, from past texts, from every check.

Three sources: a suffix automaton of the text itself, one of texts that have ended, and token
recycling. Their guesses are merged into one tree, best first; how likely each is right is learnt as
guesses come true.
"""

from collections.abc import Sequence
from pathlib import Path

from draftsmith.core.values import require
from draftsmith.drafters.contract import (
    CheckedText,
    DraftContext,
    DraftState,
    SequenceView,
    StatefulDrafter,
)
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.memory import NOTHING, Memory, Proposed, Text
from draftsmith.drafters.native_memory import NativeMemory, has_native
from draftsmith.drafters.plain_memory import PlainMemory
from draftsmith.drafters.remembered import Identity, identity_of, load_memory, save_memory
from draftsmith.drafters.token_recycling import NUM_SUCCESSORS
from draftsmith.errors import InvalidRequestError, VocabularyMismatchError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["FreeDrafter"]

_LEAST_CHANCES = {"cpu": 0.06}
_LEAST_CHANCE = 0.02
"""Of a node: a row takes 6 to 9 % of a small model's plain pass on a CPU, and 1 to 2 % on a GPU."""
_ANY = -2
"""A token that is not known yet."""


class FreeDrafter(StatefulDrafter):
    """Guesses what followed before: in the text, in past texts, and in the target's own checks.

    Where the end of the text matches a long stretch, that is copied; else the likeliest guesses of
    all sources make a tree, or a chain where the engine takes no trees. Its engines share what it
    has learnt, in bounded memory. The draft is deterministic, given what was seen before.

    Args:
        memory: A file that what was learnt is read from, if it is there, and that `save` writes;
            None keeps it while the drafter lives. It holds tokens of the texts that passed through.

    Raises:
        InvalidRequestError: If `memory` is no path.

    Example:
        >>> import draftsmith
        >>> engine = draftsmith.load_engine("smollm2-135m-instruct", FreeDrafter(), gamma=4)
        >>> engine.draft.name
        'free'
    """

    name = "free"
    uses_torch_threads = False
    draws_from_law = False

    def __init__(self, memory: str | Path | None = None) -> None:
        self._memory = _new_memory()
        self._path = None if memory is None else _as_path(memory)
        self._target: Identity | None = None
        self._alone = _Alone()

    def open(self) -> "_Free":
        """No text yet; what was learnt from others is shared.

        Raises:
            InvalidRequestError: If it has a file, and nobody has said whose that is.
        """
        if self._path is not None and self._target is None:
            raise InvalidRequestError(
                f"memory={str(self._path)!r} is read for one target, which load_engine tells the "
                "drafter: hand it to load_engine, or call its meet first"
            )
        return _Free(self._memory)

    def propose(self, context: DraftContext) -> Draft:
        """Draft from the very texts of the round: what was learnt of others is not asked.

        Engines ask the state that `open` gives; here a replay asks, which shows the same text again
        and again, and must not be told what is to come.

        Args:
            context: The round.

        Returns:
            A proposal for each sequence.
        """
        return self._alone.propose(context)

    def fresh(self) -> "FreeDrafter":
        """Another drafter, for a measurement of its own.

        Returns:
            One that knows what the file says and no more.
        """
        other = FreeDrafter(self._path)
        other._target = self._target
        other.forget()
        return other

    def meet(self, target: LanguageModel, tokenizer: Tokenizer | None) -> None:
        """Say what it drafts for, and read the file of that; `load_engine` does.

        Args:
            target: The model.
            tokenizer: Its own.

        Raises:
            InvalidRequestError: If there is no folder for the file.
            ModelFormatError: If the file is no memory, or not whole.
            VocabularyMismatchError: If it is another model's.
        """
        if self._path is None:
            return
        identity = identity_of(target, tokenizer)
        if self._target is None:
            load_memory(self._memory, self._path, identity)
            self._target = identity
        elif identity != self._target:
            raise VocabularyMismatchError(
                f"memory {self._path} is of {self._target.name}, and the target is "
                f"{identity.name}: make another drafter"
            )

    def save(self) -> None:
        """Write what was learnt to the file, in one step; without one, nothing.

        Raises:
            InvalidRequestError: If it cannot be written.
        """
        if self._path is not None and self._target is not None:
            save_memory(self._memory, self._path, self._target)

    def forget(self) -> None:
        """Know what the file says and no more, as a measurement does before it asks again."""
        with self._memory.lock:
            self._memory.forget()
        if self._path is not None and self._target is not None:
            load_memory(self._memory, self._path, self._target)


class _Alone(StatefulDrafter):
    """Each text by itself, and nothing of it kept."""

    def open(self) -> "_Free":
        return _Free(_new_memory(), is_kept=False)


class _Sequence:
    """One text."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.last: tuple[int, int] = (-1, -1)
        """The last two tokens of a text that is to be checked."""

    def before(self, checked: Sequence[int]) -> int:
        """The token before those that were checked; -1 where nobody knows."""
        before, newest = self.last
        # Of plain rounds in a row nothing is proposed; each leaves the next one its token.
        self.last = (checked[0], _ANY) if len(checked) == 1 else (-1, -1)
        return before if newest in (checked[0], _ANY) else -1


class _Free(DraftState):
    """The texts of one engine."""

    num_top_ids = NUM_SUCCESSORS

    def __init__(self, memory: Memory, *, is_kept: bool = True) -> None:
        self._memory = memory
        self._is_kept = is_kept
        self._sequences: dict[int, _Sequence] = {}

    def propose(self, context: DraftContext) -> Draft:
        """A copy, a tree or a chain for each sequence that wants one."""
        takes_trees = context.takes_trees
        least = _LEAST_CHANCES.get(context.device.type, _LEAST_CHANCE)
        with self._memory.lock:
            found = [
                self._propose(view, max(least, context.least_confidence(row)), is_tree=takes_trees)
                for row, view in enumerate(context.sequences)
            ]
        return Draft.certain(
            [one.tokens for one in found],
            context.device,
            [one.confidences for one in found],
            [one.parents for one in found] if takes_trees else None,
        )

    def learn(self, checked: Sequence[CheckedText]) -> None:
        """Keep the successors of every token that the target has read."""
        with self._memory.lock:
            for one in checked:
                known = self._sequences.get(one.sequence)
                before = -1 if known is None else known.before(one.tokens)
                self._memory.note(before, one)

    def release(self, sequence: int) -> None:
        """Keep the text of a sequence for those that come."""
        one = self._sequences.pop(sequence, None)
        if one is not None and self._is_kept:
            with self._memory.lock:
                self._memory.keep(one.text)

    def _propose(self, view: SequenceView, least: float, *, is_tree: bool) -> Proposed:
        tokens = view.tokens
        one = self._sequences.get(view.id)
        if one is None:
            text = self._memory.open_text(view.source)
            one = self._sequences[view.id] = _Sequence(text)
        one.last = (tokens[-2] if len(tokens) > 1 else -1, tokens[-1])
        if not view.gamma:
            return NOTHING
        return one.text.propose(tokens, view.gamma, least, is_tree=is_tree)


def _new_memory() -> Memory:
    return NativeMemory() if has_native() else PlainMemory()


def _as_path(given: object) -> Path:
    is_place = isinstance(given, Path | str) and given != ""
    require(is_place, "memory", "the path of a file, or None", given)
    return Path(str(given))
