"""Prompts that the target invents: it writes a user's turn where its template lets one begin.

A model that was taught conversations goes on from the opening of a user's turn with a question
such as it was taught (Magpie: Xu et al., arXiv:2406.08464). So prompts need no data set.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.models.tokenizer import Tokenizer
from draftsmith.train.limit import TimeLimit
from draftsmith.train.texts import Text, append, digest, resumed, written

__all__ = ["invented"]

_LONGEST = 160
"""Tokens of a turn: one that goes on for longer has mostly lost its thread."""
_TRIES = 3
"""Turns that are tried for each that is wanted, at most."""
_CONTENTS = ("A", "\N{SNOWMAN}", "7 x 8", "def f():")
_SEED = 1 << 62
"""Apart from the seeds of texts."""


class _Turn(NamedTuple):
    """How a template opens a user's turn, and which tokens end it."""

    opening: list[int]
    ends: tuple[int, ...]


def invented(
    engine: Engine,
    count: int,
    openings: Sequence[str],
    max_length: int,
    seed: int,
    path: Path,
    on_progress: Callable[[int], None] = lambda done: None,
    limit: TimeLimit | None = None,
) -> list[list[int]]:
    """Let the target invent prompts, at temperature 1, and ask them in its own template.

    A turn is kept that ends by itself within half a text, says something, and is new.

    Args:
        engine: Of the target, plain, with its tokenizer.
        count: Prompts that are wanted; there may be fewer where the target repeats itself.
        openings: What every second turn begins with, each in its turn.
        max_length: Of a text.
        seed: Of all of them.
        path: A file of turns, gone on with where it is there.
        on_progress: Told the number of prompts.
        limit: Of the time; None has no end.

    Returns:
        Token ids, ready for the answer.

    Raises:
        InvalidRequestError: The target has no chat template, or invents nothing.
    """
    words = engine.tokenizer
    if words is None or not words.has_chat_template:
        raise InvalidRequestError(
            "prompts can be invented by a model with a chat template alone: give --prompts or "
            "--data to another"
        )
    turn, longest = _turn_of(words), min(_LONGEST, max_length // 2)
    begun = [[], *(words.encode_plain(opening) for opening in openings)]
    head: dict[str, object] = {
        "of": "draftsmith prompts",
        "longest": longest,
        "seed": seed,
        "prompts": digest(engine, [turn.opening, *begun]),
    }
    turns = resumed(path, head)
    limit = limit or TimeLimit()
    while True:
        found = list(dict.fromkeys(_said(words, turn, turns)))[:count]
        on_progress(len(found))
        is_over = limit.are_prompts_over and len(found) > 0
        if len(found) == count or len(turns) >= _TRIES * count or is_over:
            break
        left = min(_TRIES * count - len(turns), max(16, 2 * (count - len(found))))
        numbers = range(len(turns), len(turns) + min(left, 4 * engine.max_batch_size))
        starts = [[*turn.opening, *_opening(begun, number)] for number in numbers]
        params = [
            SamplingParams(
                max_tokens=longest,
                temperature=1.0,
                seed=_SEED + seed * 1_000_003 + number,
                stop_token_ids=turn.ends,
            )
            for number in numbers
        ]
        new = [
            text._replace(num_prompt=len(turn.opening)) for text in written(engine, starts, params)
        ]
        append(path, new)
        turns += new
    if not found:
        raise InvalidRequestError(
            f"{engine.target.traits.name} invents no prompt that ends: give --prompts or --data"
        )
    return [words.encode_chat([{"role": "user", "content": text}]) for text in found]


def _opening(begun: Sequence[list[int]], number: int) -> list[int]:
    """Nothing for every other number, and for all where nothing else is given."""
    return begun[1 + number // 2 % (len(begun) - 1)] if len(begun) > 1 and number % 2 else []


def _said(words: Tokenizer, turn: _Turn, turns: Sequence[Text]) -> Iterator[str]:
    """What the turns say that ended by themselves."""
    for text in turns:
        if text.tokens[-1] in turn.ends:
            said = words.decode(text.tokens[text.num_prompt : -1]).strip()
            if any(character.isalnum() for character in said):
                yield said


def _turn_of(words: Tokenizer) -> _Turn:
    """What any conversation's template has before and behind the user's words.

    Raises:
        InvalidRequestError: It does not close a turn.
    """
    talks = [words.encode_chat([{"role": "user", "content": one}]) for one in _CONTENTS]
    opening = _common(talks)
    rest = _common([talk[::-1] for talk in talks])[::-1]
    if not opening or not rest:
        raise InvalidRequestError(
            "the target's chat template says nowhere that a user's turn begins and ends: give "
            "--prompts or --data"
        )
    return _Turn(opening, (rest[0],))


def _common(talks: Sequence[Sequence[int]]) -> list[int]:
    """The beginning that all have in common."""
    found: list[int] = []
    for column in zip(*talks, strict=False):
        if len(set(column)) > 1:
            break
        found.append(column[0])
    return found
