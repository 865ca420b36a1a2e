"""The draft of a round: what a drafter is shown, and what it may not propose."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.laws import NO_TOKEN
from draftsmith.core.sampling_table import LogitRows
from draftsmith.core.trees import ROOT, is_chain
from draftsmith.drafters.contract import DraftState, SequenceView
from draftsmith.drafters.draft import Draft
from draftsmith.engine.control.contract import Pace
from draftsmith.engine.rounds.breaches import breaches
from draftsmith.engine.rounds.draft_laws import fitted, law_with_mass, likeliest
from draftsmith.engine.rounds.growth import TreeGrowth
from draftsmith.engine.rounds.turn import Turn, noise_of_turns
from draftsmith.errors import DraftError
from draftsmith.kernels.cpu.sampling import has_mass, laws, points
from draftsmith.models.contract import LanguageModel

__all__ = ["Proposal", "RoundContext", "States", "propose"]

States: TypeAlias = Callable[[SequenceView], Float[Tensor, "tokens boundaries hidden"]]
"""Hands out the target's residual streams of a sequence."""


class RoundContext:
    """The engine's side of `DraftContext`.

    Args:
        turns: The batch.
        vocab_size: The target's.
        device: Where drafts are wanted.
        pace: Who ends drafts before they have gamma tokens, if anybody does.
        takes_trees: Whether the check that follows takes trees.
        states: Asked for the target's residual streams of a sequence.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        vocab_size: int,
        device: torch.device,
        pace: Pace | None = None,
        *,
        takes_trees: bool = False,
        states: States | None = None,
    ) -> None:
        self.turns = turns
        self.states_of = states
        """Asked for the target's residual streams of a sequence."""
        self._takes_trees = takes_trees
        self.vocab_size = vocab_size
        self._device = device
        self.pace = pace
        self._views = [turn.view for turn in turns]
        self._ended: set[int] = set()
        """Sequences whose drafts the pace has ended: none goes on again."""
        self._growth: TreeGrowth | None = None
        """The trees of this round, if a drafter grows some."""
        self.handed_out: Draft | None = None
        """What `drawn` returned last, whose laws need no look."""

    @property
    def sequences(self) -> Sequence[SequenceView]:
        """The batch, in order."""
        return self._views

    @property
    def device(self) -> torch.device:
        """Where the draft is wanted."""
        return self._device

    @property
    def takes_trees(self) -> bool:
        """Whether the check that follows takes trees."""
        return self._takes_trees

    def least_confidence(self, row: int) -> float:
        """Below which the pace checks no token."""
        return 0.0 if self.pace is None else self.pace.least_confidence(row)

    def states(self, row: int) -> Float[Tensor, "tokens boundaries hidden"]:
        """The target's residual streams of tokens that it has read since this was last asked."""
        if self.states_of is None:
            raise DraftError("hidden states are the engine's own target's, and of its rounds alone")
        return self.states_of(self._views[row])

    def draw(
        self,
        rows: Sequence[int],
        logits: Float[Tensor, "rows some_vocab"],
        confidences: Sequence[float] | None = None,
    ) -> list[int]:
        """Draw the next drafted token of some sequences, and record it with its law."""
        if confidences is not None and (
            len(confidences) != len(rows) or not all(0 <= one <= 1 for one in confidences)
        ):
            raise DraftError(
                f"a draw of {len(rows)} tokens takes a confidence from 0 to 1 for each, got "
                f"{list(confidences)!r:.80}"
            )
        if self.pace is not None:
            for row, confidence in zip(rows, confidences or _largest(logits), strict=True):
                self.turns[row].confidences.append(confidence)
        logits = logits.to(self._device)
        apart: list[tuple[int, int]] = []
        together: defaultdict[object, list[tuple[int, int]]] = defaultdict(list)
        for place, row in enumerate(rows):
            kind = _kind(self.turns[row])
            (apart if kind is None else together[kind]).append((place, row))
        for members in together.values():
            apart += self._draw_together(members, logits.unsqueeze(1))
        for place, row in apart:
            self._draw_apart(self.turns[row], logits[place : place + 1])
        return [self.turns[row].drawn[-1] for row in rows]

    def _draw_together(
        self, members: Sequence[tuple[int, int]], logits: Float[Tensor, "rows 1 some_vocab"]
    ) -> list[tuple[int, int]]:
        """Draw for sequences of one kind at once; those whose logits are no distribution."""
        turns = [self.turns[row] for _, row in members]
        rows = LogitRows(logits, [(place, 0) for place, _ in members], self.vocab_size)
        first = turns[0]
        found: Sequence[Tensor | None] = [None] * len(members)
        if first.draft_law.is_greedy:
            # The sync is the draft's own: its next pass needs the tokens.
            tokens = points(rows).tolist()
            is_law = [token != NO_TOKEN for token in tokens]
        else:
            cuts = [one for turn in turns if (one := turn.draft_law.cuts) is not None]
            drawn_from = laws(rows, cuts)
            found, is_law = list(drawn_from), has_mass(drawn_from).tolist()
            noise = noise_of_turns(turns)
            tokens = first.verifier.draw(drawn_from, noise, len(first.drawn)).tolist()
        left: list[tuple[int, int]] = []
        for member, turn, token, law, is_one in zip(
            members, turns, tokens, found, is_law, strict=True
        ):
            if is_one:
                self.record(turn, token, law)
            else:
                left.append(member)
        return left

    def _draw_apart(self, turn: Turn, logits: Float[Tensor, "1 some_vocab"]) -> None:
        """Draw for one sequence, by its law as it stands after its own prefix."""
        line = fitted(logits.float(), self.vocab_size)
        if turn.draft_law.is_greedy:
            self.record(turn, likeliest(turn, line, turn.drawn), None)
            return
        law = law_with_mass(turn, line, turn.drawn)
        # The sync is the draft's own: its next pass needs the token.
        token = int(turn.verifier.draw(law, turn.noise, len(turn.drawn)))
        self.record(turn, token, law[0])

    def wanting(self, rows: Sequence[int]) -> list[int]:
        """Those of some sequences for which it pays to draw another token, in order."""
        turns = self.turns
        open_rows = [
            row
            for row in rows
            if len(turns[row].drawn) < turns[row].view.gamma and not turns[row].has_ended
        ]
        if self.pace is None or not open_rows:
            return open_rows
        going = [row for row in open_rows if row not in self._ended]
        taken = self.pace.wanting([turn.confidences for turn in turns], going) if going else []
        self._ended.update(set(going) - set(taken))
        return taken

    def follow(self, rows: Sequence[int]) -> list[list[int]]:
        """Record what must follow the drafts of some sequences so far, which takes no draw."""
        return [self._follow(self.turns[row]) for row in rows]

    def _follow(self, turn: Turn) -> list[int]:
        found = turn.forced_after(turn.drawn, turn.view.gamma - len(turn.drawn))
        for token in found:
            law = None if turn.draft_law.is_greedy else self._point_mass(token)
            self.record(turn, token, law)
            if self.pace is not None:
                turn.confidences.append(1.0)
        return found

    def _point_mass(self, token: int) -> Float[Tensor, " vocab"]:
        law = torch.zeros(self.vocab_size, device=self._device)
        law[token] = 1.0
        return law

    def record(self, turn: Turn, token: int, law: Float[Tensor, " vocab"] | None) -> None:
        """Add a token and the law that it was drawn from (None: certain) to a sequence's draft."""
        if len(turn.drawn) >= turn.view.gamma:
            raise DraftError(f"a drafter drew more than gamma = {turn.view.gamma} tokens")
        turn.drawn.append(token)
        if law is not None and turn.verifier.needs_draft_probs:
            turn.laws.append(law)

    def grow(self, rows: Sequence[int], branches: int, depth: int | None = None) -> TreeGrowth:
        """Grow trees in the place of chains."""
        if not self._takes_trees:
            raise DraftError("a drafter grows trees where only chains are checked: takes_trees")
        if self._growth is not None or any(turn.drawn for turn in self.turns):
            raise DraftError("a drafter grows trees once a round, and draws nothing beside them")
        where = self.vocab_size, self._device
        how = self.wanting, rows, branches, self.pace, depth
        self._growth = TreeGrowth(self.turns, *where, *how)
        return self._growth

    def drawn(self) -> Draft:
        """Everything that was drawn in this round."""
        if self._growth is not None:
            self.handed_out = self._growth.draft()
            return self.handed_out
        draft = Draft.certain([turn.drawn for turn in self.turns], self._device)
        if any(turn.laws for turn in self.turns):
            draft = Draft(draft.tokens, draft.num_drafted, self._probs(draft))
        self.handed_out = draft
        return draft

    def _probs(self, draft: Draft) -> Float[Tensor, "batch gamma vocab"]:
        probs = torch.empty(*draft.tokens.shape, self.vocab_size, device=self._device)
        for row, turn in enumerate(self.turns):
            for column, law in enumerate(turn.laws):
                probs[row, column] = law
            probs[row, len(turn.laws) :] = 0.0
            if turn.draft_law.is_greedy:
                probs[row, range(len(turn.drawn)), turn.drawn] = 1.0
        return probs


