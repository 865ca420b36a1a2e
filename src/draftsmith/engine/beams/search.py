"""Beam search, and beam search with a draft, which finds the same texts in fewer target passes.

Leviathan, Kalman & Matias, arXiv:2211.17192, appendix A.4: with w beams, the draft searches on with
u >= w beams for gamma steps, the target scores all w + u gamma candidates in one pass, and its own
steps are taken as long as its w best are among the u candidates of that length. Every step is the
target's, so the texts and scores are those of plain beam search; only the passes are fewer.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from draftsmith.core.beam import Beam, BeamRules, BeamState, Tokens, advance, best_continuations
from draftsmith.core.demands import NO_DEMANDS, Demands
from draftsmith.core.gamma import check_gamma
from draftsmith.core.params import SamplingParams
from draftsmith.core.values import check_whole
from draftsmith.drafters.model import ModelDrafter
from draftsmith.engine.beams.rows import BeamRows
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.request import Prompt, Request, make_request
from draftsmith.engine.threads import one_torch_thread
from draftsmith.errors import InvalidRequestError, NotRollbackableError, NumericsError
from draftsmith.models.tokenizer import decode_after

__all__ = ["BeamResult", "BeamText", "beam_search"]

_DEFAULT_GAMMA = 4


@dataclass(frozen=True)
class BeamText:
    """One finished text."""

    text: str
    """Empty without a tokenizer."""
    token_ids: Tokens
    """Output ids, the one that ended the text included."""
    score: float
    """Mean log-probability of the tokens."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class BeamResult:
    """The best texts, and what they cost."""

    texts: tuple[BeamText, ...]
    """Best first."""
    num_steps: int
    """Tokens by which beams have grown: target passes of plain beam search."""
    num_target_passes: int
    num_target_rows: int
    """Tokens that those passes ran; prompts apart."""
    num_prompt_tokens: int
    elapsed_s: float

    def __str__(self) -> str:
        return self.texts[0].text

    @property
    def steps_per_pass(self) -> float:
        """Steps that a target pass yields; 1 for plain beam search."""
        return self.num_steps / self.num_target_passes


def beam_search(
    engine: Engine,
    prompt: Prompt,
    *,
    num_beams: int = 4,
    draft_beams: int | None = None,
    gamma: int | None = None,
    max_tokens: int | None = None,
    ignore_eos: bool = False,
) -> BeamResult:
    """Find the likeliest texts by beam search, by drafts where the engine has a draft model.

    A text is worth the mean log-probability of its tokens, as with `num_beams` of `transformers`.
    The texts and scores do not depend on the draft.

    Args:
        engine: Target, tokenizer, and a draft model or none.
        prompt: Text, token ids, or a conversation.
        num_beams: w, beams that are kept, and texts that are returned at most.
        draft_beams: u, beams of the draft, `num_beams` or more; None is twice as many.
        gamma: Steps that the draft searches ahead, 0 to 32; None is the engine's.
        max_tokens: The longest output; None is 256, or what the context leaves.
        ignore_eos: Go on past the model's own end-of-sequence ids.

    Returns:
        The best texts, and what the search cost.

    Raises:
        InvalidRequestError: If a number is out of range, the prompt is not valid, or the engine's
            draft is no model.
        NotRollbackableError: If the target's cache cannot be undone, as forking beams need.
        NumericsError: If the target's logits are no distribution.

    Example:
        >>> from draftsmith import beam_search, load_engine
        >>> engine = load_engine("qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-0.5b-instruct")
        >>> result = beam_search(engine, "Once upon a time", num_beams=2, max_tokens=4)
        >>> len(result.texts)
        2

    References:
        arXiv:2211.17192, appendix A.4.
    """
    start = time.perf_counter()
    if not isinstance(engine, Engine):  # pyright: ignore[reportUnnecessaryIsInstance]  # a caller's
        kind = type(engine).__name__
        raise InvalidRequestError(
            f"engine must be an Engine, got {kind}: make one with load_engine"
        )
    num_beams = check_whole("num_beams", num_beams)
    if draft_beams is not None:
        draft_beams = check_whole("draft_beams", draft_beams)
    if gamma is not None:
        check_gamma(gamma)
    _check_rollback(engine)
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=ignore_eos)
    if engine.cache_tokens is not None:
        raise InvalidRequestError(
            f"cache_tokens={engine.cache_tokens} bounds no beam search: make an engine without it"
        )
    request = make_request(prompt, params, engine.target.traits, engine.tokenizer)
    _check_demands(request, engine.target.traits.name)
    rules = _rules(request, num_beams)
    search = _Search(
        engine, request, rules, _draft_width(num_beams, draft_beams), _gamma(engine, gamma)
    )
    with one_torch_thread(not _uses_torch_threads(engine)):
        state = search.run()
    texts = tuple(_text(engine, request, beam) for beam in state.finished)
    target = search.target
    return BeamResult(
        texts,
        search.num_steps,
        target.num_passes,
        target.num_rows,
        len(request.source or request.prompt),
        time.perf_counter() - start,
    )


