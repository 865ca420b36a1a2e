"""The shortest way in: name a target and a draft, get text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from draftsmith.core.params import Gamma, SamplingParams, check_gamma
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
from draftsmith.models.load import Activations, Dtype, ModelSettings, load_model, load_tokenizer
from draftsmith.models.pull import PullProgress
from draftsmith.models.reference import resolve
from draftsmith.models.tokenizer import Tokenizer, check_same_vocabulary

__all__ = ["generate", "load_drafter", "load_engine"]

OnProgress = Callable[[PullProgress], None]
_TABLES = {"unigram": 1, "bigram": 2}
_DRAFT_HEAD_IDS = 32_768
"""Of a draft's head on a CPU, by default: of a large vocabulary, few ids are ever drafted."""


def generate(
    prompt: Prompt,
    *,
    target: str,
    draft: str | Drafter | None = None,
    gamma: Gamma = 4,
    dtype: Dtype = "auto",
    device: str = "auto",
    activations: Activations = "int8",
    threads: int | None = None,
    **sampling: Any,  # noqa: ANN401 - any field's type
) -> GenerationResult:
    """Generate once: load the models, run, return the result, whose `str` is the text.

    For more than one call, make an `Engine` with `load_engine` and keep it.

    Args:
        prompt: Text, token ids, or a conversation.
        target: A catalogue name, `org/name` on the Hub, a folder, or a `.gguf` file.
        draft: What guesses, as `load_engine` takes it; None decodes plainly.
        gamma: Drafted tokens per round, 0 to 32; "auto" drafts what pays.
        dtype: Of the weights; see `load_engine`.
        device: A torch device; `auto` is the GPU if there is one.
        activations: Of products with quantised weights; see `load_engine`.
        threads: Of the CPU kernels; None is the physical cores.
        **sampling: Fields of `SamplingParams`.

    Raises:
        DraftsmithError: One line that names what is wrong and the remedy.

    Example:
        >>> import draftsmith
        >>> result = draftsmith.generate("def add(a, b):", target="smollm2-135m-instruct",
        ...                              draft="prompt-lookup", max_tokens=8)
        >>> len(result.token_ids)
        8
    """
    params = SamplingParams.from_options(**sampling)
    engine = load_engine(
        target,
        draft,
        gamma=gamma,
        dtype=dtype,
        device=device,
        activations=activations,
        threads=threads,
    )
    return engine.generate(prompt, params)[0]


def load_engine(
    target: str,
    draft: str | Drafter | None = None,
    *,
    gamma: Gamma = 4,
    dtype: Dtype = "auto",
    device: str = "auto",
    activations: Activations = "int8",
    threads: int | None = None,
    draft_vocab_size: int = _DRAFT_HEAD_IDS,
    max_batch_size: int = 16,
    on_progress: OnProgress | None = None,
) -> Engine:
    """Load a target and a draft by reference.

    Args:
        target: A catalogue name, `org/name` on the Hub, a folder, or a `.gguf` file.
        draft: The same for a draft model; or `prompt-lookup`, `random`, `unigram:FILE`,
            `bigram:FILE` (a table saved by `NgramTable.save`, or any text file); or a `Drafter`.
        gamma: Drafted tokens per round, 0 to 32; "auto" drafts what pays.
        dtype: Of the weights: `auto` keeps what the file holds on a CPU (a GGUF's own blocks
            included) and is bfloat16 on a GPU; or `float32`, `bfloat16`, `float16`; `int8` and
            `int4` round a float checkpoint on a CPU, which makes it a different model.
        device: A torch device; `auto` is the GPU if there is one.
        activations: Of products with quantised weights on a CPU: `int8` rounds them, each row
            by itself; `float32` keeps them, and is slower.
        threads: Of the CPU kernels and torch; None is the physical cores.
        draft_vocab_size: Ids that a draft model on a CPU considers, beside those of the text
            so far: the first ones, which are the most frequent in a byte-pair vocabulary. The
            text does not depend on it; 0 considers all.
        max_batch_size: Sequences that run at once.
        on_progress: Called while a catalogue model is fetched.

    Raises:
        DraftsmithError: One line that names what is wrong and the remedy.
    """
    # What can be refused without the weights is refused before they are read.
    if not check_gamma(gamma):
        draft = None
    settings = ModelSettings(dtype, device, activations, threads)
    if draft_vocab_size < 0:
        raise InvalidRequestError(f"draft_vocab_size must be 0 or more, got {draft_vocab_size}")
    is_model = isinstance(draft, str) and _is_model(draft)
    if isinstance(draft, str) and is_model:
        resolve(draft)
    tokenizer = load_tokenizer(target, on_progress)
    if isinstance(draft, str) and is_model:
        draft_tokenizer = load_tokenizer(draft, on_progress)
        check_same_vocabulary(tokenizer, draft_tokenizer, target, draft)
    model = load_model(target, settings, on_progress)
    if isinstance(draft, str):
        if is_model:
            draft = _model_drafter(draft, settings, draft_vocab_size, on_progress)
        else:
            draft = _free_drafter(draft, model.traits.vocab_size, tokenizer)
    return Engine(model, tokenizer, draft, gamma=gamma, max_batch_size=max_batch_size)


