"""One round: draft, check in one pass of the target, verdict. Nothing is committed here."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.laws import NO_TOKEN, History, Law
from draftsmith.core.lenience import ArgmaxLenience
from draftsmith.core.noise import RoundNoise
from draftsmith.core.verify import Check, Verifier
from draftsmith.drafters.contract import Draft, Drafter, SequenceView
from draftsmith.engine.breaches import breaches, without
from draftsmith.engine.control.contract import Pace
from draftsmith.errors import DraftError
from draftsmith.kernels.cpu.sampling import has_mass
from draftsmith.models.follower import Follower, common_prefix

__all__ = [
    "NoiseMaker",
    "Outcome",
    "RoundContext",
    "Turn",
    "check_drafts",
    "draft_for",
    "run_round",
]


NoiseMaker: TypeAlias = Callable[[int, int, int], RoundNoise]
"""(level, inner round, tokens drafted above) to the noise of that round."""


@dataclass
class Turn:
    """One sequence in one round: what it is, its rules, its noise, and its draft so far."""

    view: SequenceView
    law: Law
    draft_law: Law
    """What drafted tokens are drawn from; the target's transform unless the draft has its own."""
    verifier: Verifier
    history: History
    make_noise: NoiseMaker
    level: int = 0
    """0 checks with the target; 1 and up with a drafter that speculates itself."""
    prefix: list[int] = field(default_factory=list)
    """Drafted tokens of the round above, taken as kept; the end of `view.tokens`."""
    inner_round: int = 0
    """Which round of its level this is."""
    lenience: ArgmaxLenience | None = None
    """How greedy checks are lossy; None is exact."""
    drawn: list[int] = field(default_factory=list)
    laws: list[Tensor] = field(default_factory=list)
    """The law of each drawn token, `[vocab]`."""
    confidences: list[float] = field(default_factory=list)
    """How sure the drafter was of each token; empty where nobody asks, or it does not tell."""
    fault: str = ""
    """How the drafter broke its contract for this sequence, which ends it; the others go on."""

    def __post_init__(self) -> None:
        """Set up the noise of this round."""
        self.noise = self.make_noise(self.level, self.inner_round, len(self.prefix))

    def laws_after(
        self, logits: Float[Tensor, "rows vocab"], drafted: Sequence[int]
    ) -> Float[Tensor, "rows vocab"]:
        """The laws of consecutive positions; the last row follows all of `drafted`."""
        return self.law(logits, self.history, self._tokens(drafted, logits.device))

    def points_after(
        self, logits: Float[Tensor, "rows vocab"], drafted: Sequence[int]
    ) -> list[int]:
        """What greedy checks settle on, `NO_TOKEN` for none; the last row follows all drafts."""
        tokens = self._tokens(drafted, logits.device)
        points = self.law.points(logits, self.history, tokens)
        if self.lenience is not None:
            points = self.lenience.spare(points, logits, self.history, tokens)
        # The sync is the round's: the tokens are wanted here.
        return points.tolist()

    def draft_law_after(self, logits: Float[Tensor, "1 vocab"]) -> Float[Tensor, "1 vocab"]:
        """The law of the next drafted token."""
        return self.draft_law(logits, self.history, self._tokens(self.drawn, logits.device))

    def draft_point_after(self, logits: Float[Tensor, "1 vocab"]) -> int:
        """Where a greedy draft's law stands, `NO_TOKEN` for none."""
        drafted = self._tokens(self.drawn, logits.device)
        return int(self.draft_law.points(logits, self.history, drafted))

    def _tokens(self, drafted: Sequence[int], device: torch.device) -> Int[Tensor, " drafts"]:
        return torch.tensor([*self.prefix, *drafted], dtype=torch.long, device=device)


class Outcome(NamedTuple):
    """The verdict on one sequence."""

    tokens: list[int]
    """The kept drafted tokens and the emitted one; only kept ones if `error` is set."""
    drafted: list[int]
    num_accepted: int
    laws: Float[Tensor, "rows vocab"] | None
    """The target's laws along the draft, a row for each token in `tokens`, and perhaps more;
    None where they are the point masses on `tokens`."""
    logits: Float[Tensor, "rows vocab"]
    error: str | None


class Round(NamedTuple):
    """The verdicts on a batch, and what drafting took."""

    outcomes: list[Outcome]
    draft_s: float


