"""Models and tokenizers that `transformers` loads: Hub id, local folder or GGUF file."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from draftsmith.core.demands import Demands
from draftsmith.errors import ModelFormatError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.folder import check_folder, check_vocabulary
from draftsmith.models.generation_config import demands_of
from draftsmith.models.hf.adapt import adapted
from draftsmith.models.hf.attention import attention_options
from draftsmith.models.hf.faults import check_reachable, check_type, named_errors, quiet
from draftsmith.models.hf.gguf_model import load_gguf_model
from draftsmith.models.hf.own_code import check_own_code, check_tokenizer_class
from draftsmith.models.hf.positions import context_length
from draftsmith.models.hf.spread import check_can_spread, spread_options
from draftsmith.models.hf.tokenizer import TransformersTokenizer
from draftsmith.models.hf.traits import traits_of
from draftsmith.models.home import is_offline
from draftsmith.models.reference import ModelSource, resolve

__all__ = [
    "describe",
    "hub_folder",
    "load_adapted",
    "load_adapted_tokenizer",
    "load_spread",
    "wrap_model",
    "wrap_tokenizer",
]


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
    with named_errors(source.reference), quiet():
        if path is not None and path.is_file():
            model = load_gguf_model(path, dtype)
        else:
            model = _from_pretrained(path, source, dtype)
    return wrap_model(model.to(device), name=source.reference)


def load_spread(
    source: ModelSource,
    path: Path | None,
    dtype: torch.dtype,
    layers_per_device: Sequence[int],
    devices: Sequence[torch.device],
) -> LanguageModel:
    """Load a model of `transformers` behind our contract, its layers on several devices.

    Args:
        source: What the user named.
        path: The folder where it lies; None for a Hub id.
        dtype: Of weights and activations.
        layers_per_device: Numbers of layers, in the devices' order.
        devices: As many as there are.

    Raises:
        InvalidRequestError: If its class, or its layers, cannot be split so.
        ModelNotFoundError: If it cannot be read or reached.
        ModelFormatError: If the files are not a model that can run here, or do not fit.
    """
    check_can_spread(source.reference)
    with named_errors(source.reference), quiet():
        model = _from_pretrained(path, source, dtype, (layers_per_device, devices))
    return wrap_model(model, name=source.reference)


def hub_folder(
    source: ModelSource, is_wanted: Callable[[dict[str, Any]], bool], more: Sequence[str] = ()
) -> Path | None:
    """Fetch config and safetensors of a Hub model whose config is wanted; None if it is not.

    Args:
        source: With the model's id.
        is_wanted: Asked of the parsed config.json.
        more: Names of further files that are fetched where they are there.

    Raises:
        ModelNotFoundError: If it cannot be reached.
    """
    options: dict[str, Any] = {"repo_id": source.reference, "local_files_only": is_offline()}
    check_reachable(source)
    with named_errors(source.reference), quiet():
        config = json.loads(Path(hf_hub_download(filename="config.json", **options)).read_bytes())
        if not is_wanted(config):
            return None
        wanted = [
            "config.json",
            "generation_config.json",
            "*.safetensors",
            "*.safetensors.index.json",
            *more,
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
    with named_errors(source.reference), quiet():
        where = _where(path, source)
        if path is not None:
            check_vocabulary(path)
            check_tokenizer_class(path, source.reference)
        tokenizer = wrap_tokenizer(AutoTokenizer.from_pretrained(**where))
        # What its settings make of any text, before there is one.
        tokenizer.decode(tokenizer.encode(""))
        tokenizer.special_tokens()
        return tokenizer


def wrap_tokenizer(tokenizer: Any) -> TransformersTokenizer:
    """Put our contract around a tokenizer object of `transformers`."""
    return TransformersTokenizer(tokenizer)


def wrap_model(
    model: Any, name: str | None = None, *, demands: Demands | None = None
) -> LanguageModel:
    """Put our contract around a model object of `transformers`.

    Args:
        model: The object.
        name: What messages call it; None is its own.
        demands: What holds for every text; None is what its `generation_config` asks.

    Raises:
        ModelFormatError: If the model is of a kind that cannot generate here.
    """
    traits = traits_of(model, name or model.config.name_or_path or type(model).__name__)
    if demands is None:
        asked = model.generation_config.to_dict()
        demands = demands_of(asked, traits.eos_token_ids, traits.name)
    return adapted(model, replace(traits, demands=demands))


def _from_pretrained(
    path: Path | None,
    source: ModelSource,
    dtype: torch.dtype,
    spread: tuple[Sequence[int], Sequence[torch.device]] | None = None,
) -> Any:
    options = _where(path, source)
    config = AutoConfig.from_pretrained(**options)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if spread is not None:
        options |= spread_options(kind, config, dtype, *spread, source.reference)
    loaded: Any = kind.from_pretrained(
        **options,
        **attention_options(config),
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    model, found = loaded
    _check_found(source.reference, found)
    return model


def _check_found(reference: str, found: dict[str, Any]) -> None:
    """Refuse what the library would fill with random numbers.

    Raises:
        ModelFormatError: Naming a tensor that is not there, or of another shape.
    """
    missing, mismatched = sorted(found["missing_keys"]), sorted(found["mismatched_keys"])
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelFormatError(
            f"model {reference!r} lacks tensor {missing[0]!r}{more}: fetch it again, whole"
        )
    if mismatched:
        name, ours, theirs = mismatched[0]
        raise ModelFormatError(
            f"model {reference!r}: tensor {name!r} has shape {tuple(ours)}, but the config means "
            f"{tuple(theirs)}: take the config and the weights from one place"
        )


def _where(path: Path | None, source: ModelSource) -> dict[str, Any]:
    if path is None:
        check_reachable(source)
        options: dict[str, Any] = {"local_files_only": is_offline()}
        with contextlib.suppress(EntryNotFoundError):  # a tokenizer may stand alone
            found = hf_hub_download(repo_id=source.reference, filename="config.json", **options)
            _check_code(json.loads(Path(found).read_bytes()), source.reference)
        place = {"pretrained_model_name_or_path": source.reference}
        return {**place, **options, "trust_remote_code": False}
    _check_code(json.loads((path / "config.json").read_bytes()), source.reference)
    return {"pretrained_model_name_or_path": str(path), "trust_remote_code": False}


def _check_code(config: dict[str, Any], reference: str) -> None:
    check_type(config, reference)
    check_own_code(config, reference)


def describe(where: str) -> dict[str, Any]:
    """What the config of a folder or of a Hub model says, for `models show`.

    Raises:
        ModelNotFoundError: If there is none.
    """
    source = resolve(where)
    if source.path is not None:
        check_folder(source.path, with_weights=False)
    with named_errors(where), quiet():
        config = AutoConfig.from_pretrained(**_where(source.path, source))
    text = config.get_text_config(decoder=True)
    return {
        "architecture": config.model_type,
        "is_encoder_decoder": bool(config.is_encoder_decoder),
        "vocab_size": text.vocab_size,
        "context_length": context_length(text),
        "num_layers": getattr(text, "num_hidden_layers", None),
        "hidden_size": getattr(text, "hidden_size", None),
    }
