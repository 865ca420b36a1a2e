"""Drafts of a known size: what a drafter proposes, and junk behind it, for rounds to be timed."""

from collections.abc import Sequence

from draftsmith.core.trees import ROOT
from draftsmith.drafters import Draft, DraftContext, Drafter, DraftState
from draftsmith.drafters.contract import CheckedText, SequenceView, open_state
from draftsmith.models.contract import LanguageModel

__all__ = ["Filled"]


class Filled(Drafter):
    """A deterministic drafter whose drafts are filled up to gamma tokens, of no worth.

    Args:
        inner: The drafter; None proposes nothing by itself.
        target: Whose ids are taken.
    """

    name = "filled"
    draws_from_law = False

    def __init__(self, inner: Drafter | None, target: LanguageModel) -> None:
        self._inner, self._vocab_size = inner, target.traits.vocab_size
        self.uses_torch_threads = inner is not None and inner.uses_torch_threads
        self.boundaries = () if inner is None else inner.boundaries

    def open(self) -> "_FilledState":
        """The inner drafter's state, if there is one."""
        inner = None if self._inner is None else open_state(self._inner)
        return _FilledState(inner, self._vocab_size)

    def propose(self, context: DraftContext) -> Draft:
        """As a state that knows no sequence."""
        return self.open().propose(context)


class _FilledState(DraftState):
    """The inner state, and junk behind what it proposes."""

    def __init__(self, inner: DraftState | None, vocab_size: int) -> None:
        self._inner, self._vocab_size = inner, vocab_size
        self.num_top_ids = 0 if inner is None else inner.num_top_ids
        self.followers = () if inner is None else inner.followers

    def propose(self, context: DraftContext) -> Draft:
        views = context.sequences
        tokens: list[list[int]] = [[] for _ in views]
        parents: Sequence[Sequence[int]] | None = None
        if self._inner is not None:
            draft = self._inner.propose(context)
            tokens, parents = draft.lists(), draft.parents
        rows = [self._filled(view, own) for view, own in zip(views, tokens, strict=True)]
        if parents is not None:
            # Behind a tree, junk stands beside its first guesses.
            pairs = zip(rows, parents, strict=True)
            parents = [[*own, *[ROOT] * (len(row) - len(own))] for row, own in pairs]
        return Draft.certain(rows, context.device, parents=parents)

    def learn(self, checked: Sequence[CheckedText]) -> None:
        """The inner drafter hears of the checks."""
        if self._inner is not None:
            self._inner.learn(checked)

    def release(self, sequence: int) -> None:
        """The inner drafter forgets it."""
        if self._inner is not None:
            self._inner.release(sequence)

    def _filled(self, view: SequenceView, tokens: Sequence[int]) -> list[int]:
        count = view.gamma - len(tokens)
        last = view.tokens[-1]
        return [*tokens, *((last + 1 + step) % self._vocab_size for step in range(count))]
