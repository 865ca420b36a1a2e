"""From a reference to a running model: natively where we can, else through `transformers`.

A GGUF file is read and run by us, on any device; what we do not know in it is refused. Of other
checkpoints the Llama, Mistral, Qwen2, Qwen3, SmolLM and, on a CPU, T5 families run on our own
decoders and kernels; everything else runs behind the adapter. The adapter imports `transformers`
(0.7 s and 27 MB, measured), so it is itself imported where it is needed.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.kernels.cpu.library import library, set_num_threads
from draftsmith.models.contract import LanguageModel
from draftsmith.models.folder import check_folder
from draftsmith.models.generation_config import read_demands
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.gguf.tokenizer import open_gguf_tokenizer
from draftsmith.models.native.bounds import named_after
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.cpu import CpuDecoder
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.gpu_load import decoder_on_gpu
from draftsmith.models.native.layered import layered_decoder
from draftsmith.models.native.memory import available_memory, check_fits
from draftsmith.models.native.read import RequantisedError, native_architecture, read_folder
from draftsmith.models.native.t5 import read_t5
from draftsmith.models.native.t5_config import native_t5_architecture
from draftsmith.models.native.weights import DecoderWeights
from draftsmith.models.placement import gpus_for_layers
from draftsmith.models.pull import PullProgress
from draftsmith.models.reference import ModelSource, SourceKind, local_path, resolve
from draftsmith.models.settings import (
    ACTIVATIONS,
    DTYPES,
    Activations,
    Dtype,
    ModelSettings,
    device_of,
    meet_ranks,
    torch_dtype,
)
from draftsmith.models.tokenizer import Tokenizer

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "Activations",
    "Dtype",
    "ModelSettings",
    "load_adapted_model",
    "load_model",
    "load_reader",
    "load_tokenizer",
]

_log = logging.getLogger(__name__)

OnProgress: TypeAlias = Callable[[PullProgress], None]

_FLOAT32_BYTES = 4
_FORMATS: dict[Dtype, str | None] = {
    "auto": None,
    "float32": "F32",
    "bfloat16": "BF16",
    "float16": "F16",
    "int8": "Q8_0",
    "int4": "Q4_1",
}


def load_model(
    reference: str,
    settings: ModelSettings | None = None,
    on_progress: OnProgress | None = None,
    *,
    num_head_ids: int | None = None,
    is_draft: bool = False,
) -> LanguageModel:
    """Load a model, fetching it first where it must be.

    Args:
        reference: A catalogue name, `org/name` on the Hub, a folder, or a `.gguf` file.
        settings: How; None is all defaults.
        on_progress: Called while a catalogue model is fetched.
        num_head_ids: For a draft on our kernels: compute logits only for so many of the first ids,
            on a CPU also for those of the text so far; None is all.
        is_draft: Over several ranks, whether it may also be whole on each, if that is faster.

    Raises:
        ModelNotFoundError: If the reference names nothing reachable.
        ModelFormatError: If the files are not a model that can run here.
        PullError: If a catalogue model could not be fetched.
        InvalidRequestError: If the settings do not fit the device or the model.
        ParallelError: If a rank does not start, fails, or sees other files.
    """
    settings = settings or ModelSettings()
    if settings.tensor_parallel > 1:
        return _load_on_ranks(reference, settings, on_progress, is_draft)
    if settings.layers_per_device is not None:
        return _load_in_blocks(reference, settings, settings.layers_per_device, on_progress)
    place = device_of(settings.device)
    if settings.threads is not None and place.type == "cpu":
        set_num_threads(settings.threads)
        torch.set_num_threads(settings.threads)
    source = resolve(reference)
    path = local_path(source, on_progress)
    if path is not None and path.is_dir():
        check_folder(path, with_weights=True)
    if place.type == "cpu":
        model = _load_native(source, path, settings, num_head_ids)
        if model is not None:
            return model
    dtype = torch_dtype(settings.dtype, place, reference)
    _check_unused(settings, dtype, place, reference)
    if place.type == "cuda":
        model = _load_on_gpu(source, path, place, dtype, num_head_ids)
        if model is not None:
            return model
    elif path is not None and path.is_file():
        config, weights = read_gguf(path)
        return TorchDecoder.from_weights(weights, config, place, dtype, reference)
    from draftsmith.models.hf.load import load_adapted

    return load_adapted(source, path, dtype, place)


def load_adapted_model(
    reference: str, settings: ModelSettings | None = None, on_progress: OnProgress | None = None
) -> LanguageModel:
    """Load a model as `transformers` runs it, also where we could run it ourselves.

    Args:
        reference: As `load_model` takes it.
        settings: Of which dtype and device count; None is all defaults.
        on_progress: Called while a catalogue model is fetched.

    Raises:
        DraftsmithError: As `load_model` does.
    """
    settings = settings or ModelSettings()
    place = device_of(settings.device)
    dtype = torch_dtype(settings.dtype, place, reference)
    source = resolve(reference)
    from draftsmith.models.hf.load import load_adapted

    return load_adapted(source, local_path(source, on_progress), dtype, place)


def load_reader(reference: str, device: torch.device) -> TorchDecoder:
    """Load a model in plain torch and float32, which reads whole texts at once on any device.

    Args:
        reference: As `load_model` takes it; fetched before.
        device: Where it goes.

    Raises:
        InvalidRequestError: No decoder of ours runs it.
        ModelFormatError: As `load_model` does.
    """
    source = resolve(reference)
    path = _native_decoder(source, local_path(source, None))
    if path is None:
        raise InvalidRequestError(
            f"{reference} hands out no hidden states: give a model that a native decoder runs"
        )
    config, weights = read_gguf(path) if path.is_file() else read_folder(path)
    return TorchDecoder.from_weights(weights, config, device, torch.float32, source.reference)


def load_tokenizer(reference: str, on_progress: OnProgress | None = None) -> Tokenizer:
    """Load the tokenizer of a model, fetching it first where it must be.

    Args:
        reference: As `load_model` takes it.
        on_progress: Called while a catalogue model is fetched.

    Raises:
        ModelNotFoundError: If the reference names nothing reachable.
        ModelFormatError: If it has no tokenizer that can be read.
        PullError: If a catalogue model could not be fetched.
    """
    source = resolve(reference)
    path = local_path(source, on_progress)
    if path is not None and path.is_dir():
        check_folder(path, with_weights=False)
    if path is not None and path.is_file():
        return open_gguf_tokenizer(path)
    from draftsmith.models.hf.load import load_adapted_tokenizer

    return load_adapted_tokenizer(source, path)


def _load_native(
    source: ModelSource, path: Path | None, settings: ModelSettings, num_head_ids: int | None
) -> LanguageModel | None:
    """Our own implementation of the model, if there is one."""
    if source.kind is SourceKind.HUB:
        path = _hub_folder(source, _is_native_config)
    if path is None:
        return None
    try:
        model = _read_native(source, path, settings, num_head_ids)
    except RequantisedError as error:
        raise InvalidRequestError(
            f"dtype must be auto, float32, bfloat16 or float16 for {source.reference}, whose "
            f"weights are rounded already, got {settings.dtype}: leave it out"
        ) from error
    return None if model is None else _with_demands(model, path, source)


def _load_on_gpu(
    source: ModelSource,
    path: Path | None,
    place: torch.device,
    dtype: torch.dtype,
    num_head_ids: int | None,
) -> LanguageModel | None:
    """Our own decoder on a GPU; None for what only the adapter runs."""
    path = _native_decoder(source, path)
    if path is None:
        return None
    config, weights = read_gguf(path) if path.is_file() else read_folder(path)
    model = decoder_on_gpu(config, weights, place, dtype, source.reference, num_head_ids)
    return _with_demands(model, path, source)


def _load_in_blocks(
    reference: str,
    settings: ModelSettings,
    layers_per_device: Sequence[int],
    on_progress: OnProgress | None,
) -> LanguageModel:
    """The model's layers over several devices: our plain decoder, or the adapter."""
    devices = gpus_for_layers(settings.device)
    dtype = torch_dtype(settings.dtype, devices[0], reference)
    _check_unused(settings, dtype, devices[0], reference)
    source = resolve(reference)
    path = local_path(source, on_progress)
    if path is not None and path.is_dir():
        check_folder(path, with_weights=True)
    native = _native_decoder(source, path)
    if native is None:
        from draftsmith.models.hf.load import load_spread

        return load_spread(source, path, dtype, layers_per_device, devices)
    config, weights = read_gguf(native) if native.is_file() else read_folder(native)
    model = layered_decoder(config, weights, layers_per_device, devices, dtype, source.reference)
    return _with_demands(model, native, source)


