"""A head's trial at load: what it accepts of text that the target writes, and what if it does not.

A convention that was read wrongly raises no error anywhere: the head merely drafts nonsense, and
the text is as slow as before. So the target writes some lines, the head guesses at every position
of them, and one that is nearly always wrong is refused. Then the other readings are tried, too:
the one that works says what is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.heads.unroll import unrolled
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["FLOOR", "Trial", "rates_of", "try_head", "written_by"]

FLOOR = 0.2
"""Of first drafted tokens, the share that must be right; a head that was read wrongly has 0.01 to
0.1, and one that was trained has 0.5 to 0.8."""
_STEPS = 3
_LENGTH = 40
_BETTER = 1.5
_STARTS = (
    "The most important thing to know about the sea is",
    "def read_lines(path):\n",
    "Question: How do I boil an egg?\nAnswer:",
    "Once upon a time, in a village by the river,",
    "1. Wash the rice. 2.",
    "The committee met on Monday to discuss",
)


class Written(NamedTuple):
    """One text of the target's, and its states."""

    tokens: Sequence[int]
    num_prompt: int
    states: Mapping[int, Float[Tensor, "tokens hidden"]]
    """By boundary; of all tokens but the last."""


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    rates: Sequence[float]
    """Of the first, second and third drafted token: how often it was the target's own."""
    num_tokens: int
    cause: str | None
    """The reading under which the head would have been right, in words."""

    def told(self) -> str:
        """One line."""
        shares = ", ".join(f"{100 * rate:.0f} %" for rate in self.rates)
        return f"right in {shares} of its first, second, third tokens ({self.num_tokens} tried)"

    def refusal(self) -> str | None:
        """Why the head is not used, with the remedy; None if it is."""
        if self.rates[0] >= FLOOR and self.cause is None:
            return None
        cause = self.cause or (
            "no other reading of its config is better: it was trained for another target, or "
            "hardly at all"
        )
        floor = "" if self.rates[0] >= FLOOR else f", and {100 * FLOOR:.0f} % is the least"
        return f"the head is {self.told()}{floor}: {cause}"


def try_head(
    config: HeadConfig,
    weights: HeadWeights,
    target: LanguageModel,
    words: Tokenizer | None = None,
) -> Trial:
    """Let a head guess at text that the target writes, most likely token by most likely token.

    Args:
        config: The head's conventions, as they were read.
        weights: Its tensors.
        target: Hands out its states.
        words: Its tokenizer; None begins texts with single ids.

    Returns:
        The outcome; other readings are tried only where this one fails.
    """
    readings = _readings(config, target)
    boundaries = sorted({b for one, _ in readings for b in one.boundaries} | {*config.boundaries})
    texts = written_by(target, _starts(target, words), boundaries)
    rates = rates_of(config, weights, target, texts)
    count = sum(len(text.tokens) - text.num_prompt for text in texts)
    cause = None
    for other, why in readings:
        is_about_later = other.feeds_back_normed != config.feeds_back_normed
        if rates[0] >= FLOOR and not is_about_later:
            continue
        theirs = rates_of(other, weights, target, texts)
        place = 2 if is_about_later else 0
        # A reading that is only a little better may be chance.
        if theirs[place] >= max(FLOOR, _BETTER * rates[place]):
            share = f"{100 * theirs[place]:.0f} % of its {'third' if place else 'first'} tokens"
            cause = f"{why} it would be right in {share}: correct its config.json"
            break
    return Trial(rates, count, cause)