def _largest(logits: Float[Tensor, "rows some_vocab"]) -> list[float]:
    """The chance of each row's likeliest token."""
    # The sync is the draft's own: its next pass needs the token, which comes later.
    largest = logits.float().softmax(dim=-1).amax(dim=-1)
    # A law that is none is trusted not at all.
    return largest.nan_to_num(nan=0.0).tolist()


def _kind(turn: Turn) -> object:
    """What sequences must have in common to draw together; None for one that draws alone."""
    if turn.draft_law.cuts is None:
        return None
    if turn.draft_law.is_greedy:
        return "greedy"
    return id(turn.verifier), len(turn.drawn), turn.level, turn.inner_round


class Proposal(NamedTuple):
    """A draft that keeps the contract, as lists too."""

    draft: Draft
    tokens: list[list[int]]
    """The drafted ids of each sequence."""
    parents: list[list[int] | None] | None = None
    """Of each sequence whose draft is a tree, the index of the token that each follows; None for a
    chain, and for a batch of chains."""

    def parents_of(self, index: int) -> list[int] | None:
        """Of one sequence's draft, if it is a tree."""
        return None if self.parents is None else self.parents[index]


def propose(
    target: LanguageModel,
    drafter: DraftState | None,
    name: str,
    turns: Sequence[Turn],
    pace: Pace | None = None,
    states: States | None = None,
) -> Proposal:
    """One proposal for each sequence, within the contract; empty where none is wanted.

    Args:
        target: Whose vocabulary and device it is for.
        drafter: What guesses, if anything does.
        name: The drafter's, for errors.
        turns: The batch.
        pace: Who ends drafts early.
        states: Asked for the target's residual streams.

    Raises:
        DraftError: If what is proposed fits no batch.
    """
    if drafter is None or not any(turn.view.gamma for turn in turns):
        nothing: list[list[int]] = [[] for _ in turns]
        return Proposal(Draft.certain(nothing, target.device), nothing)
    takes_trees = target.takes_trees and all(map(_takes_tree, turns))
    vocab_size = target.traits.vocab_size
    context = RoundContext(
        turns, vocab_size, target.device, pace, takes_trees=takes_trees, states=states
    )
    draft = drafter.propose(context)
    if isinstance(draft, Draft) and draft.is_listed:  # pyright: ignore[reportUnnecessaryIsInstance] # users'
        nothing = draft.lists()
        if len(nothing) == len(turns) and not any(nothing):
            # Most rounds of a draft that is asked for as long as it costs next to nothing.
            return Proposal(draft, nothing)
    proposal = checked(draft, context, name)
    if pace is None or draft.confidences is None or draft.probs is not None:
        return proposal
    sure = [
        [] if turn.fault else list(confidences)
        for turn, confidences in zip(turns, draft.confidences, strict=True)
    ]
    for turn, confidences in zip(turns, sure, strict=True):
        turn.confidences += confidences
    if proposal.parents is not None:
        return _cut_trees(proposal, turns, pace, target.device)
    lengths = pace.lengths(sure)
    tokens = [row[:length] for row, length in zip(proposal.tokens, lengths, strict=True)]
    return Proposal(Draft.certain(tokens, target.device), tokens)


