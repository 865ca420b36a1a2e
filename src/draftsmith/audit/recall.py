"""A trained head whose laws are computed once behind each text, so that many samples are cheap.

A head's next law is decided by the text and by what it has drafted so far. It is asked in a round
of its own where that comes first, and remembered; drawing, verdicts and commits run each time.
"""

from collections.abc import Sequence
from typing import NamedTuple, NoReturn, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters import Draft
from draftsmith.drafters.contract import DraftContext, DraftState, SequenceView, StatefulDrafter

__all__ = ["Recalled"]

_Step: TypeAlias = tuple[int, ...]
"""A drafted token, and those that followed it without a draw."""
_Text: TypeAlias = tuple[tuple[int, ...], int, tuple[_Step, ...]]
"""What is committed, the tokens that are wanted, and the steps of the draft so far."""


class _Law(NamedTuple):
    """What a head says of one token."""

    logits: Float[Tensor, " some_vocab"]
    confidence: float | None


class Recalled(StatefulDrafter):
    """The inner head's laws, each from the first time that it is asked for.

    Args:
        inner: A head that drafts chains, and of a text the same in any company.
    """

    def __init__(self, inner: StatefulDrafter) -> None:
        self.inner = inner
        self.name = inner.name
        self.boundaries, self.longest = inner.boundaries, inner.longest
        self.uses_torch_threads = inner.uses_torch_threads
        self.known: dict[_Text, _Law | None] = {}
        """None where the head has no more to say."""

    def open(self) -> "_State":
        """A state over the same laws."""
        return _State(self)


class _State(DraftState):
    """The states that the target has handed out, for texts that are new."""

    def __init__(self, drafter: Recalled) -> None:
        self._drafter = drafter
        self._handed: dict[int, list[Tensor]] = {}

    def propose(self, context: DraftContext) -> Draft:
        """Draw from the laws in order, as the head does."""
        drafts: dict[int, tuple[_Step, ...]] = {
            row: () for row, view in enumerate(context.sequences) if view.gamma > 0
        }
        while live := context.wanting(list(drafts)):
            laws = {row: self._law(context, row, drafts[row]) for row in live}
            found = {row: law for row, law in laws.items() if law is not None}
            if not found:
                break
            rows = list(found)
            sure = [law.confidence for law in found.values() if law.confidence is not None]
            logits = torch.stack([law.logits for law in found.values()])
            drawn = context.draw(rows, logits, sure if len(sure) == len(rows) else None)
            steps = zip(rows, drawn, context.follow(rows), strict=True)
            drafts = {row: (*drafts[row], (token, *known)) for row, token, known in steps}
        return context.drawn()

    def release(self, sequence: int) -> None:
        """Forget a sequence's states."""
        self._handed.pop(sequence, None)

    def _law(self, context: DraftContext, row: int, draft: tuple[_Step, ...]) -> _Law | None:
        view, known = context.sequences[row], self._drafter.known
        text = tuple(view.tokens)
        if (text, view.gamma, draft) not in known:
            handed = self._handed.setdefault(view.id, [])
            handed.append(context.states(row))
            round_ = _Round(view, torch.cat(handed), draft, context.device)
            self._drafter.inner.open().propose(round_)
            laws = [*round_.laws, *[None] * (len(draft) + 1)][: len(draft) + 1]
            known.update(((text, view.gamma, draft[:n]), law) for n, law in enumerate(laws))
        return known[text, view.gamma, draft]


class _Round:
    """A `DraftContext` of one sequence whose draft is known, but for the last token.

    Args:
        view: The sequence.
        states: The target's, of all tokens that it has read.
        draft: What is drawn.
        device: Where drafts are wanted.
    """

    takes_trees = False

    def __init__(
        self, view: SequenceView, states: Tensor, draft: Sequence[_Step], device: torch.device
    ) -> None:
        self.sequences: Sequence[SequenceView] = [view]
        self.device = device
        self.laws: list[_Law] = []
        """Those of the draft's tokens, and that of the token behind them."""
        self._states: Tensor = states
        self._draft = draft

    def least_confidence(self, row: int) -> float:
        """Every token is worth its row."""
        del row
        return 0.0

    def states(self, row: int) -> Float[Tensor, "tokens boundaries hidden"]:
        """All of them at once, then none."""
        del row
        states, self._states = self._states, self._states[:0]
        return states

    def draw(
        self,
        rows: Sequence[int],
        logits: Float[Tensor, "rows some_vocab"],
        confidences: Sequence[float] | None = None,
    ) -> list[int]:
        """The draft's next token; behind its end whatever."""
        place = len(self.laws)
        sure = None if confidences is None else confidences[0]
        self.laws.append(_Law(logits[0].clone(), sure))
        return [self._draft[place][0] if place < len(self._draft) else 0 for _ in rows]

    def wanting(self, rows: Sequence[int]) -> list[int]:
        """The sequence, until all is said."""
        return list(rows) if len(self.laws) <= len(self._draft) else []

    def follow(self, rows: Sequence[int]) -> list[list[int]]:
        """What followed the token that was drawn last."""
        place = len(self.laws) - 1
        known = list(self._draft[place][1:]) if place < len(self._draft) else []
        return [known for _ in rows]

    def grow(self, rows: Sequence[int], branches: int, depth: int | None = None) -> NoReturn:
        """No trees."""
        raise AssertionError("a head that drafts chains grows no trees")

    def drawn(self) -> Draft:
        """Nothing that anybody looks at."""
        return Draft.certain([[]], self.device)
