"""The shortest way in: name a target and a draft, get text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from draftsmith.core.params import SamplingParams, check_gamma
from draftsmith.drafters import (
    Drafter,
    ModelDrafter,
    NgramDrafter,
    NgramTable,
    PromptLookupDrafter,
    RandomDrafter,
)
from draftsmith.engine.engine import Engine
from draftsmith.engine.request import Prompt
from draftsmith.engine.result import GenerationResult
from draftsmith.errors import InvalidRequestError, ModelNotFoundError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.load import Dtype, load_model, load_tokenizer
from draftsmith.models.pull import PullProgress
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["generate", "load_engine"]

OnProgress = Callable[[PullProgress], None]


def generate(
    prompt: Prompt,
    *,
    target: str,
    draft: str | Drafter | None = None,
    gamma: int = 4,
    dtype: Dtype = "auto",
    device: str = "auto",
    **sampling: Any,  # noqa: ANN401 - any field's type
) -> GenerationResult:
    """Generate once: load the models, run, return the result, whose `str` is the text.

    For more than one call, make an `Engine` with `load_engine` and keep it.

    Args:
        prompt: Text, token ids, or a conversation.
        target: A catalogue name, `org/name` on the Hub, a folder, or a `.gguf` file.
        draft: What guesses, as `load_engine` takes it; None decodes plainly.
        gamma: Drafted tokens per round, 0 to 32.
        dtype: `auto` is float32 on a CPU and bfloat16 on a GPU.
        device: A torch device; `auto` is the GPU if there is one.
        **sampling: Fields of `SamplingParams`.

    Raises:
        DraftsmithError: One line that names what is wrong and the remedy.

    Example:
        draftsmith.generate("def add(a, b):", target="smollm2-135m-instruct",
                            draft="prompt-lookup", max_tokens=32)
    """
    params = SamplingParams.from_options(**sampling)
    engine = load_engine(target, draft, gamma=gamma, dtype=dtype, device=device)
    return engine.generate(prompt, params)[0]


def load_engine(
    target: str,
    draft: str | Drafter | None = None,
    *,
    gamma: int = 4,
    dtype: Dtype = "auto",
    device: str = "auto",
    max_batch_size: int = 16,
    on_progress: OnProgress | None = None,
) -> Engine:
    """Load a target and a draft by reference.

    Args:
        target: A catalogue name, `org/name` on the Hub, a folder, or a `.gguf` file.
        draft: The same for a draft model; or `prompt-lookup`, `random`, `unigram:FILE`,
            `bigram:FILE` (a table saved by `NgramTable.save`, or any text file); or a `Drafter`.
        gamma: Drafted tokens per round, 0 to 32.
        dtype: `auto` is float32 on a CPU and bfloat16 on a GPU.
        device: A torch device; `auto` is the GPU if there is one.
        max_batch_size: Sequences that run at once.
        on_progress: Called while a catalogue model is fetched.

    Raises:
        DraftsmithError: One line that names what is wrong and the remedy.
    """
    # Before the models: a wrong number should not take a minute to refuse.
    if not check_gamma(gamma):
        draft = None
    tokenizer = load_tokenizer(target, on_progress)
    model = load_model(target, dtype, device, on_progress)
    draft_tokenizer: Tokenizer | None = None
    drafter = draft if isinstance(draft, Drafter) else None
    if isinstance(draft, str):
        drafter = _free_drafter(draft, model, tokenizer)
        if drafter is None:
            draft_tokenizer = load_tokenizer(draft, on_progress)
            drafter = ModelDrafter(load_model(draft, dtype, device, on_progress))
    return Engine(
        model,
        tokenizer,
        drafter,
        gamma=gamma,
        max_batch_size=max_batch_size,
        draft_tokenizer=draft_tokenizer,
    )


def _free_drafter(draft: str, target: LanguageModel, tokenizer: Tokenizer) -> Drafter | None:
    """A drafter that is no model; None if `draft` must be a model's reference."""
    if draft == "prompt-lookup":
        return PromptLookupDrafter()
    if draft == "random":
        return RandomDrafter(target.traits.vocab_size)
    kind, colon, path = draft.partition(":")
    if colon and kind in ("unigram", "bigram"):
        order = 1 if kind == "unigram" else 2
        return NgramDrafter(_table(path, order, target.traits.vocab_size, tokenizer))
    if draft in ("unigram", "bigram"):
        raise InvalidRequestError(f"draft {draft} needs a file: {draft}:TABLE.npz or {draft}:TEXT")
    return None


def _table(path: str, order: int, vocab_size: int, tokenizer: Tokenizer) -> NgramTable:
    """A saved table, or one counted from a text file."""
    if path.endswith(".npz"):
        table = NgramTable.load(path)
        if table.order != order:
            raise InvalidRequestError(f"{path} holds a table of order {table.order}, not {order}")
        return table
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ModelNotFoundError(
            f"n-gram text {path!r} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"n-gram text {path!r} is not UTF-8 text") from error
    return NgramTable.from_tokens(_ids(text, tokenizer), vocab_size, order)


def _ids(text: str, tokenizer: Tokenizer) -> Sequence[Sequence[int]]:
    return [tokenizer.encode(text)]
