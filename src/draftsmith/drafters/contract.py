"""The contract of a drafter: one method, which guesses the next few tokens of each sequence.

Any drafter is safe by construction: a wrong guess costs speed, never correctness, as long as the
law that it reports is the law that its tokens were drawn from. `DraftContext.draw` sees to that.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.trees import Growth
from draftsmith.models.follower import Follower

__all__ = [
    "CheckedText",
    "DraftContext",
    "DraftState",
    "Drafter",
    "SequenceView",
    "StatefulDrafter",
    "open_state",
]


class SequenceView(NamedTuple):
    """What a drafter may know of one sequence."""

    id: int
    """The same from round to round, never used again for another sequence."""
    tokens: Sequence[int]
    """Committed tokens, prompt and output; for an encoder-decoder, the decoder's."""
    num_prompt: int
    """How many of `tokens` are the prompt."""
    source: Sequence[int]
    """The encoder's tokens; empty for a decoder-only model."""
    gamma: int
    """At most this many tokens are wanted; 0 wants none."""


@runtime_checkable
class DraftContext(Protocol):
    """One round, as the drafter sees it.

    Example:
        >>> import torch
        >>> class Favourite(Drafter):
        ...     def propose(self, context):
        ...         live = context.wanting(range(len(context.sequences)))
        ...         while live:
        ...             logits = torch.zeros(len(live), 8)
        ...             logits[:, 3] = 2.0
        ...             context.draw(live, logits)
        ...             live = context.wanting(live)
        ...         return context.drawn()
        >>> from draftsmith.testing import check_drafter
        >>> check_drafter(Favourite(), vocab_size=8, num_draws=64)
    """

    @property
    def sequences(self) -> Sequence[SequenceView]:
        """The batch, in order."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the draft is wanted."""
        ...

    @property
    def takes_trees(self) -> bool:
        """Whether this round checks trees: else only drafts without `parents` are taken."""
        ...

    def least_confidence(self, row: int) -> float:
        """Below which no token of a sequence's deterministic draft is worth its row.

        Args:
            row: An index into `sequences`.

        Returns:
            From 0 to 1; 0 where every token is checked, as with a fixed gamma. Gamma "auto" goes by
            what confidences have been worth.
        """
        ...

    def states(self, row: int) -> Float[Tensor, "tokens boundaries hidden"]:
        """The target's residual streams at the drafter's `boundaries`, in float32.

        Args:
            row: An index into `sequences`.

        Returns:
            Those of the committed tokens that the target has read since this was last asked for
            the sequence, in order, each token's once. The newest token is not among them: the
            target has not read it.
        """
        ...

    def draw(
        self,
        rows: Sequence[int],
        logits: Float[Tensor, "rows some_vocab"],
        confidences: Sequence[float] | None = None,
    ) -> list[int]:
        """Draw the next drafted token of some sequences, and record it with its law.

        The logits go through the target's own sampling transform (with the draft's settings where
        the request has some) and the prefix that holds if everything drawn before is kept; ids
        that the target does not know lose their mass.

        Args:
            rows: Indices into `sequences`, each with room left for a token.
            logits: The drafter's logits, a row for each of them.
            confidences: How sure it is of each token before it is drawn, from 0 to 1, for gamma
                "auto" to learn from; None takes the chance of the likeliest one.

        Returns:
            The drawn ids.
        """
        ...

    def wanting(self, rows: Sequence[int]) -> list[int]:
        """Those of some sequences for which it pays to draw another token, in order.

        Where gamma is a number, those with fewer tokens than that. Where it is "auto", a draft
        also ends when it has become unlikely to be kept; then it has ended for this round. Ask
        for all sequences that go on at once, after each of their tokens.

        Args:
            rows: Indices into `sequences`.

        Returns:
            Some of them.
        """
        ...

    def follow(self, rows: Sequence[int]) -> list[list[int]]:
        """Record what must follow the drafts of some sequences so far, which takes no draw.

        Where a text has a form (`structured_outputs`), some tokens are known beforehand. A drafter
        that reads its own drafts takes them in along with the token that it drew.

        Args:
            rows: Indices into `sequences`.

        Returns:
            The recorded ids of each; mostly none.
        """
        ...

    def grow(self, rows: Sequence[int], branches: int, depth: int | None = None) -> Growth:
        """Grow a tree for each of some sequences, in the place of `draw`, `wanting` and `follow`.

        Ask for `tips`, read them, `branch` from the logits, until there are none; then `drawn` has
        the trees, of at most gamma tokens each. Tokens are drawn as `draw` draws them, siblings
        without replacement; where nothing is drawn they are the likeliest, and under `coupled`
        those that come in first in the race that the target will run.

        Args:
            rows: Indices into `sequences`.
            branches: Children of a token, at most.
            depth: Tokens of a path, at most; None for as many as the tree may have.

        Returns:
            The trees.

        Raises:
            DraftError: Unless `takes_trees`.
        """
        ...

    def drawn(self) -> Draft:
        """Everything that was recorded in this round.

        Returns:
            The draft to hand back from `Drafter.propose`.
        """
        ...


class CheckedText(NamedTuple):
    """What a check has shown of one sequence, kept or not."""

    sequence: int
    """`SequenceView.id`."""
    tokens: Sequence[int]
    """What the target has read: the newest committed token, then the drafted ones."""
    parents: Sequence[int]
    """Of each, the index of the one that it follows; -1 for the first."""
    top_ids: Sequence[Sequence[int]]
    """Behind each, the target's likeliest next ids, the likeliest first."""


