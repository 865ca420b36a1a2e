"""A drafter that is itself accelerated by a faster drafter (Leviathan et al., section 6)."""

from itertools import repeat

from draftsmith.core.gamma import MAX_GAMMA
from draftsmith.core.lenience import exact_twin
from draftsmith.core.values import check_whole, require
from draftsmith.drafters.contract import (
    DraftContext,
    Drafter,
    DraftState,
    SequenceView,
    StatefulDrafter,
    open_state,
)
from draftsmith.drafters.draft import Draft
from draftsmith.engine.rounds.drafting import RoundContext, checked
from draftsmith.engine.rounds.outcomes import Outcome
from draftsmith.engine.rounds.turn import Turn
from draftsmith.engine.rounds.verdicts import check_drafts
from draftsmith.errors import CacheFullError, DraftError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.follower import Follower
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["SpeculativeDrafter"]


class SpeculativeDrafter(StatefulDrafter):
    """Drafts with a model, by speculative rounds of its own.

    Its tokens are exact draws from the model's law, and that law is known from the model's own
    checks, so the target can verify them like any other draft. The noise of every level is apart.

    Args:
        model: The draft model, which plays the target to `inner`.
        inner: The faster drafter.
        inner_gamma: Tokens that `inner` guesses in each inner round.
        tokenizer: The model's, to be compared with the target's; None compares sizes.

    Raises:
        InvalidRequestError: If `inner_gamma` is no number from 1 to 32.

    Example:
        >>> from draftsmith import PromptLookupDrafter, load_engine
        >>> from draftsmith.models.load import load_model
        >>> middle = load_model("qwen2.5-coder-0.5b-instruct")
        >>> draft = SpeculativeDrafter(middle, PromptLookupDrafter())
        >>> engine = load_engine("qwen2.5-coder-1.5b-instruct", draft)
        >>> len(engine.generate(["def add(a, b):"])[0].token_ids) > 0
        True
    """

    def __init__(
        self,
        model: LanguageModel,
        inner: Drafter,
        inner_gamma: int = 4,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        rule = f"between 1 and {MAX_GAMMA}"
        inner_gamma = check_whole("inner_gamma", inner_gamma, rule)
        require(1 <= inner_gamma <= MAX_GAMMA, "inner_gamma", rule, inner_gamma)
        self.model = model
        self.inner = inner
        self.inner_gamma = inner_gamma
        self.tokenizer = tokenizer
        self.name = f"{model.traits.name} over {inner.name}"
        self.uses_torch_threads = model.uses_torch_threads or inner.uses_torch_threads

    def open(self) -> "_SpeculativeState":
        """A cache of the model and a state of the faster drafter, without sequences."""
        return _SpeculativeState(self)


class _SpeculativeState(DraftState):
    """What both levels keep of one engine's sequences."""

    def __init__(self, drafter: SpeculativeDrafter) -> None:
        self._inner_gamma = drafter.inner_gamma
        self._inner_name = drafter.inner.name
        self._inner = open_state(drafter.inner)
        self._follower = Follower(drafter.model)
        self.followers = (self._follower, *self._inner.followers)

    def release(self, sequence: int) -> None:
        """Forget a sequence on both levels."""
        self._inner.release(sequence)
        self._follower.release(sequence)

    def propose(self, context: DraftContext) -> Draft:
        """Run inner rounds until every sequence has its gamma tokens.

        Raises:
            DraftError: Outside an `Engine`, which alone keeps the noise of the levels apart.
        """
        if not isinstance(context, RoundContext):
            raise DraftError("a hierarchical drafter runs inside an Engine only")
        live = [turn for turn in context.turns if self._has_room(turn)]
        num_rounds = 0
        while live := [turn for turn in live if len(turn.drawn) < turn.view.gamma]:
            inner = [self._inner_turn(turn, num_rounds) for turn in live]
            outcomes = self._inner_round(inner, context)
            for turn, below, outcome in zip(live, inner, outcomes, strict=True):
                turn.fault = below.fault
                laws = repeat(None) if outcome.laws is None else outcome.laws
                for token, law in zip(outcome.tokens, laws, strict=False):
                    context.record(turn, token, law)
            pairs = zip(live, outcomes, strict=True)
            live = [turn for turn, outcome in pairs if outcome.error is None]
            num_rounds += 1
        return context.drawn()

    def _inner_round(self, turns: list[Turn], context: RoundContext) -> list[Outcome]:
        inner_context = RoundContext(turns, context.vocab_size, context.device)
        draft = self._inner.propose(inner_context)
        proposal = checked(draft, inner_context, self._inner_name)
        return check_drafts(self._follower, turns, proposal, context.vocab_size)

    def _has_room(self, turn: Turn) -> bool:
        length, end = self._follower.model.traits.context_length, len(turn.view.tokens)
        end += turn.view.gamma
        if length is not None and end > length:
            return False
        try:
            self._follower.make_room(turn.view, end)
        except CacheFullError:
            return False
        return True

    def _inner_turn(self, turn: Turn, num_rounds: int) -> Turn:
        """The same sequence with its draft so far taken as kept."""
        view, drawn = turn.view, list(turn.drawn)
        # One token of the rest is the inner round's emitted one.
        gamma = min(self._inner_gamma, view.gamma - len(drawn) - 1)
        tokens = [*view.tokens, *drawn]
        return Turn(
            SequenceView(view.id, tokens, view.num_prompt, view.source, gamma),
            # The inner text is the draft: it has the draft's law, exactly.
            turn.draft_law,
            turn.draft_law,
            exact_twin(turn.verifier),
            turn.make_history,
            turn.make_slot,
            turn.device,
            level=turn.level + 1,
            prefix=[*turn.prefix, *drawn],
            inner_round=turn.inner_round * MAX_GAMMA + num_rounds,
        )