class RoundContext:
    """The engine's side of `DraftContext`.

    Args:
        turns: The batch.
        vocab_size: The target's.
        device: Where drafts are wanted.
        pace: Who ends drafts before they have gamma tokens, if anybody does.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        vocab_size: int,
        device: torch.device,
        pace: Pace | None = None,
    ) -> None:
        self.turns = turns
        self.vocab_size = vocab_size
        self._device = device
        self._pace = pace
        self._ended: set[int] = set()
        """Sequences whose drafts the pace has ended: none goes on again."""

    @property
    def sequences(self) -> Sequence[SequenceView]:
        """The batch, in order."""
        return [turn.view for turn in self.turns]

    @property
    def device(self) -> torch.device:
        """Where the draft is wanted."""
        return self._device

    def draw(self, rows: Sequence[int], logits: Float[Tensor, "rows some_vocab"]) -> list[int]:
        """Draw the next drafted token of some sequences, and record it with its law."""
        if self._pace is not None:
            # The sync is the draft's own: its next pass needs the token, which comes later.
            largest = logits.float().softmax(dim=-1).amax(dim=-1)
            # A law that is none is trusted not at all.
            for row, confidence in zip(rows, largest.nan_to_num(nan=0.0).tolist(), strict=True):
                self.turns[row].confidences.append(confidence)
        fitted = _fit(logits.to(self._device).float(), self.vocab_size)
        for row, line in zip(rows, fitted.unsqueeze(1), strict=True):
            turn = self.turns[row]
            if turn.draft_law.is_greedy:
                self.record(turn, _likeliest(turn, line), None)
                continue
            law = _law_with_mass(turn, line)
            # The sync is the draft's own: its next pass needs the token.
            token = int(turn.verifier.draw(law, turn.noise, len(turn.drawn)))
            self.record(turn, token, law[0])
        return [self.turns[row].drawn[-1] for row in rows]

    def wanting(self, rows: Sequence[int]) -> list[int]:
        """Those of some sequences for which it pays to draw another token, in order."""
        turns = self.turns
        open_rows = [row for row in rows if len(turns[row].drawn) < turns[row].view.gamma]
        if self._pace is None or not open_rows:
            return open_rows
        going = [row for row in open_rows if row not in self._ended]
        taken = self._pace.wanting([turn.confidences for turn in turns], going) if going else []
        self._ended.update(set(going) - set(taken))
        return taken

    def record(self, turn: Turn, token: int, law: Float[Tensor, " vocab"] | None) -> None:
        """Add a token and the law that it was drawn from (None: certain) to a sequence's draft."""
        if len(turn.drawn) >= turn.view.gamma:
            raise DraftError(f"a drafter drew more than gamma = {turn.view.gamma} tokens")
        turn.drawn.append(token)
        if law is not None and turn.verifier.needs_draft_probs:
            turn.laws.append(law)

    def drawn(self) -> Draft:
        """Everything that was drawn in this round."""
        draft = Draft.certain([turn.drawn for turn in self.turns], self._device)
        if not any(turn.laws for turn in self.turns):
            return draft
        probs = torch.empty(*draft.tokens.shape, self.vocab_size, device=self._device)
        for row, turn in enumerate(self.turns):
            for column, law in enumerate(turn.laws):
                probs[row, column] = law
            probs[row, len(turn.laws) :] = 0.0
            if turn.draft_law.is_greedy:
                probs[row, range(len(turn.drawn)), turn.drawn] = 1.0
        return Draft(draft.tokens, draft.num_drafted, probs)


def run_round(
    target: Follower, drafter: Drafter | None, turns: Sequence[Turn], pace: Pace | None = None
) -> Round:
    """Draft, check, decide, for every sequence of a batch."""
    vocab_size = target.model.traits.vocab_size
    start = time.perf_counter()
    draft = draft_for(target, drafter, turns, pace)
    # Every drafted token was read on the host by now, or the draft needed no device.
    draft_s = time.perf_counter() - start
    return Round(check_drafts(target, turns, draft, vocab_size), draft_s)


def draft_for(
    target: Follower, drafter: Drafter | None, turns: Sequence[Turn], pace: Pace | None = None
) -> Draft:
    """One proposal for each sequence, within the contract; empty where none is wanted."""
    context = RoundContext(turns, target.model.traits.vocab_size, target.model.device, pace)
    if drafter is None or not any(turn.view.gamma for turn in turns):
        return Draft.certain([[] for _ in turns], context.device)
    draft = drafter.propose(context)
    broken = breaches(draft, turns, context.vocab_size, drafter.name)
    for row, why in broken.items():
        turns[row].fault = why
    draft = without(draft, [row for row, turn in enumerate(turns) if turn.fault])
    if pace is None or draft.confidences is None or draft.probs is not None:
        return draft
    for turn, confidences in zip(turns, draft.confidences, strict=True):
        turn.confidences += confidences
    return draft.cut(pace.lengths(draft.confidences))


