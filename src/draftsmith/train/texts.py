"""Texts of the target's own, written once and kept: a training that is killed goes on from them."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from draftsmith.core.params import SamplingParams
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.train.limit import TimeLimit
from draftsmith.train.options import TrainOptions

__all__ = ["Text", "append", "digest", "own_texts", "resumed", "written"]

_CHUNK = 64
_BATCHES = 4
"""Texts that are asked for at once, in batches of the engine: the last of them run alone."""
_MOST_ROUNDS = 1000


class Text(NamedTuple):
    """What was asked and what the target answered."""

    tokens: list[int]
    num_prompt: int

    @property
    def num_own(self) -> int:
        """Tokens that the target wrote."""
        return len(self.tokens) - self.num_prompt


def own_texts(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    options: TrainOptions,
    path: Path,
    on_progress: Callable[[int], None],
    limit: TimeLimit | None = None,
    num_settled: int = 0,
) -> list[Text]:
    """Let the target answer prompts until there is as much text as is wanted.

    A text depends on the options and on its number alone, so that what was written before a kill
    is what would have been written without it.

    Args:
        engine: Of the target, plain.
        prompts: Asked in turn, again and again with other seeds where they are few.
        options: How much, and how.
        path: A file of texts, gone on with where it is there.
        on_progress: Told the number of tokens written.
        limit: Of the time; None has no end.
        num_settled: Texts that a training has begun with: no more are written; 0 where none has.

    Raises:
        InvalidRequestError: The file is another training's, or the target answers nothing.
    """
    head = {"of": "draftsmith texts", **options.of_texts, "prompts": digest(engine, prompts)}
    texts = resumed(path, head)
    size = sum(text.num_own for text in texts)
    is_varied = options.temperature > 0 and options.greedy_share < 1
    most = (_MOST_ROUNDS if is_varied else 1) * len(prompts)
    limit = limit or TimeLimit()
    chunk = max(_CHUNK, _BATCHES * engine.max_batch_size)

    def is_enough() -> bool:
        if num_settled:
            return sum(map(_is_usable, texts)) >= num_settled
        is_over = size >= options.num_tokens or len(texts) >= most
        return is_over or (limit.is_text_over and len(texts) > 0)

    while not is_enough():
        # As many as are still wanted, if texts go on being as long as they were.
        usual = size / len(texts) if texts else options.max_length
        wanted = math.ceil((options.num_tokens - size) / max(1.0, usual))
        numbers = range(len(texts), min(most, len(texts) + min(chunk, max(2, wanted))))
        new = _answers(engine, prompts, numbers, options)
        append(path, new)
        texts += new
        size += sum(text.num_own for text in new)
        on_progress(min(size, options.num_tokens))
    usable = [text for text in texts if _is_usable(text)][: num_settled or None]
    if len(usable) < 2:
        raise InvalidRequestError(
            f"the target answered {len(usable)} of {len(prompts)} prompts with two tokens or more: "
            "give other prompts"
        )
    return usable


def _is_usable(text: Text) -> bool:
    return text.num_own > 1


def _answers(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    options: TrainOptions,
) -> list[Text]:
    sampled = options.temperature
    asked = [prompts[number % len(prompts)] for number in numbers]
    params = [
        SamplingParams(
            max_tokens=options.max_length - len(prompt),
            # A prompt's second greedy text would be its first.
            temperature=options.temperature_of(number) if number < len(prompts) else sampled,
            seed=options.seed * 1_000_003 + number,
        )
        for prompt, number in zip(asked, numbers, strict=True)
    ]
    return written(engine, asked, params)


def written(
    engine: Engine, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
) -> list[Text]:
    """What the target says to some prompts, side by side.

    Args:
        engine: Of the target, plain.
        prompts: Token ids.
        params: Of each.

    Raises:
        InvalidRequestError: It cannot answer one of them.
    """
    # One prompt alone would raise where one of several says what is wrong.
    results = engine.generate([list(prompt) for prompt in prompts], params)
    texts: list[Text] = []
    for prompt, result in zip(prompts, results, strict=True):
        completion = result.completions[0]
        if completion.error is not None:
            raise InvalidRequestError(f"the target cannot answer a prompt: {completion.error}")
        texts.append(Text([*prompt, *completion.token_ids], len(prompt)))
    return texts


# --- the file -----------------------------------------------------------------------------------


def digest(engine: Engine, prompts: Sequence[Sequence[int]]) -> str:
    """What tells some prompts to a target from others.

    Args:
        engine: Of the target.
        prompts: Token ids.
    """
    found = hashlib.sha256(engine.target.traits.name.encode())
    for prompt in prompts:
        found.update(json.dumps(list(prompt)).encode())
    return found.hexdigest()[:16]


def resumed(path: Path, head: dict[str, object]) -> list[Text]:
    """The texts of a file, which is begun where it is not there.

    Args:
        path: The place.
        head: What the texts depend on.

    Raises:
        InvalidRequestError: They depend on something else.
        ModelFormatError: It is no such file.
    """
    if not path.exists():
        path.write_text(json.dumps(head) + "\n", encoding="utf-8")
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    lines = whole.split("\n")
    try:
        records = [json.loads(line) for line in lines if line]
        found, texts = records[0], [Text(one["tokens"], one["num_prompt"]) for one in records[1:]]
    except (ValueError, LookupError, TypeError) as error:
        raise ModelFormatError(f"{path} is no file of texts ({error}): remove it") from error
    if found != head:
        other = next((key for key in head if found.get(key) != head[key]), "of")
        raise InvalidRequestError(
            f"{path} holds texts of a training with another {other} ({found.get(other)!r}): "
            "give the same, or another --out"
        )
    # A line that a kill has cut is written again.
    path.write_text(whole + "\n", encoding="utf-8")
    return texts


def append(path: Path, texts: Sequence[Text]) -> None:
    """Write texts behind those of a file.

    Args:
        path: The place.
        texts: The new ones.
    """
    lines = [json.dumps({"tokens": one.tokens, "num_prompt": one.num_prompt}) for one in texts]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
