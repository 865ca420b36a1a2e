"""How a model is loaded, and what that means on a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from draftsmith.core.values import check_whole, require
from draftsmith.errors import InvalidRequestError
from draftsmith.models.placement import check_layers_per_device

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "Activations",
    "Dtype",
    "ModelSettings",
    "device_of",
    "torch_dtype",
]

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"]
DTYPES: tuple[Dtype, ...] = ("auto", "float32", "bfloat16", "float16", "int8", "int4")
Activations = Literal["int8", "float32"]
ACTIVATIONS: tuple[Activations, ...] = ("int8", "float32")


@dataclass(frozen=True)
class ModelSettings:
    """How a model is loaded.

    Attributes:
        dtype: Of the weights. `auto` keeps what the file holds on a CPU (a GGUF's own blocks
            included) and is bfloat16 on a GPU. `int8` and `int4` round a float checkpoint's
            weights in groups of 32: that is a different model.
        device: A torch device; `auto` is the GPU if there is one.
        activations: Of products with quantised weights on a CPU: `int8` rounds them in groups
            of 32, each row by itself, as llama.cpp does; `float32` keeps them; None is `int8`
            where there are such products.
        threads: Of the model's passes on a CPU, and from then on of what belongs to no model:
            packing, sampling, torch. None is what these have (at first, the physical cores).
            Models that are loaded already keep their own. Where the system has no more threads,
            passes run on fewer; no text depends on it.
        layers_per_device: Numbers of layers on each GPU, from the first on: block after block, in
            plain torch, for a model that fits on none of them. None is all on one device.
    """

    dtype: Dtype = "auto"
    device: str = "auto"
    activations: Activations | None = None
    threads: int | None = None
    layers_per_device: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("dtype", self.dtype, DTYPES),
            ("activations", self.activations, (None, *ACTIVATIONS)),
        ):
            if value not in known:
                known = [one for one in known if one is not None]
                raise InvalidRequestError(
                    f"{name} must be one of {', '.join(known)}, got {value!r}"
                )
        if not isinstance(self.device, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # a caller's
            raise InvalidRequestError(
                f"device must be a name such as 'cpu' or 'cuda', got {self.device!r}"
            )
        if self.threads is not None:
            object.__setattr__(self, "threads", _checked_threads(self.threads))
        if self.layers_per_device is not None:
            numbers = check_layers_per_device(self.layers_per_device)
            object.__setattr__(self, "layers_per_device", numbers)


def device_of(device: str) -> torch.device:
    """The device that a caller named.

    Raises:
        InvalidRequestError: It is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        has_gpu = torch.cuda.is_available()
        raise InvalidRequestError(
            f"device {device!r} is not available: use {'cpu, cuda' if has_gpu else 'cpu'} or auto"
        ) from error
    return place


def torch_dtype(dtype: Dtype, device: torch.device, reference: str) -> torch.dtype:
    """The dtype where no native decoder takes what the file holds.

    Raises:
        InvalidRequestError: It is one that only native decoders on a CPU have.
    """
    if dtype in ("int8", "int4"):
        raise InvalidRequestError(
            f"dtype {dtype} needs a native decoder on a CPU, and {reference!r} has none: "
            "use bfloat16"
        )
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return getattr(torch, dtype)


def _checked_threads(threads: object) -> int:
    rule = "between 1 and 1024"
    number = check_whole("threads", threads, rule)
    require(1 <= number <= 1024, "threads", rule, threads)
    return number