def _readings(config: HeadConfig, target: LanguageModel) -> list[tuple[HeadConfig, str]]:
    """Other readings of the same files, the likeliest first, and what to say of them."""
    found: list[tuple[HeadConfig, str]] = []
    for shift in (-1, 1):
        moved = tuple(b + shift for b in config.boundaries)
        if min(moved) >= 0 and max(moved) < target.num_boundaries:
            where = ", ".join(map(str, moved))
            found.append((replace(config, boundaries=moved), f"with states behind layers {where}"))
    turned = not config.norm_before_residual
    found.append(
        (
            replace(config, norm_before_residual=turned),
            f"with norm_before_residual {str(turned).lower()}",
        )
    )
    found += [
        (replace(config, rope_theta=theta), f"with rope_theta {theta:g}")
        for theta in (10_000.0, _theta(target))
        if abs(theta - config.rope_theta) > 1
    ]
    fed = not config.feeds_back_normed
    found.append((replace(config, feeds_back_normed=fed), f"with norm_output {str(fed).lower()}"))
    return found


def _theta(target: LanguageModel) -> float:
    """The target's own base, as its frequencies tell it."""
    if not isinstance(target, CpuDecoder | TorchDecoder):
        return 10_000.0
    frequencies = target.config.rotary.inverse_frequencies
    if len(frequencies) < 2:
        return 10_000.0
    return float(frequencies[0] / frequencies[1]) ** len(frequencies)


def _starts(target: LanguageModel, words: Tokenizer | None) -> list[list[int]]:
    if words is not None:
        return [words.encode(text) for text in _STARTS]
    size = target.traits.vocab_size
    return [[1 + place * size // 8, 2 + place * size // 9] for place in range(len(_STARTS))]


def written_by(
    target: LanguageModel, starts: Sequence[Sequence[int]], boundaries: Sequence[int]
) -> list[Written]:
    """Texts of a target, its likeliest token each time, side by side.

    Args:
        target: Hands out its states.
        starts: What each begins with, two tokens or more.
        boundaries: Of the states that are wanted.

    Returns:
        A text each.
    """
    cache = target.open_cache()
    rows = [cache.add() for _ in starts]
    texts = [list(start) for start in starts]
    parts: list[list[Tensor]] = [[] for _ in starts]
    feeds: list[list[int]] = [list(start) for start in starts]
    for _ in range(_LENGTH):
        logits, states = target.forward_with_states(cache, Rows(rows, feeds), boundaries)
        for place, feed in enumerate(feeds):
            parts[place].append(states[place, : len(feed)])
            texts[place].append(int(logits[place, len(feed) - 1].argmax()))
        feeds = [[text[-1]] for text in texts]
    for row in rows:
        cache.remove(row)
    joined = [torch.cat(part).clone() for part in parts]
    return [
        Written(text, len(start), dict(zip(boundaries, states.unbind(1), strict=True)))
        for text, start, states in zip(texts, starts, joined, strict=True)
    ]


@torch.no_grad()
def rates_of(
    config: HeadConfig, weights: HeadWeights, target: LanguageModel, texts: Sequence[Written]
) -> list[float]:
    """How often a head's likeliest token is the text's own, by the place in the draft.

    Args:
        config: Under which reading.
        weights: The head's tensors.
        target: Whose tables it reads.
        texts: With states at the head's boundaries.

    Returns:
        A share for each of the first three places.
    """
    tables = tables_of(target)
    head = PlainHead(config, weights.tensors, tables.logits)
    right, tried = [0] * _STEPS, 0
    for text in texts:
        states = torch.stack([text.states[b] for b in config.boundaries], dim=1).unsqueeze(0)
        read = list(text.tokens[1:])
        embedded = weights.tensors["embedding"][read] if config.has_embedding else None
        embedded = tables.embed(read) if embedded is None else embedded
        first, last = text.num_prompt - 2, len(text.tokens) - 2 - _STEPS
        tried += last + 1 - first
        steps = unrolled(head, states, embedded.unsqueeze(0), _STEPS)
        for step, stream in enumerate(steps):
            guesses = head.logits(stream[0, first : last + 1]).argmax(-1)
            guesses = guesses if weights.ids is None else weights.ids[guesses]
            truth = torch.tensor(text.tokens[first + 2 + step : last + 3 + step])
            right[step] += int((guesses == truth).sum())
    return [count / tried for count in right]
