"""What a drafter would have done along a text that the target has written.

The text is what the target says, so each guess is right or wrong by the text itself, and no check
is run, but for drafters that learn from checks. With the `coupled` verifier, and at temperature 0,
the rounds are the very rounds of the engine; so they are in law where nothing is drawn. The other
verifiers keep a drawn token with a probability, which `overlap` holds.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.laws import NO_TOKEN
from draftsmith.core.statistics import RoundRecord
from draftsmith.core.trees import ROOT, walk
from draftsmith.drafters.contract import (
    Drafter,
    DraftState,
    SequenceView,
    open_state,
)
from draftsmith.engine.requests.request import Request
from draftsmith.engine.requests.sequence import Sequence
from draftsmith.engine.rounds.breaches import check_contract
from draftsmith.engine.rounds.drafting import Proposal, RoundContext, States, propose
from draftsmith.engine.rounds.lessons import teach
from draftsmith.engine.rounds.turn import Turn
from draftsmith.engine.rounds.verdicts import check_drafts
from draftsmith.engine.threads import one_torch_thread
from draftsmith.errors import DraftError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.follower import Follower

__all__ = [
    "Guess",
    "Replayed",
    "Text",
    "Told",
    "guesses",
    "read",
    "rounds",
    "rounds_by_law",
    "rounds_from_guesses",
]


class Text(NamedTuple):
    """A request that was served: its text under this seed."""

    request: Request
    seed: int
    output: tuple[int, ...]

    @property
    def room(self) -> int:
        """Tokens that the text could still have had: it ended by itself."""
        return self.request.limits.max_tokens - len(self.output)


class Told(NamedTuple):
    """A text, and what the target computes along it."""

    text: Text
    laws: Float[Tensor, "tokens vocab"]
    """Before each token of the output."""
    states: Float[Tensor, "tokens boundaries hidden"] | None
    """The residual streams of all tokens but the last, for drafters that read them."""


class Guess(NamedTuple):
    """What was drafted for one position, after the very text before it."""

    token: int | None
    """None: nothing was proposed."""
    is_right: bool
    """Whether it is the token of the text."""
    overlap: float
    """Sum over ids of min(target law, draft law) there, which is the chance that the papers' rule
    keeps a draft (Leviathan et al., theorem 3.5); 0 where nothing was proposed."""
    is_certain: bool
    """Whether the drafter took no draw: what it proposes further on depends on where it began."""


class Replayed(NamedTuple):
    """A round along a text."""

    record: RoundRecord
    children: tuple[int, ...]
    """Of each kept token, how many guesses for its place stood before it: 0 in a chain."""


def read(target: LanguageModel, text: Text, boundaries: Many[int] = ()) -> Told:
    """Run the target once over a text.

    Args:
        target: Whose text it is.
        text: The text.
        boundaries: Of the residual streams that a drafter reads.
    """
    sequence = text.request.sequence(0, text.seed, target.device, None)
    follower = Follower(target)
    if boundaries:
        follower.hand_out(boundaries)
    ahead = text.output[:-1]
    with one_torch_thread(not target.uses_torch_threads):
        feed = follower.catch_up(sequence)
        logits = follower.forward([sequence], [[*feed, *ahead]])[0, len(feed) - 1 :].float()
        laws = sequence.turn(1).laws_after(logits, list(ahead))
    sequence.commit_round(list(text.output))
    states = follower.take_states(sequence).clone() if boundaries else None
    return Told(text, laws, states)


def guesses(target: LanguageModel, drafter: Drafter, told: Told) -> list[Guess]:
    """One guess for each token of a text.

    Args:
        target: Whose text it is; not run.
        drafter: Asked for one token at every position.
        told: The text, read for this drafter.
    """
    found: list[Guess] = []
    states = _handing(told)
    # As the engine runs; and what torch does between two guesses must not leave its threads
    # waiting for more, on the cores of the next.
    with _as_the_engine_runs(target, drafter):
        for number, (sequence, token) in enumerate(_positions(target, told.text)):
            turn = sequence.turn(1)
            # The last token of the room is never drafted, but a guess of it can be judged as well.
            turn.view = turn.view._replace(gamma=1)
            context = _LawContext([turn], target, states)
            draft = drafter.propose(context)
            check_contract(draft, context.turns, context.vocab_size, drafter.name)
            if not int(draft.num_drafted[0]):
                found.append(Guess(None, False, 0.0, not context.has_drawn))
                continue
            guessed = int(draft.tokens[0, 0])
            law = (
                context.law
                if context.law is not None
                else draft.dense_probs(context.vocab_size)[0, 0]
            )
            overlap = float(torch.minimum(told.laws[number], law).sum())
            found.append(Guess(guessed, guessed == token, overlap, not context.has_drawn))
    return found


def rounds(
    target: LanguageModel, drafter: Drafter, texts: Many[Told], gamma: int
) -> list[list[Replayed]]:
    """The rounds that a drafter would have led to, whose text is the same whatever it drafts.

    A drafter that learns is told of checks, one text after the other; for no other is the target
    run.

    Args:
        target: Whose texts they are.
        drafter: Asked for `gamma` tokens where a round begins; what it has learnt is kept.
        texts: Read for this drafter.
        gamma: Drafted tokens per round.
    """
    state = open_state(drafter)
    with _as_the_engine_runs(target, drafter):
        return [_rounds(target, state, drafter.name, told, gamma) for told in texts]


def rounds_by_law(
    target: LanguageModel,
    drafter: Drafter,
    texts: Many[Told],
    gamma: int,
    uniform: Callable[[], float],
) -> list[list[Replayed]]:
    """The rounds of a drafter of chains whose tokens are kept by the laws that they came from.

    The text's own tokens are taken for the drafted ones: each is kept with the chance of the
    overlap there, as the papers' rule keeps it.

    Args:
        target: Whose texts they are; not run.
        drafter: Asked for `gamma` tokens where a round begins.
        texts: Read for this drafter.
        gamma: Drafted tokens per round.
        uniform: Draws from 0 to 1.
    """
    state = open_state(drafter)
    with _as_the_engine_runs(target, drafter):
        return [_rounds_by_law(target, state, told, gamma, uniform) for told in texts]


def rounds_from_guesses(is_kept: Many[bool | None], gamma: int, room: int = 0) -> list[RoundRecord]:
    """The rounds of a drafter that was asked for one guess at every position.

    Args:
        is_kept: For each token of the text, whether the guess for it is kept; None for no guess.
        gamma: Drafted tokens per round.
        room: Tokens that the text could still have had.

    Example:
        >>> [record.num_committed for record in rounds_from_guesses([True, True, False, True], 2)]
        [3, 1]
    """
    found: list[RoundRecord] = []
    start = 0
    while start < len(is_kept):
        left = len(is_kept) - start
        wanted = min(gamma, left + room - 1)
        ahead = is_kept[start : start + wanted]
        num_drafted = next((i for i, kept in enumerate(ahead) if kept is None), wanted)
        num_accepted = next((i for i, kept in enumerate(ahead) if not kept), len(ahead))
        found.append(_record(num_drafted, num_accepted, left))
        start += found[-1].num_committed
    return found


def _rounds(
    target: LanguageModel, state: DraftState, name: str, told: Told, gamma: int
) -> list[Replayed]:
    found: list[Replayed] = []
    states, output = _handing(told), told.text.output
    checker = Follower(target) if state.num_top_ids else None
    next_start, last = 0, -1
    for number, (sequence, _) in enumerate(_positions(target, told.text)):
        last = sequence.id
        if number < next_start:
            continue
        turn = sequence.turn(gamma)
        proposal = propose(target, state, name, [turn], states=states)
        if turn.fault:
            raise DraftError(turn.fault)
        if checker is not None and turn.view.gamma:
            vocab_size, count = target.traits.vocab_size, state.num_top_ids
            teach(state, [turn], check_drafts(checker, [turn], proposal, vocab_size, count))
        one = _replayed(proposal, output[number:])
        found.append(one)
        next_start = number + one.record.num_committed
    state.release(last)
    return found


def _rounds_by_law(
    target: LanguageModel, state: DraftState, told: Told, gamma: int, uniform: Callable[[], float]
) -> list[Replayed]:
    found: list[Replayed] = []
    states, next_start, last = _handing(told), 0, -1
    for number, (sequence, _) in enumerate(_positions(target, told.text)):
        last = sequence.id
        if number < next_start:
            continue
        context = _AlongContext(sequence.turn(gamma), target, states, told, number)
        if context.turns[0].view.gamma:
            state.propose(context)
        overlaps = context.overlaps
        kept = next((i for i, one in enumerate(overlaps) if uniform() >= one), len(overlaps))
        record = _record(len(context.turns[0].drawn), kept, len(told.text.output) - number)
        found.append(Replayed(record, (0,) * kept))
        next_start = number + record.num_committed
    state.release(last)
    return found


def _replayed(proposal: Proposal, ahead: Many[int]) -> Replayed:
    """A round, where these tokens come next."""
    tokens = proposal.tokens[0]
    parents = proposal.parents_of(0) or list(range(-1, len(tokens) - 1))

    def said(path: list[int]) -> int:
        return ahead[len(path)] if len(path) < len(ahead) else NO_TOKEN

    path = walk(tokens, parents, said).path
    above = [ROOT, *path]
    children = tuple(
        parents[:node].count(parent) for parent, node in zip(above, path, strict=False)
    )
    is_whole = above[-1] not in parents
    record = _record(len(tokens), len(path), len(ahead), is_whole=is_whole)
    return Replayed(record, children)


def _handing(told: Told) -> States:
    """Hands the states of a text out, each token's once."""
    handed: dict[int, int] = {}

    def states(view: SequenceView) -> Tensor:
        assert told.states is not None
        start, stop = handed.get(view.id, 0), len(view.tokens) - 1
        handed[view.id] = stop
        return told.states[start:stop]

    return states