def _takes_tree(turn: Turn) -> bool:
    """Whether the target's own token can be asked for along any path of a draft."""
    # Forced tokens are put around chains; what lenience spares is read from a whole chain.
    is_plain = turn.constraint is None and turn.lenience is None
    return is_plain and turn.verifier.takes_trees


def _cut_trees(
    proposal: Proposal, turns: Sequence[Turn], pace: Pace, device: torch.device
) -> Proposal:
    """The tokens that are worth checking, of drafts of which some are trees."""
    every = [
        proposal.parents_of(index) or list(range(-1, len(tokens) - 1))
        for index, tokens in enumerate(proposal.tokens)
    ]
    nodes = pace.nodes([turn.confidences for turn in turns], every)
    tokens: list[list[int]] = []
    parents: list[list[int]] = []
    for turn, drafted, above, taken in zip(turns, proposal.tokens, every, nodes, strict=True):
        number = {ROOT: ROOT} | {node: place for place, node in enumerate(taken)}
        tokens.append([drafted[node] for node in taken])
        parents.append([number[above[node]] for node in taken])
        left = sorted(set(range(len(drafted))) - set(taken))
        turn.confidences = [turn.confidences[node] for node in (*taken, *left)]
    return Proposal(Draft.certain(tokens, device, parents=parents), tokens, _trees(parents))


def _trees(parents: Sequence[Sequence[int]]) -> list[list[int] | None] | None:
    """Those that are no chains; None if all are."""
    found = [None if is_chain(one) else list(one) for one in parents]
    return found if any(one is not None for one in found) else None


def checked(draft: Draft, context: RoundContext, name: str) -> Proposal:
    """The draft as lists; what it breaks in one sequence is noted there, and nothing of it kept.

    Raises:
        DraftError: If it fits no batch.
    """
    turns = context.turns
    is_own = draft is context.handed_out
    found = breaches(
        draft,
        turns,
        context.vocab_size,
        name,
        are_laws_known=is_own,
        takes_trees=context.takes_trees,
    )
    for row, why in found.items():
        turns[row].fault = why
    tokens = [
        [] if turn.fault else drafted for turn, drafted in zip(turns, draft.lists(), strict=True)
    ]
    if draft.parents is None:
        return Proposal(draft, tokens)
    parents = [[] if turn.fault else p for turn, p in zip(turns, draft.parents, strict=True)]
    return Proposal(draft, tokens, _trees(parents))