def _load_on_ranks(
    reference: str, settings: ModelSettings, on_progress: OnProgress | None, is_draft: bool
) -> LanguageModel:
    """The model over several processes, on the decoder that runs the same everywhere."""
    place = meet_ranks(settings)
    dtype = torch_dtype(settings.dtype, place, reference)
    _check_unused(settings, dtype, place, reference)
    # Fetched by this process alone, before the others read it.
    source = resolve(reference)
    path = local_path(source, on_progress)
    if path is not None and path.is_dir():
        check_folder(path, with_weights=True)
    path = _native_decoder(source, path)
    if path is None:
        raise InvalidRequestError(
            f"parallel={settings.tensor_parallel} needs a native decoder, and {reference} has "
            "none: leave it out"
        )
    # Here, because it imports Triton, which not every installation has.
    from draftsmith.models.ranks import load_on_ranks

    model = load_on_ranks(path, source.reference, dtype, place, settings, is_draft=is_draft)
    return _with_demands(model, path, source)


def _native_decoder(source: ModelSource, path: Path | None) -> Path | None:
    """Where a model lies that our decoders run on any device; None for what only others run."""
    if source.kind is SourceKind.HUB:
        path = _hub_folder(source, _is_native_decoder)
    is_native = path is not None and (path.is_file() or native_architecture(path) is not None)
    return path if is_native else None


