"""One step of beam search: continue the live beams, finish those that end, keep the best.

The scoring is the one of `transformers` by default (`num_beams`, length_penalty 1, early_stopping
False): a finished text is worth the mean log-probability of its tokens, its end included, and the
search is over when as many texts are finished as there are beams and the best live beam is worth
no more than the worst of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import InvalidRequestError, NumericsError

__all__ = ["Beam", "BeamRules", "BeamState", "Tokens", "advance", "best_continuations"]

Tokens: TypeAlias = tuple[int, ...]


class Beam(NamedTuple):
    """A text in the making, or a finished one."""

    tokens: Tokens
    """Output so far, without the prompt."""
    score: float
    """Live: the sum of its tokens' log-probabilities. Finished: their mean."""


@dataclass(frozen=True)
class BeamRules:
    """What ends a search.

    Raises:
        InvalidRequestError: If a number is out of range.
    """

    num_beams: int
    """w, beams that are kept."""
    max_tokens: int
    """The longest output, which ends there."""
    end_token_ids: frozenset[int]
    """What ends a text; it is part of it."""

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_tokens"):
            if getattr(self, name) < 1:
                raise InvalidRequestError(f"{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class BeamState:
    """A search between two steps; over when nothing is live."""

    live: tuple[Beam, ...] = (Beam((), 0.0),)
    """Best first; all equally long."""
    finished: tuple[Beam, ...] = ()
    """Best first, at most as many as there are beams."""


def advance(
    state: BeamState, log_probs: Float[Tensor, "beams vocab"], rules: BeamRules
) -> BeamState:
    """Continue every live beam by every token, and keep the best.

    Args:
        state: Something is live.
        log_probs: Of the next token after each live beam, in order.
        rules: The width, and what ends a text.

    Raises:
        NumericsError: If no continuation has a finite score and nothing is finished.

    Example:
        >>> import torch
        >>> laws = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> state = advance(BeamState(), laws, BeamRules(2, 9, frozenset([1])))
        >>> [beam.tokens for beam in state.live], [beam.tokens for beam in state.finished]
        ([(0,), (2,)], [(1,)])
    """
    # So many that enough of them go on, even if all others end here.
    count = max(2, 1 + len(rules.end_token_ids)) * rules.num_beams
    candidates = best_continuations(state.live, log_probs, count)
    length = len(state.live[0].tokens) + 1
    is_last = length == rules.max_tokens
    going_on: list[Beam] = []
    finished = list(state.finished)
    for rank, beam in enumerate(candidates):
        if beam.tokens[-1] not in rules.end_token_ids and not is_last:
            going_on.append(beam)
        elif rank < rules.num_beams:
            finished.append(Beam(beam.tokens, beam.score / length))
    # Stable: of equals, the one that was finished first stays.
    finished = sorted(finished, key=lambda beam: -beam.score)[: rules.num_beams]
    if not going_on and not finished:
        raise NumericsError("no token has a probability here: the model's logits are no law")
    is_full = len(finished) == rules.num_beams
    is_over = is_full and going_on and going_on[0].score / length <= finished[-1].score
    live = () if is_over else tuple(going_on[: rules.num_beams])
    return BeamState(live, tuple(finished))


def best_continuations(
    beams: Sequence[Beam], log_probs: Float[Tensor, "beams vocab"], count: int
) -> list[Beam]:
    """The `count` best of all beams with one more token, best first; fewer if fewer are possible.

    Ties go to the earlier beam, then to the lower token id.
    """
    sums = torch.tensor([beam.score for beam in beams], dtype=torch.float64).unsqueeze(1)
    scores = (log_probs.double().cpu() + sums).flatten()
    # topk breaks ties as it likes: take all that reach its last value, then sort them stably.
    threshold = scores.topk(min(count, len(scores))).values[-1]
    places = ((scores >= threshold) & scores.isfinite()).nonzero().squeeze(1)
    order = scores[places].argsort(descending=True, stable=True)[:count]
    vocab = log_probs.shape[1]
    return [
        Beam((*beams[place // vocab].tokens, place % vocab), float(scores[place]))
        for place in places[order].tolist()
    ]
