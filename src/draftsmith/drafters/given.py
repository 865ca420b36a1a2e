"""A draft as a user gives it: by reference, loaded, or a drafter."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from draftsmith.core.demands import NO_DEMANDS
from draftsmith.core.values import check_whole, require
from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.free import FreeDrafter
from draftsmith.drafters.heads.load import head_folder, load_head
from draftsmith.drafters.model import ModelDrafter
from draftsmith.drafters.ngram import NgramDrafter, NgramTable
from draftsmith.drafters.prompt_lookup import PromptLookupDrafter
from draftsmith.drafters.simple import RandomDrafter
from draftsmith.drafters.translated import TranslatedDrafter
from draftsmith.drafters.vocabularies import translation_between
from draftsmith.errors import InvalidRequestError, ModelNotFoundError, VocabularyMismatchError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.given import (
    GivenModel,
    GivenTokenizer,
    as_loaded_model,
    as_reference,
    as_tokenizer,
)
from draftsmith.models.load import ModelSettings, load_model
from draftsmith.models.pull import PullProgress
from draftsmith.models.tokenizer import Tokenizer, check_same_vocabulary

__all__ = [
    "DraftLoading",
    "GivenDraft",
    "OnProgress",
    "as_drafter",
    "check_on_ranks",
    "draft_reference",
    "draft_words",
    "drafter_of",
]

OnProgress = Callable[[PullProgress], None]
GivenDraft: TypeAlias = GivenModel | Drafter
_TABLES = {"unigram": 1, "bigram": 2}
_REMEMBERING = "free:"
_DRAFT_HEAD_IDS = 32_768
"""Of a draft's head on a CPU, by default: of a large vocabulary, few ids are ever drafted."""


class DraftLoading(NamedTuple):
    """How a draft model is loaded."""

    settings: ModelSettings
    num_head_ids: int | None
    on_progress: OnProgress | None
    branches: int = 1
    """Guesses for each position of a draft, at most."""


