"""The shortest way in: name a target and a draft, get text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

from torch import Tensor

from draftsmith.core.demands import NO_DEMANDS
from draftsmith.core.params import Gamma, SamplingParams, gamma_for
from draftsmith.core.values import check_whole, require
from draftsmith.drafters import (
    Drafter,
    ModelDrafter,
    NgramDrafter,
    NgramTable,
    PromptLookupDrafter,
    RandomDrafter,
)
from draftsmith.engine.engine import Engine
from draftsmith.engine.prompts import Prompts, plain_prompts
from draftsmith.engine.request import check_demands
from draftsmith.engine.result import GenerationResult
from draftsmith.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    VocabularyMismatchError,
)
from draftsmith.models.contract import LanguageModel
from draftsmith.models.given import (
    GivenModel,
    GivenTokenizer,
    as_loaded_model,
    as_reference,
    as_tokenizer,
)
from draftsmith.models.load import Activations, Dtype, ModelSettings, load_model
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.pull import PullProgress
from draftsmith.models.tokenizer import Message, Tokenizer, check_same_vocabulary

__all__ = ["generate", "load_drafter", "load_engine"]

OnProgress = Callable[[PullProgress], None]
GivenDraft: TypeAlias = GivenModel | Drafter
_TABLES = {"unigram": 1, "bigram": 2}
_DRAFT_HEAD_IDS = 32_768
"""Of a draft's head on a CPU, by default: of a large vocabulary, few ids are ever drafted."""


@overload
def generate(
    prompt: str | Sequence[int] | Sequence[Message],
    *,
    target: GivenModel,
    draft: GivenDraft | None = None,
    **options: Any,  # noqa: ANN401 - those below
) -> GenerationResult: ...


@overload
def generate(
    prompt: list[str] | tuple[str, ...] | Sequence[Sequence[int]] | Sequence[Sequence[Message]],
    *,
    target: GivenModel,
    draft: GivenDraft | None = None,
    **options: Any,  # noqa: ANN401 - those below
) -> list[GenerationResult]: ...


@overload
def generate(
    prompt: Tensor | Mapping[str, Any],
    *,
    target: GivenModel,
    draft: GivenDraft | None = None,
    **options: Any,  # noqa: ANN401 - those below
) -> GenerationResult | list[GenerationResult]: ...


