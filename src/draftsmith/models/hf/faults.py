"""What `transformers` and the Hub's client raise, turned into one line that names the model."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import difflib
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import transformers
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from draftsmith.errors import InvalidRequestError, ModelFormatError, ModelNotFoundError
from draftsmith.models.home import is_offline
from draftsmith.models.reference import ModelSource, SourceKind, resolve

try:
    import httpx2 as httpx
except ImportError:  # the Hub's client before 1.10 uses the older name
    import httpx  # pyright: ignore[reportMissingImports] # one of the two is there

__all__ = ["check_reachable", "check_type", "named_errors", "quiet"]

_LONGEST_GIST = 240
_REACH_S = 5.0
_ELSEWHERE = "give a local folder, a .gguf file or a name of `draftsmith models list`"
_AGAIN = "fetch it again, or save it again with save_pretrained"
# What a broken file makes of third-party code; nothing of ours runs inside.
_FAULTS = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    ImportError,
    pickle.UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)


@contextmanager
def named_errors(reference: str) -> Iterator[None]:
    """Turn what `transformers` raises into one line that names the model."""
    try:
        yield
    except (InvalidRequestError, ModelFormatError, ModelNotFoundError):
        raise
    except OSError as error:
        is_hub = resolve(reference).kind is SourceKind.HUB
        why = "not found, or the Hub cannot be reached" if is_hub else "cannot be read"
        remedy = _ELSEWHERE if is_hub else _AGAIN
        raise ModelNotFoundError(
            f"model {reference!r}: {why} ({_gist(error)}): {remedy}"
        ) from error
    except Exception as error:
        # Of the tokenizers' own kind there is no class: they raise `Exception` itself.
        if not isinstance(error, _FAULTS) and type(error) is not Exception:
            raise
        raise ModelFormatError(
            f"model {reference!r} cannot be loaded: {_gist(error)}: {_AGAIN}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no reports of the library while it loads; our own tell what there is."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if was_enabled:
            transformers_logging.enable_progress_bar()


def check_type(config: dict[str, object], reference: str) -> None:
    """Refuse a kind of model that `transformers` does not know, with the nearest that it does.

    Args:
        config: Of config.json.
        reference: How the user named the model.

    Raises:
        ModelFormatError: With the remedy.
    """
    kind = config.get("model_type")
    if kind is None:
        raise ModelFormatError(f"model {reference!r}: its config.json has no model_type: {_AGAIN}")
    if kind in CONFIG_MAPPING:
        return
    if "auto_map" in config:
        raise ModelFormatError(
            f"model {reference!r} of type {kind!r} runs only by Python code of its own, which is "
            "never run here: take a model that transformers knows"
        )
    near = difflib.get_close_matches(str(kind), list(CONFIG_MAPPING), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ModelFormatError(
        f"model {reference!r}: transformers {transformers.__version__} knows no model_type "
        f"{kind!r}: {hint}take another model, or a newer transformers"
    )


def check_reachable(source: ModelSource) -> None:
    """Refuse a Hub model that is neither kept here nor to be had, after one short try.

    The client itself would try six times over half a minute, with a warning each.

    Raises:
        ModelNotFoundError: With what is known of the reason.
    """
    if source.kind is SourceKind.HUB:
        _reach(source.reference)


@cache
def _reach(repository: str) -> None:
    if isinstance(try_to_load_from_cache(repository, "config.json"), str):
        return
    if is_offline():
        raise ModelNotFoundError(
            f"model {repository!r} is not kept here, and HF_HUB_OFFLINE forbids to fetch it: "
            f"unset that, or {_ELSEWHERE}"
        )
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json"), timeout=_REACH_S)
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"model {repository!r} is gated: ask for access on its page, and log in with `hf auth "
            "login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"model {repository!r} is not on the Hub, or not for you: check the name, or log in "
            "with `hf auth login`"
        ) from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise ModelNotFoundError(
            f"model {repository!r} is not kept here, and the Hub cannot be reached "
            f"({_gist(error)}): check the network, or {_ELSEWHERE}"
        ) from error


def _gist(error: Exception) -> str:
    """What a library's long message comes to, in one line without a full stop."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, LookupError | AttributeError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST_GIST else f"{text[: _LONGEST_GIST - 1]}…"