def draft_reference(
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


def check_on_ranks(
    draft: GivenDraft | None,
    named: str | None,
    branches: int,
    num_head_ids: int | None,
    num_ranks: int,
) -> None:
    """Refuse what a target over several ranks cannot be drafted for with.

    Args:
        draft: As a user gives it.
        named: Its reference, if it is a model that is loaded by name.
        branches: Guesses for each position.
        num_head_ids: Ids that it considers, as they were asked for.
        num_ranks: Of the target.

    Raises:
        InvalidRequestError: It names it.
    """
    if num_ranks == 1:
        return
    several = f"parallel={num_ranks} is several: leave one out"
    if branches > 1:
        raise InvalidRequestError(
            f"branches={branches} is for a target in one process, and {several}"
        )
    if num_head_ids is not None:
        raise InvalidRequestError(
            f"draft_vocab_size={num_head_ids} is for a draft in one process, and {several}"
        )
    if named is not None and head_folder(named) is not None:
        raise InvalidRequestError(
            f"draft {named!r} is a head, which reads the states of a target in one process, and "
            f"{several}"
        )
    if draft is not None and named is None and not isinstance(draft, str | Drafter):
        raise InvalidRequestError(
            f"draft is a model that is loaded in one process, and {several}, or name it"
        )


def _named(draft: GivenDraft | None) -> str:
    return draft.name if isinstance(draft, Drafter) else str(draft).lower()


def draft_words(
    named: str | None,
    given: GivenTokenizer | None,
    words: Tokenizer | None,
    target: str,
    on_progress: OnProgress | None,
) -> Tokenizer | None:
    """A draft model's tokenizer: the target's own object where the two were found the same.

    Raises:
        VocabularyMismatchError: If it is another one, and no translation is to be had.
        InvalidRequestError: If the draft is a head, whose ids are the target's, and one is given.
    """
    if named is not None and head_folder(named) is not None:
        if given is not None:
            raise InvalidRequestError(
                f"draft_tokenizer is for a draft model, and {named!r} is a head, whose ids are the "
                "target's: leave it out"
            )
        return None
    theirs = as_tokenizer(named if given is None else given, "draft_tokenizer", on_progress)
    if theirs is None or words is None:
        return theirs
    if _are_same(words, theirs):
        return words
    # Refused here, before anything is loaded, if it cannot be translated.
    translation_between(words, theirs, target, named or "model")
    return theirs


def as_drafter(
    draft: GivenDraft,
    named: str | None,
    target: LanguageModel,
    words: Tokenizer | None,
    theirs: Tokenizer | None,
    loading: DraftLoading,
) -> Drafter:
    """The drafter that a user's draft is, its model loaded.

    Args:
        draft: What the user gave.
        named: Its reference, if it is a model that is loaded by name.
        target: The model that it drafts for.
        words: The target's tokenizer.
        theirs: A draft model's tokenizer.
        loading: How a draft model is loaded.

    Raises:
        DraftsmithError: If there is no such draft, or it is not for this target.
    """
    found = _drafter(draft, named, target, words, theirs, loading)
    if loading.branches > 1 and not isinstance(draft, Drafter) and found.branches == 1:
        raise InvalidRequestError(
            f"branches={loading.branches} is for a draft model of the target's vocabulary or a "
            f"head, and the draft is {found.name}: leave it out"
        )
    return found


def _drafter(
    draft: GivenDraft,
    named: str | None,
    target: LanguageModel,
    words: Tokenizer | None,
    theirs: Tokenizer | None,
    loading: DraftLoading,
) -> Drafter:
    if isinstance(draft, Drafter):
        if loading.branches > 1:
            raise InvalidRequestError(
                f"branches={loading.branches} is for drafts that are loaded here, and "
                f"{draft.name} is a drafter already: say it where that is made"
            )
        if isinstance(draft, FreeDrafter):
            draft.meet(target, words)
        return draft
    branches = loading.branches
    folder = None if named is None else head_folder(named)
    if folder is not None:
        return _head(folder, str(named), target, words, loading)
    if named is not None:
        model = _load_draft_model(named, target, loading)
        return drafter_of(model, target, words, theirs, branches)
    if isinstance(draft, str):
        return _free_drafter(draft, target, words)
    # What a draft's own files ask is no rule of the text: the target's are.
    return drafter_of(as_loaded_model(draft, NO_DEMANDS), target, words, theirs, branches)


def _head(
    folder: Path, named: str, target: LanguageModel, words: Tokenizer | None, loading: DraftLoading
) -> Drafter:
    if loading.num_head_ids is not None:
        raise InvalidRequestError(
            f"draft_vocab_size={loading.num_head_ids} is for a draft model, and {named!r} is a "
            "head with ids of its own: leave it out"
        )
    return load_head(folder, target, words, loading.settings.dtype, loading.branches)


def drafter_of(
    model: LanguageModel,
    target: LanguageModel,
    words: Tokenizer | None,
    theirs: Tokenizer | None,
    branches: int = 1,
) -> Drafter:
    """The drafter that a model is: of the target's vocabulary, or of another.

    Args:
        model: The draft.
        target: What it drafts for.
        words: The target's tokenizer.
        theirs: The model's; the very object `words` where the two were found the same.
        branches: As `ModelDrafter` takes it.

    Raises:
        InvalidRequestError: If a draft of another vocabulary is to grow trees.
        VocabularyMismatchError: If it is of another vocabulary, and no translation is to be had.
    """
    if words is None or theirs is None or theirs is words:
        return ModelDrafter(model, theirs, branches)
    if _are_same(words, theirs):
        return ModelDrafter(model, words, branches)
    if branches > 1:
        raise InvalidRequestError(
            f"branches={branches} is for a draft of the target's vocabulary, and "
            f"{model.traits.name} has another: leave it out"
        )
    translation = translation_between(words, theirs, target.traits.name, model.traits.name)
    return TranslatedDrafter(model, translation, target.traits.vocab_size, theirs)


def _are_same(words: Tokenizer, theirs: Tokenizer) -> bool:
    try:
        check_same_vocabulary(words, theirs, "", "")
    except VocabularyMismatchError:
        return False
    return True


def _load_draft_model(named: str, target: LanguageModel, loading: DraftLoading) -> LanguageModel:
    asked = loading.num_head_ids
    # A GPU reads a small draft's whole head in no time: what is kept more is worth more.
    usual = _DRAFT_HEAD_IDS if target.device.type == "cpu" and target.num_ranks == 1 else 0
    num_ids = usual if asked is None else asked
    settings, on_progress = loading.settings, loading.on_progress
    if settings.layers_per_device is not None:
        # A draft is small: whole, and where the target's logits are.
        settings = replace(settings, layers_per_device=None, device=str(target.device))
    # Where the target is, whatever else was asked for it.
    settings = replace(settings, tensor_parallel=target.num_ranks)
    model = load_model(named, settings, on_progress, num_head_ids=num_ids or None, is_draft=True)
    if asked and not model.has_reducible_head:
        raise InvalidRequestError(
            f"draft_vocab_size={asked} needs a native decoder, and {named!r} has none: leave it out"
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
    if draft.startswith(_REMEMBERING):
        require(bool(path), "draft", "free, or free:FILE with a file that is remembered in", draft)
        return False
    return draft not in ("prompt-lookup", "free", "random")


def _free_drafter(draft: str, target: LanguageModel, tokenizer: Tokenizer | None) -> Drafter:
    """A drafter that is no model."""
    vocab_size = target.traits.vocab_size
    if draft == "prompt-lookup":
        return PromptLookupDrafter()
    if draft == "free" or draft.startswith(_REMEMBERING):
        drafter = FreeDrafter(draft.removeprefix(_REMEMBERING) if draft != "free" else None)
        drafter.meet(target, tokenizer)
        return drafter
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