def generate(
    prompt: Prompts,
    *,
    target: GivenModel,
    draft: GivenDraft | None = None,
    tokenizer: GivenTokenizer | None = None,
    draft_tokenizer: GivenTokenizer | None = None,
    gamma: Gamma | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    activations: Activations | None = None,
    threads: int | None = None,
    **sampling: Any,
) -> GenerationResult | list[GenerationResult]:
    """Generate once: load the models, run, return the result, whose `str` is the text.

    For more than one call, make an `Engine` with `load_engine` and keep it.

    Args:
        prompt: Text, token ids, or a conversation; or a list of such, which gives a list of
            results. Ids may be a tensor, an array, or a tokenizer's mapping.
        target: What generates, as `load_engine` takes it.
        draft: What guesses, as `load_engine` takes it; None decodes plainly.
        tokenizer: Of the target; this and what follows as in `load_engine`.
        draft_tokenizer: Of the draft.
        gamma: Drafted tokens per round, 0 to 32; "auto" drafts what pays; None is 4 with a draft.
        dtype: Of the weights.
        device: A torch device; `auto` is the GPU if there is one.
        activations: Of products with quantised weights.
        threads: Of the CPU kernels; None is the physical cores.
        **sampling: Fields of `SamplingParams`.

    Returns:
        The result of one prompt, or a list of results, one a prompt.

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
    _, is_single = plain_prompts(prompt)
    engine = load_engine(
        target,
        draft,
        tokenizer=tokenizer,
        draft_tokenizer=draft_tokenizer,
        gamma=gamma,
        dtype=dtype,
        device=device,
        activations=activations,
        threads=threads,
    )
    results = engine.generate(prompt, params)
    return results[0] if is_single else results


def load_engine(
    target: GivenModel,
    draft: GivenDraft | None = None,
    *,
    tokenizer: GivenTokenizer | None = None,
    draft_tokenizer: GivenTokenizer | None = None,
    gamma: Gamma | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    activations: Activations | None = None,
    threads: int | None = None,
    draft_vocab_size: int | None = None,
    max_batch_size: int = 16,
    on_progress: OnProgress | None = None,
) -> Engine:
    """Load a target and a draft by reference, or take them as they are loaded already.

    Args:
        target: A catalogue name, `org/name` on the Hub, a folder or a `.gguf` file (also as a
            `Path`); or a loaded model, of `transformers` or ours.
        draft: The same for a draft model; or `prompt-lookup`, `random`, `unigram:FILE`,
            `bigram:FILE` (a table saved by `NgramTable.save`, or any text file); or a `Drafter`.
        tokenizer: The target's, of `transformers` or ours, or a reference to it; None is the
            target's own where it is named, and token ids only where it is loaded.
        draft_tokenizer: The same of a draft model, to be compared with the target's.
        gamma: Drafted tokens per round, 0 to 32; "auto" drafts what pays; None is 4 with a draft.
        dtype: Of the weights: `auto` keeps what the file holds on a CPU (a GGUF's own blocks
            included) and is bfloat16 on a GPU; or `float32`, `bfloat16`, `float16`; `int8` and
            `int4` round a float checkpoint on a CPU, which makes it a different model.
        device: A torch device; `auto` is the GPU if there is one.
        activations: Of products with quantised weights on a CPU: `int8` rounds them, each row
            by itself; `float32` keeps them, and is slower; None is `int8` where there are such.
        threads: Of the CPU kernels and torch; None is the physical cores.
        draft_vocab_size: Ids that a draft model on a CPU considers, beside those of the text
            so far: the first ones, which are the most frequent in a byte-pair vocabulary. The
            text does not depend on it; 0 considers all; None is 32768.
        max_batch_size: Sequences that run at once.
        on_progress: Called while a catalogue model is fetched.

    Returns:
        An engine for any number of prompts.

    Raises:
        DraftsmithError: One line that names what is wrong and the remedy.

    Example:
        >>> import draftsmith
        >>> engine = draftsmith.load_engine("smollm2-135m-instruct", "prompt-lookup", gamma=4)
        >>> results = engine.generate(["one prompt", "another"], max_tokens=4)
        >>> [len(result.token_ids) for result in results]
        [4, 4]
    """
    # What can be refused without the weights is refused before they are read.
    settings = ModelSettings(dtype, device, activations, threads)
    _check_run(max_batch_size, on_progress)
    if not gamma_for(gamma, has_draft=draft is not None):
        draft = None
    named = as_reference(target, "target")
    draft_named = _draft_reference(draft, draft_vocab_size, draft_tokenizer)
    if named is None and draft_named is None:
        _check_unused(settings)
    words = as_tokenizer(named if tokenizer is None else tokenizer, "tokenizer", on_progress)
    theirs = _draft_words(draft_named, draft_tokenizer, words, named or "target", on_progress)
    model = as_loaded_model(target) if named is None else load_model(named, settings, on_progress)
    check_demands(model.traits)
    drafter = None
    if draft is not None:
        loading = _Loading(settings, draft_vocab_size, on_progress)
        drafter = _drafter(draft, draft_named, model, words, theirs, loading)
    return Engine(model, words, drafter, gamma=gamma, max_batch_size=max_batch_size)


def load_drafter(
    draft: GivenDraft,
    engine: Engine,
    *,
    draft_tokenizer: GivenTokenizer | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    activations: Activations | None = None,
    threads: int | None = None,
    draft_vocab_size: int | None = None,
    on_progress: OnProgress | None = None,
) -> Drafter:
    """Load one more draft for a target that is loaded; an `Engine` of its own takes it.

    Args:
        draft: As `load_engine` takes it.
        engine: Whose target and tokenizer it is for.
        draft_tokenizer: As `load_engine` takes it.
        dtype: Of the weights; this and what follows as in `load_engine`.
        device: A torch device.
        activations: Of products with quantised weights.
        threads: Of the CPU kernels.
        draft_vocab_size: Ids that a draft model considers.
        on_progress: Called while a catalogue model is fetched.

    Returns:
        The drafter.

    Raises:
        DraftsmithError: One line that names what is wrong and the remedy.

    Example:
        >>> engine = load_engine("smollm2-135m-instruct")
        >>> load_drafter("prompt-lookup", engine).name
        'prompt-lookup'
    """
    settings = ModelSettings(dtype, device, activations, threads)
    named = _draft_reference(draft, draft_vocab_size, draft_tokenizer)
    if named is None:
        _check_unused(settings)
    model, words = engine.target, engine.tokenizer
    theirs = _draft_words(named, draft_tokenizer, words, model.traits.name, on_progress)
    loading = _Loading(settings, draft_vocab_size, on_progress)
    return _drafter(draft, named, model, words, theirs, loading)


class _Loading(NamedTuple):
    """How a draft model is loaded."""

    settings: ModelSettings
    num_head_ids: int | None
    on_progress: OnProgress | None


def _check_run(max_batch_size: object, on_progress: object) -> None:
    size = check_whole("max_batch_size", max_batch_size)
    require(size >= 1, "max_batch_size", "1 or more", max_batch_size)
    is_function = on_progress is None or callable(on_progress)
    require(is_function, "on_progress", "a function that takes the progress", on_progress)


def _check_unused(settings: ModelSettings) -> None:
    """Refuse settings of loading where nothing is loaded."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value != item.default:
            raise InvalidRequestError(
                f"{item.name}={value!r} is for models that are loaded by name, and these are "
                "loaded: set it where they are loaded"
            )


