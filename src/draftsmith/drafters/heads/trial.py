"""A head's trial at load: what it accepts of text that the target writes, and what if it does not.

A convention that was read wrongly raises no error anywhere: the head merely drafts nonsense, and
the text is as slow as before. So the target writes some lines, the head guesses at every position
of them, and one that is nearly always wrong is refused. Then the other readings are tried, too:
the one that works says what is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from draftsmith.drafters.heads.kind import Head, Written
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["FLOOR", "Trial", "rates_of", "starts_of", "try_head", "written_by"]

FLOOR = 0.2
"""Of first drafted tokens, the share that must be right; a head that was read wrongly has 0.01 to
0.1, and one that was trained has 0.5 to 0.8."""
_PLACES = ("first", "second", "third")
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
        places = ", ".join(_PLACES[: len(self.rates)])
        return f"right in {shares} of its {places} tokens ({self.num_tokens} tried)"

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


def try_head(head: Head, target: LanguageModel, words: Tokenizer | None = None) -> Trial:
    """Let a head guess at text that the target writes, most likely token by most likely token.

    Args:
        head: As it was read.
        target: Hands out its states.
        words: Its tokenizer; None begins texts with single ids.

    Returns:
        The outcome; other readings are tried only where this one fails.
    """
    readings = head.readings(target)
    boundaries = {b for one in readings for b in one.head.boundaries} | {*head.boundaries}
    texts = written_by(target, starts_of(target, words), sorted(boundaries))
    rates = rates_of(head, target, texts)
    count = sum(len(text.tokens) - text.num_prompt for text in texts)
    cause = None
    for other, why, place, remedy in readings:
        if rates[0] >= FLOOR and place == 0:
            continue
        theirs = rates_of(other, target, texts)
        # A reading that is only a little better may be chance.
        if theirs[place] >= max(FLOOR, _BETTER * rates[place]):
            share = f"{100 * theirs[place]:.0f} % of its {_PLACES[place]} tokens"
            cause = f"{why} it would be right in {share}: {remedy}"
            break
    return Trial(rates, count, cause)


def starts_of(target: LanguageModel, words: Tokenizer | None = None) -> list[list[int]]:
    """What the texts of a trial begin with.

    Args:
        target: Writes them.
        words: Its tokenizer; None begins them with single ids.

    Returns:
        Ids, two or more of each.
    """
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
def rates_of(head: Head, target: LanguageModel, texts: Sequence[Written]) -> list[float]:
    """How often a head's likeliest token is the text's own, by the place in the draft.

    Args:
        head: Under one reading.
        target: Whose tables it reads.
        texts: With states at the head's boundaries.

    Returns:
        A share for each of the first three places, or of fewer where the head guesses no more.
    """
    tables, num_steps = tables_of(target), len(_PLACES)
    right = torch.zeros(num_steps, dtype=torch.long)
    tried = 0
    for text in texts:
        rows = text.rows(num_steps)
        guesses = head.guesses(text, tables, num_steps)
        truth = torch.tensor(text.tokens[rows.start + 2 :])
        truth = truth.unfold(0, len(rows), 1)[: len(guesses)]
        right = right[: len(guesses)] + (guesses == truth).sum(dim=1)
        tried += len(rows)
    return [count / tried for count in right.tolist()]
