"""What can work together: a target, a draft and their tokenizers, refused before anything runs."""

from draftsmith.drafters.contract import Drafter
from draftsmith.drafters.model import ModelDrafter
from draftsmith.drafters.translated import TranslatedDrafter
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.errors import (
    InvalidRequestError,
    NotRollbackableError,
    VocabularyMismatchError,
)
from draftsmith.models.contract import BoundedCache, LanguageModel
from draftsmith.models.tokenizer import Tokenizer, check_same_vocabulary

__all__ = ["check_counted", "check_kinds", "check_pair"]


def check_kinds(target: object, tokenizer: object, draft: object, draft_tokenizer: object) -> None:
    """Refuse objects that are not ours, with the way to have them loaded or wrapped.

    Args:
        target: A `LanguageModel`.
        tokenizer: A `Tokenizer`, or None.
        draft: A `Drafter`, or None.
        draft_tokenizer: A `Tokenizer`, or None.

    Raises:
        InvalidRequestError: One is something else.
    """
    for name, value, kind in (
        ("target", target, LanguageModel),
        ("tokenizer", tokenizer, Tokenizer | None),
        ("draft", draft, Drafter | None),
        ("draft_tokenizer", draft_tokenizer, Tokenizer | None),
    ):
        if not isinstance(value, kind):
            if isinstance(value, type):
                raise InvalidRequestError(
                    f"{name} is the class {value.__name__}: give an object of it"
                )
            text = value if isinstance(value, str) else type(value).__name__
            raise InvalidRequestError(
                f"{name} must be an object of draftsmith's, got {text!r}: use load_engine, which "
                "takes names, paths and objects of transformers"
            )


def check_pair(
    target: LanguageModel,
    tokenizer: Tokenizer | None,
    draft: Drafter,
    draft_tokenizer: Tokenizer | None,
) -> None:
    """Refuse speculation where it cannot be done.

    Args:
        target: What is checked with.
        tokenizer: The target's, if there is one.
        draft: What guesses.
        draft_tokenizer: The draft model's, if there is one.

    Raises:
        NotRollbackableError: A model cannot take back what it has read.
        InvalidRequestError: The draft wants what the target does not hand out or check, or one of
            them is an encoder-decoder.
        VocabularyMismatchError: Their ids are not the same.
    """
    models = [target, *_models(draft)]
    for model in models:
        if not model.traits.can_rollback:
            raise NotRollbackableError(
                f"{model.traits.name} cannot speculate: {model.traits.why_no_rollback}; "
                "use gamma=0 for plain decoding"
            )
    _check_boundaries(target, draft)
    _check_branches(target, draft)
    for model in models[1:]:
        if model.traits.is_encoder_decoder != target.traits.is_encoder_decoder:
            raise InvalidRequestError(
                f"draft {model.traits.name} and target {target.traits.name} must both be "
                "encoder-decoder models or both be decoder-only"
            )
    _check_vocabularies(target, tokenizer, draft, draft_tokenizer)


def check_counted(cache_tokens: int, target: LanguageModel, draft: Drafter | None) -> None:
    """Refuse a bound in tokens where a model's memory is not counted in the target's.

    Args:
        cache_tokens: The bound.
        target: What is checked with.
        draft: What guesses.

    Raises:
        InvalidRequestError: With the model's name.
    """
    for model in (target, *_models(draft)):
        if not isinstance(model.open_cache(), BoundedCache):
            raise InvalidRequestError(
                f"cache_tokens={cache_tokens} needs a native decoder on a CPU or a GPU, and "
                f"{model.traits.name} has none: leave it out"
            )
    if isinstance(draft, TranslatedDrafter):
        raise InvalidRequestError(
            f"cache_tokens={cache_tokens} counts tokens of the target, and draft {draft.name} has "
            "another vocabulary: leave it out, or use a draft of the target's family"
        )


def _check_boundaries(target: LanguageModel, draft: Drafter) -> None:
    """Refuse a draft that reads what the target does not hand out."""
    if not draft.boundaries:
        return
    if not target.num_boundaries:
        raise InvalidRequestError(
            f"draft {draft.name} reads hidden states, which {target.traits.name} hands out only "
            "where a native decoder runs it in one process: use another draft"
        )
    off = [one for one in draft.boundaries if not 0 <= one < target.num_boundaries]
    if off:
        raise InvalidRequestError(
            f"draft {draft.name} reads boundary {off[0]}, but {target.traits.name} has "
            f"{target.num_boundaries - 1} layers: it was made for another target"
        )


def _check_branches(target: LanguageModel, draft: Drafter) -> None:
    """Refuse trees of guesses where the target checks chains only."""
    if draft.branches > 1 and not target.takes_trees:
        raise InvalidRequestError(
            f"branches={draft.branches} needs a target that a native decoder runs on a CPU, and "
            f"{target.traits.name} checks chains only: leave it out"
        )


def _check_vocabularies(
    target: LanguageModel,
    tokenizer: Tokenizer | None,
    draft: Drafter,
    draft_tokenizer: Tokenizer | None,
) -> None:
    """Refuse a draft of another vocabulary: by its tokenizer, or else by its size."""
    name = target.traits.name
    for drafter in _model_drafters(draft):
        theirs = drafter.tokenizer or (draft_tokenizer if drafter is draft else None)
        traits = drafter.model.traits
        if tokenizer is not None and theirs is not None:
            # The same object: whoever loaded the draft has compared the two.
            if theirs is not tokenizer:
                check_same_vocabulary(tokenizer, theirs, name, traits.name)
        elif traits.vocab_size != target.traits.vocab_size:
            raise VocabularyMismatchError(
                f"draft {traits.name} has {traits.vocab_size} ids and target {name} "
                f"{target.traits.vocab_size}: use a draft of the target's family, or give both "
                "tokenizers (tokenizer, draft_tokenizer) to show that it is"
            )


def _model_drafters(draft: Drafter) -> list[ModelDrafter | SpeculativeDrafter]:
    """Those that run a model of the target's vocabulary, the outermost first."""
    if isinstance(draft, SpeculativeDrafter):
        return [draft, *_model_drafters(draft.inner)]
    return [draft] if isinstance(draft, ModelDrafter) else []


def _models(draft: Drafter | None) -> list[LanguageModel]:
    """Those that a drafter runs."""
    if isinstance(draft, TranslatedDrafter):
        return [draft.model]
    return [] if draft is None else [drafter.model for drafter in _model_drafters(draft)]