# --- drafts -----------------------------------------------------------------------------------


def _draft_reference(
    draft: GivenDraft | None, num_head_ids: object, tokenizer: object
) -> str | None:
    """A draft model's reference; None if the draft is loaded, or no model.

    Raises:
        DraftsmithError: If it is no draft, or has no use for an option of draft models.
    """
    is_free = isinstance(draft, str) and not _is_model(draft)
    is_ours = draft is None or isinstance(draft, Drafter)
    named = None if is_free or is_ours else as_reference(draft, "draft")
    if num_head_ids is not None:
        require(
            check_whole("draft_vocab_size", num_head_ids) >= 0,
            "draft_vocab_size",
            "0 or more",
            num_head_ids,
        )
        if named is None:
            raise InvalidRequestError(
                f"draft_vocab_size={num_head_ids} is for a draft model that is loaded by name, and "
                f"the draft is {_named(draft)}: leave it out"
            )
    if tokenizer is not None and (is_free or is_ours):
        raise InvalidRequestError(
            f"draft_tokenizer is for a draft model, and the draft is {_named(draft)}: leave it out"
        )
    return named


def _named(draft: GivenDraft | None) -> str:
    return draft.name if isinstance(draft, Drafter) else str(draft).lower()


def _draft_words(
    named: str | None,
    given: GivenTokenizer | None,
    words: Tokenizer | None,
    target: str,
    on_progress: OnProgress | None,
) -> Tokenizer | None:
    """A draft model's tokenizer: the target's own object where the two were found the same."""
    theirs = as_tokenizer(named if given is None else given, "draft_tokenizer", on_progress)
    if theirs is None or words is None:
        return theirs
    check_same_vocabulary(words, theirs, target, named or "model")
    return words


def _drafter(
    draft: GivenDraft,
    named: str | None,
    target: LanguageModel,
    words: Tokenizer | None,
    theirs: Tokenizer | None,
    loading: _Loading,
) -> Drafter:
    if isinstance(draft, Drafter):
        return draft
    if named is not None:
        return ModelDrafter(_load_draft_model(named, loading), theirs)
    if isinstance(draft, str):
        return _free_drafter(draft, target.traits.vocab_size, words)
    # What a draft's own files ask is no rule of the text: the target's are.
    return ModelDrafter(as_loaded_model(draft, NO_DEMANDS), theirs)


def _load_draft_model(named: str, loading: _Loading) -> LanguageModel:
    asked = loading.num_head_ids
    num_ids = _DRAFT_HEAD_IDS if asked is None else asked
    settings, on_progress = loading.settings, loading.on_progress
    model = load_model(named, settings, on_progress, num_head_ids=num_ids or None)
    if asked and not isinstance(model, CpuDecoder):
        raise InvalidRequestError(
            f"draft_vocab_size={asked} needs a native decoder on a CPU, and {named!r} has none: "
            "leave it out"
        )
    return model


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


def _free_drafter(draft: str, vocab_size: int, tokenizer: Tokenizer | None) -> Drafter:
    """A drafter that is no model."""
    if draft == "prompt-lookup":
        return PromptLookupDrafter()
    if draft == "random":
        return RandomDrafter(vocab_size)
    kind, _, path = draft.partition(":")
    return NgramDrafter(_table(path, _TABLES[kind], vocab_size, tokenizer))


def _table(path: str, order: int, vocab_size: int, tokenizer: Tokenizer | None) -> NgramTable:
    """A saved table, or one counted from a text file."""
    if path.endswith(".npz"):
        table = NgramTable.load(path)
        if table.order != order:
            raise InvalidRequestError(f"{path} holds a table of order {table.order}, not {order}")
        if len(table.counts) != vocab_size:
            raise VocabularyMismatchError(
                f"{path} holds a table of {len(table.counts)} ids, and the target has "
                f"{vocab_size}: count it anew with the target's tokenizer"
            )
        return table
    if tokenizer is None:
        raise InvalidRequestError(f"n-gram text {path!r} needs a tokenizer: give tokenizer=")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ModelNotFoundError(
            f"n-gram text {path!r} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"n-gram text {path!r} is not UTF-8 text") from error
    return NgramTable.from_tokens([tokenizer.encode(text)], vocab_size, order)
