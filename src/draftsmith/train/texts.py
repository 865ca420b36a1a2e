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
from draftsmith.train.options import TrainOptions

__all__ = ["Text", "own_texts"]

_CHUNK = 64
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

    Raises:
        InvalidRequestError: The file is another training's, or the target answers nothing.
    """
    head = {"of": "draftsmith texts", **options.of_texts, "prompts": _digest(engine, prompts)}
    texts = _resume(path, head)
    written = sum(text.num_own for text in texts)
    rounds = 1 if options.temperature == 0 else _MOST_ROUNDS
    most = rounds * len(prompts)
    while written < options.num_tokens and len(texts) < most:
        # As many as are still wanted, if texts go on being as long as they were.
        usual = written / len(texts) if texts else options.max_length
        wanted = math.ceil((options.num_tokens - written) / max(1.0, usual))
        numbers = range(len(texts), min(most, len(texts) + min(_CHUNK, max(2, wanted))))
        new = _answers(engine, [prompts[n % len(prompts)] for n in numbers], numbers, options)
        _append(path, new)
        texts += new
        written += sum(text.num_own for text in new)
        on_progress(min(written, options.num_tokens))
    usable = [text for text in texts if text.num_own > 1]
    if len(usable) < 2:
        raise InvalidRequestError(
            f"the target answered {len(usable)} of {len(prompts)} prompts with two tokens or more: "
            "give other prompts"
        )
    return usable


def _answers(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    options: TrainOptions,
) -> list[Text]:
    longest = options.max_length
    params = [
        SamplingParams(
            max_tokens=longest - len(prompt),
            temperature=options.temperature,
            seed=options.seed * 1_000_003 + number,
        )
        for prompt, number in zip(prompts, numbers, strict=True)
    ]
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


def _digest(engine: Engine, prompts: Sequence[Sequence[int]]) -> str:
    found = hashlib.sha256(engine.target.traits.name.encode())
    for prompt in prompts:
        found.update(json.dumps(list(prompt)).encode())
    return found.hexdigest()[:16]


def _resume(path: Path, head: dict[str, object]) -> list[Text]:
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


def _append(path: Path, texts: Sequence[Text]) -> None:
    lines = [json.dumps({"tokens": one.tokens, "num_prompt": one.num_prompt}) for one in texts]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