class DraftState(ABC):
    """What a drafter keeps of the sequences of one engine: their cache rows, their n-grams."""

    num_top_ids: int = 0
    """How many of the target's likeliest ids `learn` wants to hear of; 0 asks for nothing."""

    followers: Sequence[Follower] = ()
    """Of the models that it runs: the engine bounds what their caches hold, and closes rows of
    sequences that have to wait for memory; they are read again later."""

    @abstractmethod
    def propose(self, context: DraftContext) -> Draft:
        """Guess up to `gamma` tokens for each sequence, as `Drafter.propose` says.

        Args:
            context: The round.

        Returns:
            A proposal for each sequence; it may be empty.
        """

    def learn(self, checked: Sequence[CheckedText]) -> None:  # noqa: B027 - most do not
        """Hear what a round's check has shown, before the round is committed.

        Args:
            checked: Of each sequence that was checked; only called where `num_top_ids` is set.
        """

    def discard(self) -> None:  # noqa: B027 - nothing is kept, nothing to forget
        """Forget all sequences: nobody asks again, but an error that is kept may keep this."""

    def release(self, sequence: int) -> None:  # noqa: B027 - nothing is kept, nothing to forget
        """Forget a sequence that has ended.

        Args:
            sequence: Its `SequenceView.id`; it may be one that was never seen.
        """


class _Direct(DraftState):
    """A drafter that keeps nothing, or looks after what it keeps by itself."""

    def __init__(self, drafter: "Drafter") -> None:
        self._drafter = drafter

    def propose(self, context: DraftContext) -> Draft:
        return self._drafter.propose(context)


class _OwnName:
    """The name of the class that it is looked up on."""

    def __get__(self, instance: object, owner: type) -> str:
        return owner.__name__


class Drafter(ABC):
    """Guesses the next tokens.

    Example:
        >>> from draftsmith.drafters import Draft, Drafter
        >>> class Repeat(Drafter):
        ...     def propose(self, context):
        ...         rows = [[s.tokens[-1]] * s.gamma for s in context.sequences]
        ...         return Draft.certain(rows, context.device)
        >>> from draftsmith.testing import check_drafter
        >>> check_drafter(Repeat(), vocab_size=8, num_draws=64)
    """

    name: str = cast(str, _OwnName())
    """For messages and tables; by default the class's."""
    uses_torch_threads: bool = True
    """Whether it gains from torch's threads; False if they would only be in the way."""
    draws_from_law: bool = True
    """Whether tokens are drawn from a law (`DraftContext.draw`), which the draft's own temperature
    would change; False for one that proposes without chance."""
    branches: int = 1
    """Guesses for each position at most, of one that grows trees (`DraftContext.grow`); 1 of one
    that drafts chains, or trees of its own making."""
    longest: int = MAX_GAMMA
    """Tokens that it can draft one behind another, at most: a chain of more is refused."""
    boundaries: tuple[int, ...] = ()
    """Where `DraftContext.states` looks at the target's residual stream: 0 is the embeddings, b the
    stream behind b layers, before the final norm. Only for targets that hand it out."""

    @abstractmethod
    def propose(self, context: DraftContext) -> Draft:
        """Guess up to `gamma` tokens for each sequence.

        Ask `context.wanting` who wants another token. If you stop by a rule of your own, it may
        look at everything but the token that it leaves out: a token that was drawn must be
        proposed, unless the draft is deterministic (`Draft.certain`) or the verifier is `coupled`.

        Args:
            context: The round: what was committed, how much is wanted, and where to draw.

        Returns:
            A proposal for each sequence; it may be empty.
        """

    def open(self) -> DraftState:
        """What one engine asks in every round; by default `propose` itself.

        A drafter that keeps something for each sequence returns a state of its own here, so that
        engines that share the drafter do not share that.

        Returns:
            A state without sequences.
        """
        return _Direct(self)


class StatefulDrafter(Drafter):
    """A drafter that keeps something for each sequence, in the states that `open` returns.

    Example:
        >>> class Counting(StatefulDrafter):
        ...     def open(self):
        ...         return CountingState()
        >>> class CountingState(DraftState):
        ...     def __init__(self):
        ...         self.rounds = {}
        ...     def propose(self, context):
        ...         for view in context.sequences:
        ...             self.rounds[view.id] = self.rounds.get(view.id, 0) + 1
        ...         return context.drawn()
        ...     def release(self, sequence):
        ...         self.rounds.pop(sequence, None)
        >>> from draftsmith.testing import check_drafter
        >>> check_drafter(Counting(), vocab_size=8, num_draws=64)
    """

    _own: tuple[DraftState, set[int]] | None = None
    """The state that `propose` asks, and the sequences that it knows."""

    @abstractmethod
    def open(self) -> DraftState:
        """A state without sequences, for one engine."""

    def propose(self, context: DraftContext) -> Draft:
        """Ask a state of the drafter's own, which keeps the sequences of this call only.

        Args:
            context: The round.

        Returns:
            A proposal for each sequence.
        """
        state, held = self._own or (self.open(), set[int]())
        # Not kept if anything is raised: a pass that was cut off may have left it half done.
        self._own = None
        present = {view.id for view in context.sequences}
        for gone in held - present:
            state.release(gone)
        draft = state.propose(context)
        self._own = (state, present)
        return draft


def open_state(drafter: Drafter) -> DraftState:
    """A drafter's state for one engine.

    Args:
        drafter: Its `open` is asked, unless a subclass has put a `propose` of its own over it.

    Returns:
        A state without sequences.
    """
    kinds = type(drafter).__mro__
    proposes, opens = (
        next(place for place, kind in enumerate(kinds) if name in vars(kind))
        for name in ("propose", "open")
    )
    return _Direct(drafter) if proposes < opens else drafter.open()
