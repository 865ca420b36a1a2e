"""Why two texts part: the margin of the choice against the measured error of its logits."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.laws import History, Law
from draftsmith.core.noise import CounterNoise, NoiseKeys
from draftsmith.core.params import SamplingParams
from draftsmith.engine.requests.request import make_request
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.follower import common_prefix

__all__ = ["Attributor", "Difference", "logits_of"]

_LONGEST_CHECK = 16


class Difference(NamedTuple):
    """Where a text left the one it should be, and why."""

    prompt: int
    position: int
    """Index of the first differing token in the output."""
    expected: int | None
    """Its id in the plain text; None if that ended there."""
    found: int | None
    margin: float
    """By how much the best token of this prefix beats the second, in logits."""
    error: float
    """By how much the logits of this prefix move with the shape of the pass, at most."""

    @property
    def is_numerics(self) -> bool:
        """Whether rounding can have made the difference."""
        return self.margin < self.error

    def __str__(self) -> str:
        cause = "numerics" if self.is_numerics else "NOT numerics"
        return (
            f"prompt {self.prompt}, token {self.position}: {self.expected} became {self.found}, "
            f"margin {self.margin:.3g}, logit error {self.error:.3g}: {cause}"
        )


class Attributor:
    """Explains differences between texts of one target under one set of parameters."""

    def __init__(self, target: LanguageModel, params: SamplingParams) -> None:
        self.target = target
        self.params = params

    def explain(
        self, number: int, prompt: Sequence[int], expected: Sequence[int], found: Sequence[int]
    ) -> Difference | None:
        """The first difference of two texts; None if they are the same."""
        position = common_prefix(expected, found)
        if position == len(expected) == len(found):
            return None
        request = make_request(prompt, self.params, self.target.traits, None)
        output = list(expected[:position])
        variants = logits_of(self.target, request.source, request.prompt, output)
        logits = next(variants)
        error = max(
            (float((one - logits).abs().nan_to_num(0).max()) for one in variants), default=0
        )
        return Difference(
            number,
            position,
            _at(expected, position),
            _at(found, position),
            self._margin(request.law, request.prompt, output, logits),
            error,
        )

    def _margin(
        self, law: Law, prompt: Sequence[int], output: Sequence[int], logits: Float[Tensor, " v"]
    ) -> float:
        """The gap between the two best tokens: of the logits, or of the race under the seed."""
        ids = [torch.tensor(list(part), dtype=torch.long) for part in (prompt, output)]
        history, none = History(*ids), torch.empty(0, dtype=torch.long)
        if law.is_greedy:
            scores = logits
        else:
            probs = law(logits.unsqueeze(0), history, none)[0].double()
            assert self.params.seed is not None
            keys = NoiseKeys(torch.tensor([self.params.seed]), torch.tensor([0]))
            place = torch.tensor([len(prompt) + len(output)])
            noise = CounterNoise(keys, torch.zeros(1).long(), place)
            waits = noise.exponentials(0, 1, len(probs))[0, 0].double()
            # The race is won by the largest log(prob / wait): a logit over the temperature, moved.
            scores = (probs.log() - waits.log()) * self.params.temperature
        best = scores.topk(2).values
        return float(best[0] - best[1])


def logits_of(
    model: LanguageModel, source: Sequence[int], prompt: Sequence[int], output: Sequence[int]
) -> Iterator[Float[Tensor, " vocab"]]:
    """The logits after a text, first as plain decoding gets them, then in passes of other shapes.

    Args:
        model: The target.
        source: An encoder-decoder's source; empty for others.
        prompt: Decoder tokens that are prefilled.
        output: Tokens that were decoded after them.
    """
    tokens = [*prompt, *output]
    yield _fed(model, source, tokens, len(prompt), lambda left: 1)
    for rows in (2, 3, 5, 9, _LONGEST_CHECK):
        if rows <= len(tokens):
            yield _fed(model, source, tokens, len(tokens) - rows + 1, lambda left: left)
    # As in a check: drafted tokens behind it in the same pass.
    for rows in (2, 5, 9):
        yield _fed(model, source, tokens, len(tokens), lambda left: 1, behind=rows - 1)


def _fed(
    model: LanguageModel,
    source: Sequence[int],
    tokens: Sequence[int],
    num_prefilled: int,
    width: Callable[[int], int],
    behind: int = 0,
) -> Float[Tensor, " vocab"]:
    """Prefill, then feed the rest in passes of the given widths; the logits after the last."""
    cache = model.open_cache()
    row = cache.add()
    if model.traits.is_encoder_decoder:
        model.encode(cache, row, source)
    first = min(num_prefilled, len(tokens)) - 1
    model.prefill(cache, row, tokens[:first])
    rest, logits = list(tokens[first:]), torch.empty(0)
    while rest:
        count = width(len(rest))
        fed, rest = rest[:count], rest[count:]
        padding = [] if rest else [fed[-1]] * behind
        logits = model.forward(cache, Rows([row], [[*fed, *padding]]))[0, len(fed) - 1]
    return logits.float().cpu()


def _at(tokens: Sequence[int], index: int) -> int | None:
    return tokens[index] if index < len(tokens) else None