class _Search:
    """One search in progress."""

    def __init__(
        self, engine: Engine, request: Request, rules: BeamRules, draft_beams: int, gamma: int
    ) -> None:
        self.target = BeamRows(engine.target, request.prompt, request.source)
        self.num_steps = 0
        self._rules = rules
        self._draft_beams = draft_beams
        self._gamma = gamma
        self._vocab_size = engine.target.traits.vocab_size
        drafter = _draft_model(engine) if gamma else None
        self._draft = drafter and BeamRows(drafter.model, request.prompt, request.source)
        length = drafter.model.traits.context_length if drafter else None
        self._draft_room = math.inf if length is None else length - len(request.prompt)

    def run(self) -> BeamState:
        """Rounds until nothing is live."""
        state = BeamState()
        while state.live:
            candidates = [beam.tokens for beam in state.live]
            candidates += [beam.tokens for level in self._drafted(state.live) for beam in level]
            laws = self.target.log_probs(candidates)
            # The first step needs no draft; each further one, that the draft had foreseen it.
            while state.live and all(beam.tokens in laws for beam in state.live):
                state = advance(state, _stacked(laws, state.live), self._rules)
                self.num_steps += 1
        return state

    def _drafted(self, live: tuple[Beam, ...]) -> Iterator[list[Beam]]:
        """The draft's own beams, a list for each step ahead."""
        if self._draft is None:
            return
        # A law after the last token would be of no use.
        last = min(self._rules.max_tokens - 1, self._draft_room)
        beams = list(live)
        for length in range(len(live[0].tokens), len(live[0].tokens) + self._gamma):
            if length >= last:
                return
            try:
                laws = self._draft.log_probs([beam.tokens for beam in beams])
            except NumericsError:
                return  # a draft that is no law drafts nothing, and harms nothing
            scores = _stacked(laws, beams)[:, : self._vocab_size]
            ending = [token for token in self._rules.end_token_ids if token < scores.shape[1]]
            # What ends goes nowhere: its law will never be asked for.
            scores[:, ending] = -torch.inf
            beams = best_continuations(beams, scores, self._draft_beams)
            if not beams:
                return
            yield beams


def _stacked(laws: dict[Tokens, Tensor], beams: "tuple[Beam, ...] | list[Beam]") -> Tensor:
    return torch.stack([laws[beam.tokens] for beam in beams])


def _rules(request: Request, num_beams: int) -> BeamRules:
    limits = request.limits
    room = limits.max_tokens
    if limits.context_length is not None:
        room = min(room, limits.context_length - len(request.prompt))
    return BeamRules(num_beams, room, limits.stop_token_ids)


def _draft_width(num_beams: int, draft_beams: int | None) -> int:
    if draft_beams is None:
        return 2 * num_beams
    if draft_beams < num_beams:
        raise InvalidRequestError(
            f"draft_beams must be num_beams = {num_beams} or more, got {draft_beams}"
        )
    return draft_beams


def _gamma(engine: Engine, gamma: int | None) -> int:
    if engine.draft is None:
        return 0
    if gamma is not None:
        check_gamma(gamma)
        return gamma
    return _DEFAULT_GAMMA if engine.gamma == "auto" else engine.gamma


def _check_demands(request: Request, name: str) -> None:
    """Refuse a model whose files ask of every text what a search with beams would pass over."""
    for item in fields(Demands):
        asked = getattr(request.demands, item.name)
        if asked != getattr(NO_DEMANDS, item.name):
            raise InvalidRequestError(
                f"{name}'s generation_config.json asks {item.name}={asked!r} of every text, which "
                "beam search cannot honour: sample instead"
            )


def _check_rollback(engine: Engine) -> None:
    traits = engine.target.traits
    if not traits.can_rollback:
        raise NotRollbackableError(
            f"{traits.name} cannot search with beams: {traits.why_no_rollback}; sample instead"
        )


def _draft_model(engine: Engine) -> ModelDrafter:
    if not isinstance(engine.draft, ModelDrafter):
        name = engine.draft.name if engine.draft else "none"
        raise InvalidRequestError(
            f"beam search drafts with a model, and {name} is none: give a draft model, or no draft"
        )
    if engine.draft.branches > 1:
        raise InvalidRequestError(
            f"beam search drafts in chains, and branches={engine.draft.branches} asks for trees: "
            "leave it out"
        )
    return engine.draft


def _uses_torch_threads(engine: Engine) -> bool:
    return engine.target.uses_torch_threads or bool(
        engine.draft and engine.draft.uses_torch_threads
    )


def _text(engine: Engine, request: Request, beam: Beam) -> BeamText:
    tokenizer = engine.tokenizer
    text = decode_after(tokenizer, request.prompt, beam.tokens) if tokenizer else ""
    return BeamText(text, beam.tokens, beam.score)