def _hub_folder(source: ModelSource, is_native: Callable[[dict[str, object]], bool]) -> Path | None:
    """Where the files of a model on the Hub lie, if it is one that we run ourselves."""
    from draftsmith.models.hf.load import hub_folder

    path = hub_folder(source, is_native)
    if path is not None:
        check_folder(path, with_weights=True)
    return path


def _with_demands(model: LanguageModel, path: Path, source: ModelSource) -> LanguageModel:
    """The model, knowing what its folder's `generation_config.json` asks of every text."""
    if path.is_dir():
        demands = read_demands(path, model.traits.eos_token_ids, source.reference)
        model.traits = replace(model.traits, demands=demands)
    return model


def _read_native(
    source: ModelSource, path: Path, settings: ModelSettings, num_head_ids: int | None
) -> LanguageModel | None:
    format = _FORMATS[settings.dtype]
    if path.is_dir() and _is_t5(path):
        if library() is None:
            return None
        is_exact = settings.activations == "float32"
        return read_t5(
            path,
            format,
            name=source.reference,
            exact_activations=is_exact,
            threads=settings.threads,
        )
    if path.is_dir() and native_architecture(path) is None:
        return None
    config, weights = read_folder(path, format) if path.is_dir() else read_gguf(path, format)
    return _decoder(config, weights, source.reference, settings, num_head_ids)


def _decoder(
    config: DecoderConfig,
    weights: DecoderWeights,
    name: str,
    settings: ModelSettings,
    num_head_ids: int | None,
) -> LanguageModel:
    """The fastest decoder on a CPU that computes such a model."""
    if library() is None or not CpuDecoder.computes(config):
        with named_after(Path(name)):  # beside the packed weights, until they are let go
            check_fits(_FLOAT32_BYTES * weights.num_weights, available_memory())
        return TorchDecoder.from_weights(weights, config, name=name)
    return CpuDecoder(
        weights,
        config,
        name,
        exact_activations=settings.activations == "float32",
        num_head_ids=num_head_ids,
        threads=settings.threads,
    )


def _is_native_config(config: dict[str, object]) -> bool:
    return native_t5_architecture(config) or _is_native_decoder(config)


def _is_native_decoder(config: dict[str, object]) -> bool:
    """Whether a `config.json` is of a family that we decode ourselves, on a CPU and a GPU."""
    return native_architecture(config) is not None


def _is_t5(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return isinstance(config, dict) and native_t5_architecture(config)
    except (OSError, ValueError, ModelFormatError):
        return False  # whoever reads it next says what is wrong


def _check_unused(
    settings: ModelSettings, dtype: torch.dtype, device: torch.device, name: str
) -> None:
    """Refuse settings of the native decoders where none runs the model."""
    if settings.threads is not None and device.type != "cpu":
        raise InvalidRequestError(
            f"threads={settings.threads} are of a CPU, and {name!r} runs on {device}: leave it out"
        )
    # Float32 all through keeps activations as asked.
    is_kept = settings.activations == "float32" and dtype == torch.float32
    if settings.activations is not None and not is_kept:
        raise InvalidRequestError(
            f"activations={settings.activations!r} needs a native decoder on a CPU, and {name!r} "
            "has none: leave it out"
        )