def _as_the_engine_runs(target: LanguageModel, drafter: Drafter) -> AbstractContextManager[None]:
    return one_torch_thread(not (target.uses_torch_threads or drafter.uses_torch_threads))


class _LawContext(RoundContext):
    """Keeps the law of the one token that is drawn."""

    def __init__(self, turns: list[Turn], target: LanguageModel, states: States) -> None:
        super().__init__(turns, target.traits.vocab_size, target.device, states=states)
        self.law: Tensor | None = None
        self.has_drawn = False

    def record(self, turn: Turn, token: int, law: Float[Tensor, " vocab"] | None) -> None:
        """Note the law, and go on."""
        self.law, self.has_drawn = law, True
        super().record(turn, token, law)


class _AlongContext(RoundContext):
    """Takes the text's tokens for those that are drawn, and notes how the laws overlap."""

    def __init__(
        self, turn: Turn, target: LanguageModel, states: States, told: Told, start: int
    ) -> None:
        super().__init__([turn], target.traits.vocab_size, target.device, states=states)
        self._told, self._start = told, start
        self.overlaps: list[float] = []
        """Of each drafted token that the text goes on with."""

    def record(self, turn: Turn, token: int, law: Float[Tensor, " vocab"] | None) -> None:
        """Note the overlap, and go on with the text."""
        place = self._start + len(turn.drawn)
        if place < len(self._told.text.output):
            target_law = self._told.laws[place]
            token = self._told.text.output[place]
            # Only a grammar's tokens come without a law, and no text that is replayed has one.
            assert law is not None
            self.overlaps.append(float(torch.minimum(target_law, law).sum()))
        super().record(turn, token, law)


def _record(
    num_drafted: int, num_accepted: int, left: int, *, is_whole: bool | None = None
) -> RoundRecord:
    """A round that kept so many drafts where `left` tokens of the text were to come."""
    is_whole = num_accepted == num_drafted if is_whole is None else is_whole
    is_end = num_accepted >= left
    num_tested = num_accepted if is_end or is_whole else num_accepted + 1
    return RoundRecord(num_drafted, num_tested, num_accepted, min(num_accepted + 1, left))


def _positions(target: LanguageModel, text: Text) -> Iterator[tuple[Sequence, int]]:
    """The sequence as it stands before each token, and the token."""
    sequence = text.request.sequence(0, text.seed, target.device, None)
    for token in text.output:
        yield sequence, token
        sequence.commit_round([token])