def load_drafter(
    draft: str,
    engine: Engine,
    *,
    dtype: Dtype = "auto",
    device: str = "auto",
    activations: Activations = "int8",
    threads: int | None = None,
    draft_vocab_size: int = _DRAFT_HEAD_IDS,
    on_progress: OnProgress | None = None,
) -> Drafter:
    """Load one more draft for a target that is loaded; an `Engine` of its own takes it.

    Args:
        draft: As `load_engine` takes it.
        engine: Whose target and tokenizer it is for.
        dtype: Of the weights; this and what follows as in `load_engine`.
        device: A torch device.
        activations: Of products with quantised weights.
        threads: Of the CPU kernels.
        draft_vocab_size: Ids that a draft model considers.
        on_progress: Called while a catalogue model is fetched.

    Raises:
        DraftsmithError: One line that names what is wrong and the remedy.
    """
    if engine.tokenizer is None:
        raise InvalidRequestError("a draft by name needs an engine with a tokenizer")
    if not _is_model(draft):
        return _free_drafter(draft, engine.target.traits.vocab_size, engine.tokenizer)
    resolve(draft)
    tokenizer = load_tokenizer(draft, on_progress)
    check_same_vocabulary(engine.tokenizer, tokenizer, engine.target.traits.name, draft)
    settings = ModelSettings(dtype, device, activations, threads)
    return _model_drafter(draft, settings, draft_vocab_size, on_progress)


def _model_drafter(
    draft: str, settings: ModelSettings, num_head_ids: int, on_progress: OnProgress | None
) -> ModelDrafter:
    return ModelDrafter(load_model(draft, settings, on_progress, num_head_ids=num_head_ids or None))


def _is_model(draft: str) -> bool:
    """Whether a draft's name is a model's reference; a table's file must be there."""
    kind, _, path = draft.partition(":")
    if kind in _TABLES:
        if not path:
            raise InvalidRequestError(f"draft {kind} needs a file: {kind}:TABLE.npz or {kind}:TEXT")
        if not Path(path).is_file():
            raise ModelNotFoundError(f"n-gram file {path!r} does not exist: check the path")
        return False
    return draft not in ("prompt-lookup", "random")


def _free_drafter(draft: str, vocab_size: int, tokenizer: Tokenizer) -> Drafter:
    """A drafter that is no model."""
    if draft == "prompt-lookup":
        return PromptLookupDrafter()
    if draft == "random":
        return RandomDrafter(vocab_size)
    kind, _, path = draft.partition(":")
    return NgramDrafter(_table(path, _TABLES[kind], vocab_size, tokenizer))


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
    return NgramTable.from_tokens([tokenizer.encode(text)], vocab_size, order)
