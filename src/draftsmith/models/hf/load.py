"""Models and tokenizers that `transformers` loads: Hub id, local folder or GGUF file."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.utils import logging as transformers_logging

from draftsmith.errors import ModelFormatError, ModelNotFoundError
from draftsmith.models.contract import LanguageModel, ModelTraits
from draftsmith.models.hf.causal import CausalModel
from draftsmith.models.hf.gguf_model import load_gguf_model
from draftsmith.models.hf.positions import context_length, position_limit, source_length
from draftsmith.models.hf.seq2seq import EncoderDecoderModel
from draftsmith.models.hf.stateful import StatefulModel
from draftsmith.models.hf.tokenizer import TransformersTokenizer
from draftsmith.models.home import is_offline
from draftsmith.models.reference import ModelSource, SourceKind, resolve

__all__ = [
    "describe",
    "hub_folder",
    "load_adapted",
    "load_adapted_tokenizer",
    "wrap_model",
    "wrap_tokenizer",
]

_LONGEST_GIST = 240


def load_adapted(
    source: ModelSource, path: Path | None, dtype: torch.dtype, device: torch.device
) -> LanguageModel:
    """Load a model of `transformers` behind our contract.

    Args:
        source: What the user named.
        path: Where it lies; None for a Hub id, which the Hub's own client fetches.
        dtype: Of weights and activations; a GGUF is dequantised to it.
        device: Where it runs.

    Raises:
        ModelNotFoundError: If it cannot be read or reached.
        ModelFormatError: If the files are not a model that can run here.
    """
    with _named_errors(source.reference), _quiet():
        if path is not None and path.is_file():
            model = load_gguf_model(path, dtype)
        else:
            model = _from_pretrained(path, source, dtype)
    return wrap_model(model.to(device), name=source.reference)


def hub_folder(source: ModelSource, is_wanted: Callable[[dict[str, Any]], bool]) -> Path | None:
    """Fetch config and safetensors of a Hub model whose config is wanted; None if it is not.

    Raises:
        ModelNotFoundError: If it cannot be reached.
    """
    options: dict[str, Any] = {"repo_id": source.reference, "local_files_only": is_offline()}
    with _named_errors(source.reference), _quiet():
        config = json.loads(Path(hf_hub_download(filename="config.json", **options)).read_bytes())
        if not is_wanted(config):
            return None
        wanted = [
            "config.json",
            "generation_config.json",
            "*.safetensors",
            "*.safetensors.index.json",
        ]
        return Path(snapshot_download(allow_patterns=wanted, **options))


def load_adapted_tokenizer(source: ModelSource, path: Path | None) -> TransformersTokenizer:
    """Load a tokenizer of `transformers`.

    Args:
        source: What the user named.
        path: The folder where it lies; None for a Hub id.

    Raises:
        ModelNotFoundError: If the reference names nothing reachable.
        ModelFormatError: If it has no tokenizer that can be read.
    """
    with _named_errors(source.reference), _quiet():
        return wrap_tokenizer(AutoTokenizer.from_pretrained(**_where(path, source)))


def wrap_tokenizer(tokenizer: Any) -> TransformersTokenizer:
    """Put our contract around a tokenizer object of `transformers`."""
    return TransformersTokenizer(tokenizer)


def wrap_model(model: Any, name: str | None = None) -> LanguageModel:
    """Put our contract around a model object of `transformers`.

    Raises:
        ModelFormatError: If the model is of a kind that cannot generate here.
    """
    traits = _traits(model, name or model.config.name_or_path or type(model).__name__)
    if traits.is_encoder_decoder:
        return EncoderDecoderModel(model, traits)
    return CausalModel(model, traits) if traits.can_rollback else StatefulModel(model, traits)


def _traits(model: Any, name: str) -> ModelTraits:
    config = model.config.get_text_config(decoder=True)
    reason = _why_no_rollback(model)
    start = model.generation_config.decoder_start_token_id
    if start is None:
        start = getattr(model.config, "decoder_start_token_id", None)
    if model.config.is_encoder_decoder and start is None:
        raise ModelFormatError(f"{name} has no decoder_start_token_id: set it in its config")
    return ModelTraits(
        name=name,
        vocab_size=int(config.vocab_size),
        eos_token_ids=_eos_token_ids(model),
        context_length=context_length(config),
        position_limit=position_limit(model),
        source_length=source_length(config) if model.config.is_encoder_decoder else None,
        is_encoder_decoder=bool(model.config.is_encoder_decoder),
        decoder_start_token_id=start if model.config.is_encoder_decoder else None,
        can_rollback=not reason,
        why_no_rollback=reason,
    )


def _why_no_rollback(model: Any) -> str:
    """Why the model's state cannot forget tokens; empty if it can."""
    if getattr(model, "_is_stateful", False):
        return f"{model.config.model_type} keeps a recurrent state"
    if model.config.is_encoder_decoder:
        return ""
    layers = DynamicCache(config=model.config).layers
    # Sliding layers are plain here: our cache drops nothing, and the mask does the sliding.
    odd = [type(layer).__name__ for layer in layers if not isinstance(layer, DynamicLayer)]
    return f"{model.config.model_type} has a {odd[0]}" if odd else ""


def _eos_token_ids(model: Any) -> tuple[int, ...]:
    ids = model.generation_config.eos_token_id
    if ids is None:
        ids = getattr(model.config, "eos_token_id", None)
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)


def _from_pretrained(path: Path | None, source: ModelSource, dtype: torch.dtype) -> Any:
    options = _where(path, source)
    config = AutoConfig.from_pretrained(**options)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_pretrained(**options, dtype=dtype)


def _where(path: Path | None, source: ModelSource) -> dict[str, Any]:
    if path is not None:
        return {"pretrained_model_name_or_path": str(path)}
    return {"pretrained_model_name_or_path": source.reference, "local_files_only": is_offline()}


@contextmanager
def _named_errors(reference: str) -> Iterator[None]:
    """Turn what `transformers` raises into one line that names the model."""
    try:
        yield
    except OSError as error:
        is_hub = resolve(reference).kind is SourceKind.HUB
        why = "not found, or the Hub cannot be reached" if is_hub else "cannot be read"
        raise ModelNotFoundError(f"model {reference!r}: {why} ({_gist(error)})") from error
    except (ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelFormatError(f"model {reference!r} cannot be loaded: {_gist(error)}") from error


def _gist(error: Exception) -> str:
    """What a library's long message comes to, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_GIST else f"{text[: _LONGEST_GIST - 1]}…"


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of the library while it loads; ours tell of the fetch."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()


def describe(where: str) -> dict[str, Any]:
    """What the config of a folder or of a Hub model says, for `models show`.

    Raises:
        ModelNotFoundError: If there is none.
    """
    with _named_errors(where), _quiet():
        config = AutoConfig.from_pretrained(where, local_files_only=is_offline())
    text = config.get_text_config(decoder=True)
    return {
        "architecture": config.model_type,
        "is_encoder_decoder": bool(config.is_encoder_decoder),
        "vocab_size": text.vocab_size,
        "context_length": context_length(text),
        "num_layers": getattr(text, "num_hidden_layers", None),
        "hidden_size": getattr(text, "hidden_size", None),
    }
