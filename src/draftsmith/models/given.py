"""Models and tokenizers as callers have them: by name, by path, or loaded already.

Objects of `transformers` are known by what they can do, so that naming a model never imports it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

from draftsmith.core.demands import Demands
from draftsmith.errors import InvalidRequestError, ModelNotFoundError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import load_tokenizer
from draftsmith.models.pull import PullProgress
from draftsmith.models.reference import resolve
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["GivenModel", "GivenTokenizer", "as_loaded_model", "as_reference", "as_tokenizer"]

GivenModel: TypeAlias = str | Path | LanguageModel | Any
"""A reference, a path, one of our models, or a model of `transformers`."""

GivenTokenizer: TypeAlias = str | Path | Tokenizer | Any
"""A reference, a path, one of our tokenizers, or one of `transformers`."""

OnProgress: TypeAlias = Callable[[PullProgress], None]


def as_reference(given: object, name: str) -> str | None:
    """A name or a path as the reference it is; None for an object that is loaded already.

    Args:
        given: What the caller gave.
        name: Of the option, for messages.

    Raises:
        InvalidRequestError: If it is neither a reference, a path nor a model.
        ModelNotFoundError: If it names nothing, as far as the local disk tells.

    Example:
        >>> as_reference("Qwen/Qwen2.5-0.5B", "target")
        'Qwen/Qwen2.5-0.5B'
    """
    if isinstance(given, Path):
        # A path is a path: where nothing lies there, it is no name of a model on the Hub.
        if not given.exists():
            raise ModelNotFoundError(f"{name} {str(given)!r} does not exist: check the path")
        text = str(given)
        given = text if os.sep in text else os.path.join(os.curdir, text)
    if isinstance(given, str):
        resolve(given)
        return given
    if isinstance(given, LanguageModel) or _is_transformers_model(given):
        return None
    if isinstance(given, type):
        raise InvalidRequestError(f"{name} is the class {given.__name__}: give an object of it")
    raise InvalidRequestError(
        f"{name} must be a name, a path or a loaded model, got {_shown(given)}: see load_engine"
    )


def as_loaded_model(given: object, demands: Demands | None = None) -> LanguageModel:
    """A model that is loaded already, behind our contract.

    Args:
        given: One of ours, or of `transformers`.
        demands: What holds for its texts; None is what its `generation_config` asks.

    Raises:
        ModelFormatError: If it is of a kind that cannot generate here.
    """
    if isinstance(given, LanguageModel):
        return given
    from draftsmith.models.hf.load import wrap_model

    return wrap_model(cast(Any, given), demands=demands)


def as_tokenizer(
    given: object, name: str = "tokenizer", on_progress: OnProgress | None = None
) -> Tokenizer | None:
    """A tokenizer behind our contract; None for None.

    Args:
        given: A reference, a path, one of ours, or one of `transformers`.
        name: Of the option, for messages.
        on_progress: As `load_tokenizer` takes it.

    Raises:
        InvalidRequestError: If it is none of these.
        DraftsmithError: As `load_tokenizer` does.
    """
    if given is None or isinstance(given, Tokenizer):
        return given
    if isinstance(given, str | Path):
        return load_tokenizer(cast(str, as_reference(given, name)), on_progress)
    if callable(given) and hasattr(given, "convert_ids_to_tokens"):
        from draftsmith.models.hf.load import wrap_tokenizer

        return wrap_tokenizer(given)
    raise InvalidRequestError(
        f"{name} must be a name, a path or a tokenizer of transformers, got {_shown(given)}"
    )


def _is_transformers_model(given: object) -> bool:
    return hasattr(given, "generation_config") and hasattr(given, "config") and callable(given)


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}…"