def check_drafts(
    target: Follower, turns: Sequence[Turn], draft: Draft, vocab_size: int
) -> list[Outcome]:
    """Run the target once over every draft, and give the verdicts over `vocab_size` ids."""
    lengths = draft.num_drafted.tolist()
    drafted = [row[:length] for row, length in zip(draft.tokens.tolist(), lengths, strict=True)]
    feeds = [target.catch_up(turn.view) for turn in turns]
    logits = target.forward(
        [turn.view for turn in turns],
        [feed + tokens for feed, tokens in zip(feeds, drafted, strict=True)],
    )
    outcomes: list[Outcome] = []
    for row, (turn, feed, tokens) in enumerate(zip(turns, feeds, drafted, strict=True)):
        first = len(feed) - 1
        rows = _fit(logits[row, first : first + len(tokens) + 1], vocab_size)
        if turn.fault:
            outcomes.append(Outcome([], [], 0, None, rows, turn.fault))
            continue
        outcomes.append(_judge(turn, rows, tokens, _one_row(draft, row, len(tokens))))
    return outcomes


def _judge(
    turn: Turn, logits: Float[Tensor, "rows vocab"], drafted: list[int], draft: Draft
) -> Outcome:
    """The verdict on one draft; a row that is no distribution ends the sequence, if reached."""
    if turn.law.is_greedy:
        return _judge_greedily(turn, logits, drafted)
    laws = turn.laws_after(logits, drafted)
    # The sync is the round's: its verdict is read below.
    is_law = has_mass(laws).tolist()
    if not all(is_law):
        # A stand-in law keeps the verdict on the rows before it exact.
        stand_in = torch.tensor(is_law, device=laws.device).logical_not_().unsqueeze(1)
        laws = torch.where(stand_in, 1 / laws.shape[-1], laws)
    needs_probs = turn.verifier.needs_draft_probs
    check = Check(
        draft.tokens,
        draft.num_drafted,
        draft.dense_probs(laws.shape[-1]) if needs_probs else None,
        laws.unsqueeze(0),
    )
    verdict = turn.verifier.verify(check, turn.noise)
    num_accepted = int(verdict.num_accepted)
    if not all(is_law[: num_accepted + 1]):
        first = is_law.index(False)
        return Outcome(drafted[:first], drafted, first, laws, logits, _why_bad(logits[first]))
    tokens = verdict.tokens[0, : num_accepted + 1].tolist()
    return Outcome(tokens, drafted, num_accepted, laws, logits, None)


def _judge_greedily(turn: Turn, logits: Float[Tensor, "rows vocab"], drafted: list[int]) -> Outcome:
    """The verdict that every verifier gives on point masses, without building them."""
    tokens = turn.points_after(logits, drafted)
    kept = common_prefix(drafted, tokens)
    if tokens[kept] == NO_TOKEN:
        return Outcome(drafted[:kept], drafted, kept, None, logits, _why_bad(logits[kept]))
    return Outcome(tokens[: kept + 1], drafted, kept, None, logits, None)


def _why_bad(logits: Float[Tensor, " vocab"]) -> str:
    if bool(logits.isnan().any()):
        return "the model's logits are NaN: try another dtype"
    if bool((logits == torch.inf).any()):
        return "the model's logits are infinite: try another dtype"
    return "no token is allowed here: loosen bans, allowed_token_ids or min_tokens"


def _likeliest(turn: Turn, logits: Float[Tensor, "1 vocab"]) -> int:
    """The draft's token; where its logits are none, or all banned, the first that is allowed."""
    token = turn.draft_point_after(logits)
    if token == NO_TOKEN:
        token = turn.draft_point_after(torch.zeros_like(logits))
    return max(token, 0)


def _law_with_mass(turn: Turn, logits: Float[Tensor, "1 vocab"]) -> Float[Tensor, "1 vocab"]:
    """The draft's law; where its logits are none, or all banned, any token that is allowed."""
    law = turn.draft_law_after(logits)
    if bool(has_mass(law)):
        return law
    law = turn.draft_law_after(torch.zeros_like(logits))
    return law if bool(has_mass(law)) else torch.full_like(law, 1 / law.shape[-1])


def _fit(logits: Float[Tensor, "rows v"], vocab_size: int) -> Float[Tensor, "rows w"]:
    """Logits over the target's ids: padding of either vocabulary has no mass."""
    missing = vocab_size - logits.shape[-1]
    if missing <= 0:
        return logits[:, :vocab_size]
    return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)


def _one_row(draft: Draft, row: int, length: int) -> Draft:
    """One sequence's draft, without the padding of its batch."""
    rows = slice(row, row + 1)
    probs = None if draft.probs is None else draft.probs[rows, :length]
    return Draft(draft.tokens[rows, :length], draft.num_drafted[rows], probs)
