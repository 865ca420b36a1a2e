"""Where the modules of a model of `transformers` go, its layers spread over several devices.

The map is what accelerate takes as a `device_map`: its hooks bring each module's inputs to the
module, and the model's output back to where its inputs were. What is not a layer goes before the
first or behind the last, as the class lists it; a head that is tied to the embedding stays there.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from draftsmith.errors import InvalidRequestError
from draftsmith.models.native.memory import check_share_fits, free_memory
from draftsmith.models.placement import Placement

__all__ = ["check_can_spread", "module_places", "spread_options"]


def check_can_spread(name: str) -> None:
    """Refuse layers on several devices where there are no hooks for it.

    Raises:
        InvalidRequestError: With the remedy.
    """
    if find_spec("accelerate") is None:
        raise InvalidRequestError(
            f"layers_per_device of {name}, which only transformers runs, needs accelerate: "
            "pip install 'draftsmith[layers]'"
        )


def spread_options(
    kind: Any,
    config: Any,
    dtype: torch.dtype,
    layers_per_device: Sequence[int],
    devices: Sequence[torch.device],
    name: str,
) -> dict[str, Any]:
    """What `from_pretrained` is told.

    Args:
        kind: The automatic class that is loaded.
        config: The model's.
        dtype: Of its weights.
        layers_per_device: Numbers of layers, in the devices' order.
        devices: As many as there are.
        name: For messages.

    Raises:
        InvalidRequestError: The class cannot be split so, or the numbers do not fit.
        ModelFormatError: A device has less memory than its share.
    """
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=False)
    places = module_places(model, layers_per_device, devices, name)
    for device, count in _shares(model, places).items():
        check_share_fits(str(device), dtype.itemsize * count, free_memory(device))
    # Numbers: of a set of devices, accelerate's main one would be any.
    return {"device_map": {path: _number(device) for path, device in places.items()}}


def module_places(
    model: Any, layers_per_device: Sequence[int], devices: Sequence[torch.device], name: str
) -> dict[str, torch.device]:
    """The device of each module that is not taken apart, by its path.

    Args:
        model: An object of `transformers`; its weights may be anywhere.
        layers_per_device: Numbers of layers, in the devices' order.
        devices: As many as there are.
        name: For messages.

    Raises:
        InvalidRequestError: Its class says nothing of modules that must stay whole, or has no one
            list of them; or the numbers do not fit.
    """
    path = _layers_path(model, name)
    layers = model.get_submodule(path)
    placement = Placement.split(layers_per_device, devices, len(layers), name)
    beside = list(_beside(model, "", path))
    in_front = {
        id(p) for _, module, is_behind in beside if not is_behind for p in module.parameters()
    }
    places: dict[str, torch.device] = {}
    for own, module, is_behind in beside:
        weights = {id(parameter) for parameter in module.parameters()}
        # What has no weights works on what the embedding gives: positions, dropout.
        is_last = is_behind and bool(weights) and not weights & in_front
        places[own] = placement.last if is_last else placement.first
    for device, numbers in placement.blocks:
        places.update({f"{path}.{number}": device for number in numbers})
    return places


def _layers_path(model: Any, name: str) -> str:
    """The path of the one list of layers."""
    kinds = set(model._no_split_modules or ())
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) > 0
        and all(type(layer).__name__ in kinds for layer in module)
    ]
    kind = type(model).__name__
    if model.config.is_encoder_decoder:
        raise _unsplittable(name, f"{kind} is an encoder-decoder")
    if len(lists) != 1:
        count = len(lists) or "no"
        raise _unsplittable(name, f"{kind} has {count} lists of modules that must stay whole")
    parts = lists[0].split(".")
    for count in range(len(parts)):
        around = model.get_submodule(".".join(parts[:count]))
        if [*around.parameters(recurse=False), *around.buffers(recurse=False)]:
            raise _unsplittable(name, f"{type(around).__name__} has weights beside its layers")
    return lists[0]


def _unsplittable(name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"layers_per_device cannot split {name}: {why}; leave it out")


def _beside(module: nn.Module, prefix: str, layers: str) -> Iterator[tuple[str, nn.Module, bool]]:
    """Modules beside the list of layers, in the class's order, and whether they are behind it."""
    is_behind = False
    for own, child in module.named_children():
        path = f"{prefix}{own}"
        if path == layers:
            is_behind = True
        elif layers.startswith(f"{path}."):
            yield from _beside(child, f"{path}.", layers)
            is_behind = True
        else:
            yield path, child, is_behind


def _shares(model: Any, places: Mapping[str, torch.device]) -> dict[torch.device, int]:
    """Weights on each device; what is tied is there once."""
    held: dict[torch.device, dict[int, int]] = defaultdict(dict)
    for path, device in places.items():
        weights = model.get_submodule(path).parameters()
        held[device].update({id(weight): weight.numel() for weight in weights})
    return {device: sum(counts.values()) for device, counts in held.items()}


def _number(device: torch.device) -> int | str:
    return str(device) if device.index is None else device.index
