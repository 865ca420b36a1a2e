"""What a drafter would have done along a text that the target has written.

No check is run: the text is what the target says, so each guess is right or wrong by the text
itself. With the `coupled` verifier, and at temperature 0, the rounds are the very rounds of the
engine; the other verifiers keep a guess with a probability, which `overlaps` holds.
"""

import time
from collections.abc import Iterator
from collections.abc import Sequence as Many
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.statistics import RoundRecord
from draftsmith.drafters.contract import Drafter
from draftsmith.engine.requests.request import Request
from draftsmith.engine.requests.sequence import Sequence
from draftsmith.engine.rounds.breaches import check_contract
from draftsmith.engine.rounds.drafting import RoundContext
from draftsmith.engine.rounds.turn import Turn
from draftsmith.engine.threads import one_torch_thread
from draftsmith.models.contract import LanguageModel
from draftsmith.models.follower import Follower, common_prefix

__all__ = ["Guess", "Text", "guesses", "rounds", "rounds_from_guesses"]


class Text(NamedTuple):
    """A request that was served: its text under this seed."""

    request: Request
    seed: int
    output: tuple[int, ...]

    @property
    def room(self) -> int:
        """Tokens that the text could still have had: it ended by itself."""
        return self.request.limits.max_tokens - len(self.output)


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
    seconds: float
    """Time that the drafter took."""


def guesses(target: LanguageModel, drafter: Drafter, text: Text) -> list[Guess]:
    """One guess for each token of a text; the first ones may include the drafter's own start-up.

    Args:
        target: Whose text it is; run once over the text.
        drafter: Asked for one token at every position.
        text: The text.
    """
    # As the engine runs; and what torch does between two guesses must not leave its threads
    # waiting for more, on the cores of the next.
    with one_torch_thread(not (target.uses_torch_threads or drafter.uses_torch_threads)):
        return _guesses(target, drafter, text)


def rounds(
    target: LanguageModel, drafter: Drafter, text: Text, gamma: int
) -> list[tuple[RoundRecord, float]]:
    """The rounds that a deterministic drafter would have led to, and the time of each draft.

    Args:
        target: Whose text it is; not run.
        drafter: Asked for `gamma` tokens where a round begins.
        text: The text.
        gamma: Drafted tokens per round.
    """
    found: list[tuple[RoundRecord, float]] = []
    next_start = 0
    for number, (sequence, _) in enumerate(_positions(target, text)):
        if number < next_start:
            continue
        turn = sequence.turn(gamma)
        context = RoundContext([turn], target.traits.vocab_size, target.device)
        start = time.perf_counter()
        tokens: list[int] = []
        if turn.view.gamma:
            draft = drafter.propose(context)
            tokens = draft.tokens[0, : int(draft.num_drafted[0])].tolist()
        seconds = time.perf_counter() - start
        left = text.output[number:]
        record = _record(len(tokens), common_prefix(tokens, left), len(left))
        found.append((record, seconds))
        next_start = number + record.num_committed
    return found


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


def _guesses(target: LanguageModel, drafter: Drafter, text: Text) -> list[Guess]:
    laws = _target_laws(target, text)
    found: list[Guess] = []
    for number, (sequence, token) in enumerate(_positions(target, text)):
        turn = sequence.turn(1)
        # The last token of the room is never drafted, but a guess of it can be judged as well.
        turn.view = turn.view._replace(gamma=1)
        context = _LawContext([turn], target)
        start = time.perf_counter()
        draft = drafter.propose(context)
        seconds = time.perf_counter() - start
        check_contract(draft, context.turns, context.vocab_size, drafter.name)
        if not int(draft.num_drafted[0]):
            found.append(Guess(None, False, 0.0, not context.has_drawn, seconds))
            continue
        guessed = int(draft.tokens[0, 0])
        law = (
            context.law if context.law is not None else draft.dense_probs(context.vocab_size)[0, 0]
        )
        overlap = float(torch.minimum(laws[number], law).sum())
        is_right = guessed == token
        found.append(Guess(guessed, is_right, overlap, not context.has_drawn, seconds))
    return found


class _LawContext(RoundContext):
    """Keeps the law of the one token that is drawn."""

    def __init__(self, turns: list[Turn], target: LanguageModel) -> None:
        super().__init__(turns, target.traits.vocab_size, target.device)
        self.law: Tensor | None = None
        self.has_drawn = False

    def record(self, turn: Turn, token: int, law: Float[Tensor, " vocab"] | None) -> None:
        """Note the law, and go on."""
        self.law, self.has_drawn = law, True
        super().record(turn, token, law)


def _record(num_drafted: int, num_accepted: int, left: int) -> RoundRecord:
    """A round that kept so many drafts where `left` tokens of the text were to come."""
    is_end = num_accepted >= left
    num_tested = num_accepted if is_end else min(num_accepted + 1, num_drafted)
    return RoundRecord(num_drafted, num_tested, num_accepted, min(num_accepted + 1, left))


def _positions(target: LanguageModel, text: Text) -> Iterator[tuple[Sequence, int]]:
    """The sequence as it stands before each token, and the token."""
    sequence = text.request.sequence(0, text.seed, target.device, None)
    for token in text.output:
        yield sequence, token
        sequence.commit_round([token])


def _target_laws(target: LanguageModel, text: Text) -> Float[Tensor, "tokens vocab"]:
    """The target's law before each token of the text."""
    sequence = text.request.sequence(0, text.seed, target.device, None)
    follower = Follower(target)
    ahead = text.output[:-1]
    feed = follower.catch_up(sequence)
    logits = follower.forward([sequence], [[*feed, *ahead]])[0]
    return sequence.turn(1).laws_after(logits[len(feed) - 1 :].float(), list(ahead))
