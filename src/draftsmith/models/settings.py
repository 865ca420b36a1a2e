"""How a model is loaded, and what that means on a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from draftsmith.core.values import check_whole, require
from draftsmith.errors import InvalidRequestError
from draftsmith.models.placement import check_layers_per_device
from draftsmith.parallel.devices import check_devices
from draftsmith.parallel.torchrun import launch

__all__ = [
    "ACTIVATIONS",
    "DTYPES",
    "Activations",
    "Dtype",
    "ModelSettings",
    "check_parallel",
    "device_of",
    "meet_ranks",
    "parallel_or_launched",
    "torch_dtype",
]

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"]
DTYPES: tuple[Dtype, ...] = ("auto", "float32", "bfloat16", "float16", "int8", "int4")
Activations = Literal["int8", "float32"]
ACTIVATIONS: tuple[Activations, ...] = ("int8", "float32")
_MOST_RANKS = 64


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
        tensor_parallel: Processes of this host that run the model together, each with a part of
            every layer: on GPUs, each has one; on a CPU, plain torch in float32, for trying it.
            1 is this process alone.
    """

    dtype: Dtype = "auto"
    device: str = "auto"
    activations: Activations | None = None
    threads: int | None = None
    layers_per_device: Sequence[int] | None = None
    tensor_parallel: int = 1

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
        object.__setattr__(self, "tensor_parallel", check_parallel(self.tensor_parallel))
        if self.tensor_parallel > 1:
            self._check_parallel()

    def _check_parallel(self) -> None:
        """Refuse what belongs to one process, or to a decoder that cannot be cut."""
        number = self.tensor_parallel
        for name, value, why in (
            ("layers_per_device", self.layers_per_device, "is for one process"),
            ("activations", self.activations, "is for quantised weights, and ranks have floats"),
        ):
            if value is not None:
                raise InvalidRequestError(
                    f"{name}={value!r} {why}, and parallel={number} is several: leave one out"
                )
        if self.dtype in ("int8", "int4"):
            raise InvalidRequestError(
                f"dtype {self.dtype} is for one process, and parallel={number} is several: "
                "use float32, bfloat16 or float16"
            )


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


def check_parallel(value: object) -> int:
    """A number of processes.

    Raises:
        InvalidRequestError: It is none, or out of range.

    Example:
        >>> check_parallel(2)
        2
    """
    rule = "between 1 and 64"
    number = check_whole("parallel", value, rule)
    require(1 <= number <= _MOST_RANKS, "parallel", rule, value)
    return number


def parallel_or_launched(value: object) -> int:
    """A number of processes as it holds: None is those that `torchrun` has started, else 1.

    Raises:
        InvalidRequestError: `torchrun` has started another number.
    """
    launched = launch()
    if value is None:
        return 1 if launched is None else launched.size
    number = check_parallel(value)
    if launched is not None and launched.size != number:
        raise InvalidRequestError(
            f"parallel={number}: torchrun has started {launched.size} processes; leave it out"
        )
    return number


def meet_ranks(settings: ModelSettings) -> torch.device:
    """Make sure that there is a device for every rank, and meet those that `torchrun` has started.

    Only rank 0 comes back from it: the others do as it does until it ends, and raise `SystemExit`.

    Args:
        settings: Of which device and number of ranks count.

    Returns:
        Rank 0's device.

    Raises:
        InvalidRequestError: There are fewer devices.
        ParallelError: A rank does not come in time.
    """
    place = device_of(settings.device)
    if settings.tensor_parallel > 1:
        check_devices(settings.tensor_parallel, place)
        if launch() is not None:
            # Here, because it imports Triton, which not every installation has.
            from draftsmith.parallel.processes import start_group

            start_group(settings.tensor_parallel, place)
    return place


def _checked_threads(threads: object) -> int:
    rule = "between 1 and 1024"
    number = check_whole("threads", threads, rule)
    require(1 <= number <= 1024, "threads", rule, threads)
    return number
