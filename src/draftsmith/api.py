"""The shortest way in: name a target and a draft, get text."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, overload

from torch import Tensor

from draftsmith.core.gamma import Gamma, check_branches, gamma_for
from draftsmith.core.params import SamplingParams
from draftsmith.core.values import check_flag, check_whole, require
from draftsmith.drafters import Drafter
from draftsmith.drafters.given import (
    DraftLoading,
    GivenDraft,
    OnProgress,
    as_drafter,
    check_on_ranks,
    draft_reference,
    draft_words,
)
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.prompts import Prompts, plain_prompts
from draftsmith.engine.requests.request import check_demands
from draftsmith.engine.requests.result import GenerationResult
from draftsmith.engine.room import check_cache_tokens
from draftsmith.errors import (
    InvalidRequestError,
)
from draftsmith.models.given import (
    GivenModel,
    GivenTokenizer,
    as_loaded_model,
    as_reference,
    as_tokenizer,
)
from draftsmith.models.load import Activations, Dtype, ModelSettings, load_model
from draftsmith.models.settings import meet_ranks, parallel_or_launched
from draftsmith.models.tokenizer import Message

_NAMES = {"tensor_parallel": "parallel"}
"""Settings whose parameter has another name."""

__all__ = ["generate", "load_drafter", "load_engine"]


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
    branches: int | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    activations: Activations | None = None,
    threads: int | None = None,
    layers_per_device: Sequence[int] | None = None,
    parallel: int | None = None,
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
        branches: Guesses for each position of a draft.
        dtype: Of the weights.
        device: A torch device; `auto` is the GPU if there is one.
        activations: Of products with quantised weights.
        threads: Of the CPU kernels; None is the physical cores.
        layers_per_device: Of the target, on each GPU; None is all on one.
        parallel: Processes that run the models together; None is this one alone.
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
        branches=branches,
        dtype=dtype,
        device=device,
        activations=activations,
        threads=threads,
        layers_per_device=layers_per_device,
        parallel=parallel,
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
    branches: int | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    activations: Activations | None = None,
    threads: int | None = None,
    layers_per_device: Sequence[int] | None = None,
    parallel: int | None = None,
    draft_vocab_size: int | None = None,
    max_batch_size: int = 16,
    cache_tokens: int | None = None,
    prefix_caching: bool = True,
    on_progress: OnProgress | None = None,
) -> Engine:
    """Load a target and a draft by reference, or take them as they are loaded already.

    Args:
        target: A catalogue name, `org/name` on the Hub, a folder or a `.gguf` file (also as a
            `Path`); or a loaded model, of `transformers` or ours.
        draft: The same for a draft model; or `prompt-lookup`, `free`, `random`, `unigram:FILE`,
            `bigram:FILE` (a table saved by `NgramTable.save`, or any text file); or a `Drafter`.
        tokenizer: The target's, of `transformers` or ours, or a reference to it; None is the
            target's own where it is named, and token ids only where it is loaded.
        draft_tokenizer: The same of a draft model, to be compared with the target's.
        gamma: Drafted tokens per round, 0 to 32; "auto" drafts what pays; None is 4 with a draft.
        branches: Guesses for each position of a draft at most, 1 to 8, by a draft model of the
            target's vocabulary or a head, where native decoders run on a CPU: more than 1 makes a
            draft a tree of gamma tokens. Requests with a grammar or lenience, and drafters of
            their own, are drafted for in chains. No seed's text depends on it; None is 1.
        dtype: Of the weights: `auto` keeps what the file holds on a CPU (a GGUF's own blocks
            included) and is bfloat16 on a GPU; or `float32`, `bfloat16`, `float16`; `int8` and
            `int4` round a float checkpoint on a CPU, which makes it a different model.
        device: A torch device; `auto` is the GPU if there is one.
        activations: Of products with quantised weights on a CPU: `int8` rounds them, each row
            by itself; `float32` keeps them, and is slower; None is `int8` where there are such.
        threads: Of the models' passes on a CPU, and of torch and sampling from then on; None is the
            physical cores. Models that are loaded already keep theirs.
        layers_per_device: Numbers of the target's layers on each GPU, from the first on, for one
            that fits on none of them: block after block, and the draft beside the last. It is no
            faster than one GPU, and runs in plain torch; None is all on one device.
        parallel: Processes of this host that run the models together, 1 to 64, each with a part
            of every layer of the target; on GPUs, each has one. They are started here, and end
            with this process; under `torchrun` they are there, each runs the same program, and
            only rank 0 comes back from this call. None is as many as `torchrun` has started, else
            this process alone.
        draft_vocab_size: Ids that a draft model considers, on a CPU beside those of the text
            so far: the first ones, which are the most frequent in a byte-pair vocabulary. The
            text does not depend on it; 0 considers all; None is 32768 on a CPU, and all on a GPU.
        max_batch_size: Sequences that run at once.
        cache_tokens: Tokens whose keys and values each model holds at most, as `Engine` takes it.
        prefix_caching: Whether texts that begin alike share the keys and values of that, also with
            texts that have ended; native decoders only. No text depends on it.
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
    ranks = parallel_or_launched(parallel)
    settings = ModelSettings(dtype, device, activations, threads, layers_per_device, ranks)
    _check_run(max_batch_size, on_progress)
    check_cache_tokens(cache_tokens)
    prefix_caching = check_flag("prefix_caching", prefix_caching)
    width = _checked_branches(branches, draft)
    if not gamma_for(gamma, has_draft=draft is not None):
        draft = None
    named = as_reference(target, "target")
    draft_named = draft_reference(draft, draft_vocab_size, draft_tokenizer)
    if named is None:
        _check_unused(settings if draft_named is None else _of_target(settings))
    check_on_ranks(draft, draft_named, width, draft_vocab_size, ranks)
    meet_ranks(settings)
    words = as_tokenizer(named if tokenizer is None else tokenizer, "tokenizer", on_progress)
    theirs = draft_words(draft_named, draft_tokenizer, words, named or "target", on_progress)
    model = as_loaded_model(target) if named is None else load_model(named, settings, on_progress)
    check_demands(model.traits)
    drafter = None
    if draft is not None:
        loading = DraftLoading(settings, draft_vocab_size, on_progress, width)
        drafter = as_drafter(draft, draft_named, model, words, theirs, loading)
    return Engine(
        model,
        words,
        drafter,
        gamma=gamma,
        max_batch_size=max_batch_size,
        cache_tokens=cache_tokens,
        prefix_caching=prefix_caching,
    )


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
    branches: int | None = None,
    on_progress: OnProgress | None = None,
) -> Drafter:
    """Load one more draft for a target that is loaded; an `Engine` of its own takes it.

    Args:
        draft: As `load_engine` takes it.
        engine: Whose target and tokenizer it is for, and on whose ranks a model is loaded.
        draft_tokenizer: As `load_engine` takes it.
        dtype: Of the weights; this and what follows as in `load_engine`.
        device: A torch device.
        activations: Of products with quantised weights.
        threads: Of the CPU kernels.
        draft_vocab_size: Ids that a draft model considers.
        branches: Guesses for each position of a draft.
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
    named = draft_reference(draft, draft_vocab_size, draft_tokenizer)
    if named is None:
        _check_unused(settings)
    model, words = engine.target, engine.tokenizer
    width = _checked_branches(branches, draft)
    check_on_ranks(draft, named, width, draft_vocab_size, model.num_ranks)
    theirs = draft_words(named, draft_tokenizer, words, model.traits.name, on_progress)
    loading = DraftLoading(settings, draft_vocab_size, on_progress, width)
    return as_drafter(draft, named, model, words, theirs, loading)


def _checked_branches(branches: object, draft: GivenDraft | None) -> int:
    if branches is None:
        return 1
    width = check_branches(branches)
    if width > 1 and draft is None:
        raise InvalidRequestError(f"branches={width} needs a draft: give one, or leave it out")
    return width


def _check_run(max_batch_size: object, on_progress: object) -> None:
    size = check_whole("max_batch_size", max_batch_size)
    require(size >= 1, "max_batch_size", "1 or more", max_batch_size)
    is_function = on_progress is None or callable(on_progress)
    require(is_function, "on_progress", "a function that takes the progress", on_progress)


def _of_target(settings: ModelSettings) -> ModelSettings:
    """What a draft has no use for."""
    return ModelSettings(
        layers_per_device=settings.layers_per_device, tensor_parallel=settings.tensor_parallel
    )


def _check_unused(settings: ModelSettings) -> None:
    """Refuse settings of loading where nothing is loaded."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value != item.default:
            name = _NAMES.get(item.name, item.name)
            raise InvalidRequestError(
                f"{name}={value!r} is for models that are loaded by name, and these are loaded: "
                "set it where they are loaded"
            )
