"""Drafts of one round from several drafters: the engine's, and those of single sequences."""

from collections.abc import Sequence

import torch

from draftsmith.core.verdict import PAD_TOKEN
from draftsmith.drafters.contract import CheckedText, DraftContext, DraftState, open_state
from draftsmith.drafters.draft import Draft
from draftsmith.engine.control.contract import Pace
from draftsmith.engine.control.own import Holder
from draftsmith.engine.rounds.drafting import RoundContext
from draftsmith.errors import DraftError

__all__ = ["OwnDrafts"]


class OwnDrafts(DraftState):
    """Asks every sequence's own drafter, and the engine's for the others, as if they were one."""

    def __init__(self) -> None:
        self.common: DraftState | None = None
        """The engine's, if it has one."""
        self._states: dict[int, DraftState] = {}
        """Of sequences with a drafter of their own."""

    def beside(self, common: DraftState | None, sequences: Sequence[Holder]) -> "OwnDrafts":
        """These, with the engine's own drafter for the sequences that have none."""
        self.common = common
        for one in sequences:
            drafter = None if one.own_draft is None else one.own_draft.drafter
            if drafter is not None and one.id not in self._states:
                self._states[one.id] = open_state(drafter)
        return self

    def propose(self, context: DraftContext) -> Draft:
        """Everybody's drafts, in the order of the batch."""
        if not isinstance(context, RoundContext):
            raise DraftError("own drafters belong to the engine's rounds, not to a drafter's")
        views = context.sequences
        own = [row for row, view in enumerate(views) if view.id in self._states]
        shared = [row for row in range(len(views)) if row not in own]
        parts = [(self._states[views[row].id], [row]) for row in own]
        if self.common is not None and any(views[row].gamma for row in shared):
            parts.append((self.common, shared))
        drafts: list[tuple[list[int], Draft]] = []
        for state, rows in parts:
            part = _part(context, rows)
            drafts.append((rows, _checked(state.propose(part), part)))
        return _joined(context, drafts)

    @property
    def num_top_ids(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As many as the one wants that wants the most."""
        return max((state.num_top_ids for state in self._everybody()), default=0)

    def learn(self, checked: Sequence[CheckedText]) -> None:
        """Everybody hears of the sequences that are theirs."""
        for state in self._everybody():
            if not state.num_top_ids:
                continue
            own = {id for id, one in self._states.items() if one is state}
            is_common = state is self.common
            state.learn(
                [
                    one._replace(top_ids=[ids[: state.num_top_ids] for ids in one.top_ids])
                    for one in checked
                    if one.sequence in own or (is_common and one.sequence not in self._states)
                ]
            )

    def _everybody(self) -> list[DraftState]:
        return [*self._states.values(), *([] if self.common is None else [self.common])]

    def release(self, sequence: int) -> None:
        """Forget a sequence that has its own drafter; the engine's is told by the engine."""
        self._states.pop(sequence, None)


class _PartPace:
    """A pace for some sequences of a batch, which goes by the drafts of all."""

    def __init__(self, pace: Pace, context: RoundContext, rows: Sequence[int]) -> None:
        self._pace, self._turns, self._rows = pace, context.turns, rows

    def wanting(self, drafts: Sequence[Sequence[float]], rows: Sequence[int]) -> list[int]:
        """Those that should draw another token, by their places in the part."""
        del drafts
        everybody = [turn.confidences for turn in self._turns]
        found = set(self._pace.wanting(everybody, [self._rows[row] for row in rows]))
        return [row for row in rows if self._rows[row] in found]

    def least_confidence(self, row: int) -> float:
        """The sequence's."""
        return self._pace.least_confidence(self._rows[row])

    def lengths(self, drafts: Sequence[Sequence[float]]) -> list[int]:
        """All of each: the joined draft is cut, if any is."""
        return [len(draft) for draft in drafts]

    def nodes(
        self, drafts: Sequence[Sequence[float]], parents: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """All of each, as `lengths`."""
        del parents
        return [list(range(len(draft))) for draft in drafts]


def _part(context: RoundContext, rows: Sequence[int]) -> RoundContext:
    """The round as some of its sequences see it."""
    turns = [context.turns[row] for row in rows]
    pace = None if context.pace is None else _PartPace(context.pace, context, rows)
    return RoundContext(turns, context.vocab_size, context.device, pace, states=context.states_of)


def _checked(draft: Draft, part: RoundContext) -> Draft:
    """Refuse a part that does not fit its sequences; the joined draft is checked as any other."""
    num_rows = len(part.turns)
    if len(draft.tokens) != num_rows or len(draft.num_drafted) != num_rows:
        raise DraftError(f"a drafter gave {len(draft.tokens)} drafts for {num_rows} sequences")
    if draft.parents is not None:
        raise DraftError("a drafter proposed a tree beside other drafters: only chains are taken")
    return draft


def _joined(context: RoundContext, parts: Sequence[tuple[list[int], Draft]]) -> Draft:
    """The drafts of all parts as one of the whole batch."""
    num_rows, device = len(context.turns), context.device
    width = max((draft.tokens.shape[1] for _, draft in parts), default=0)
    tokens = torch.full((num_rows, width), PAD_TOKEN, dtype=torch.long, device=device)
    lengths = torch.zeros(num_rows, dtype=torch.long, device=device)
    has_laws = any(draft.probs is not None for _, draft in parts)
    vocab = context.vocab_size
    probs = torch.zeros(num_rows, width, vocab, device=device) if has_laws else None
    for rows, draft in parts:
        columns = draft.tokens.shape[1]
        tokens[rows, :columns] = draft.tokens.to(device)
        lengths[rows] = draft.num_drafted.to(device)
        if probs is not None:
            probs[rows, :columns] = draft.dense_probs(vocab).to(probs)
    return Draft(tokens, lengths, probs, confidences=_confidences(context, parts, has_laws))


def _confidences(
    context: RoundContext, parts: Sequence[tuple[list[int], Draft]], has_laws: bool
) -> list[Sequence[float]] | None:
    """Of a batch in which every draft tells them; drawn ones have told them as they were drawn."""
    if has_laws or any(turn.drawn for turn in context.turns):
        return None
    found: list[Sequence[float]] = [()] * len(context.turns)
    for rows, draft in parts:
        if draft.confidences is None:
            return None
        for row, sure in zip(rows, draft.confidences, strict=True):
            found[row] = sure
    return found
