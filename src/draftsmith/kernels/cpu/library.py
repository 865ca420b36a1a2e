"""The compiled library: found beside the package, called through ctypes.

Pointers go in as integers (`data_ptr()`), so that a call costs microseconds. A wheel without the
library still runs, on torch; that is said once.
"""

import ctypes
import logging
import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from draftsmith.errors import InvalidRequestError

__all__ = [
    "Library",
    "instruction_set",
    "instruction_sets",
    "library",
    "num_threads",
    "physical_cores",
    "pointer",
    "set_instruction_set",
    "set_num_threads",
    "using_threads",
]

_log = logging.getLogger(__name__)

_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double
_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "ds_isa": (ctypes.c_char_p, []),
    "ds_isa_name": (ctypes.c_char_p, [_INT]),
    "ds_select_isa": (_INT, [ctypes.c_char_p]),
    "ds_set_num_threads": (None, [_INT]),
    "ds_use_threads": (None, [_INT]),
    "ds_num_threads": (_INT, []),
    "ds_packed_bytes": (_LONG, [_INT, _INT, _INT]),
    "ds_find_corrupt": (_LONG, [_INT, _POINTER, _LONG]),
    "ds_pack": (_LONG, [_INT, _POINTER, _INT, _INT, _POINTER]),
    "ds_multiply": (None, [_POINTER, _POINTER, _INT, _POINTER, _INT]),
    "ds_dequantise_rows": (None, [_POINTER, _POINTER, _LONG, _POINTER]),
    "ds_rms_norm": (None, [_POINTER, _POINTER, _INT, _INT, _FLOAT, _POINTER]),
    "ds_rotate": (None, [_POINTER, _POINTER, _POINTER, _INT, _INT]),
    "ds_swiglu": (None, [_POINTER, _POINTER, _LONG, _POINTER]),
    "ds_store": (None, [_POINTER, _POINTER, *[_INT] * 4, _POINTER, _POINTER]),
    "ds_attend": (None, [*[_POINTER] * 3, *[_INT] * 3, _FLOAT, _INT, *[_POINTER] * 3]),
    "ds_decoder_forward": (None, [_POINTER, _POINTER]),
    "ds_pass_bytes": (_INT, []),
    "ds_points": (None, [_POINTER, _POINTER, _INT, _INT, _POINTER]),
    "ds_points_and_ids": (_INT, [_POINTER, _POINTER, _INT, _INT, _INT, _POINTER, _POINTER]),
    "ds_laws": (None, [_POINTER, _POINTER, _INT, _INT, *[_POINTER] * 5]),
    "ds_race": (None, [_POINTER, *[_INT] * 3, *[_POINTER] * 3, _INT, _INT, _POINTER]),
    "ds_has_mass": (None, [_POINTER, _INT, _INT, _POINTER]),
    "ds_draw": (None, [_POINTER, _INT, _INT, _POINTER, _POINTER]),
    "ds_memory_new": (_POINTER, [_LONG, _LONG, _LONG]),
    "ds_memory_delete": (None, [_POINTER]),
    "ds_memory_sizes": (None, [_POINTER, _POINTER]),
    "ds_memory_write": (None, [_POINTER, _POINTER]),
    "ds_memory_read": (_INT, [_POINTER, _POINTER]),
    "ds_memory_note": (None, [_POINTER, _INT, *[_POINTER] * 3, _INT, _INT]),
    "ds_memory_keep": (None, [_POINTER, _POINTER]),
    "ds_text_new": (_POINTER, [_POINTER, _POINTER, _LONG]),
    "ds_text_delete": (None, [_POINTER]),
    "ds_text_propose": (
        _INT,
        [_POINTER, _POINTER, _LONG, _POINTER, _LONG, _INT, _DOUBLE, _INT, *[_POINTER] * 3],
    ),
    "ds_philox": (None, [*[_POINTER] * 3, _INT, _LONG, _INT, _POINTER]),
    "ds_uniforms": (None, [*[_POINTER] * 3, _INT, _LONG, _INT, _POINTER]),
}
"""Result and arguments of every function, as the sources declare them."""

_LATE = frozenset(
    {"ds_points_and_ids", "ds_pass_bytes"}
    | {name for name in _SIGNATURES if name.startswith(("ds_memory_", "ds_text_"))}
)
"""What a library that was built earlier lacks: who calls it asks whether it is there."""

Library = ctypes.CDLL


@cache
def library() -> Library | None:
    """The library, with as many threads as the machine has physical cores; None without it."""
    spec = find_spec("draftsmith.kernels.cpu._native")
    if spec is None or spec.origin is None:
        _log.warning("draftsmith was installed without its CPU kernels: torch is slower")
        return None
    loaded = ctypes.CDLL(spec.origin)
    for name, (result, arguments) in _SIGNATURES.items():
        if name in _LATE and not hasattr(loaded, name):
            continue
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    loaded.ds_set_num_threads(physical_cores())
    _keep_freed_memory()
    return loaded


def _keep_freed_memory() -> None:
    """Let glibc keep what a round frees: the largest block ever freed sets how much it keeps.

    Else the megabytes of laws that each round frees are given back, and faulted in by the next.
    """
    torch.empty(30 << 20, dtype=torch.uint8)  # never touched, so never backed by memory


def pointer(tensor: Tensor) -> int:
    """The address of a contiguous CPU tensor's first element."""
    assert tensor.is_contiguous()
    assert tensor.device.type == "cpu"
    return tensor.data_ptr()


def physical_cores() -> int:
    """Cores that this process may use, counting the threads of one core once."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(_num_cpus())
    cores = {_siblings(cpu) for cpu in usable}
    return max(1, len(cores))


def _num_cpus() -> int:
    return os.cpu_count() or 1


def _siblings(cpu: int) -> str:
    """The hardware threads of one core, as the kernel lists them; the number itself elsewhere."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return str(cpu)


class _Here(threading.local):
    """What `using_threads` asks for in this thread; None outside of it."""

    count: int | None = None


_here = _Here()


def num_threads(own: int | None = None) -> int:
    """Threads of a call of the kernels; torch's where there is no library.

    Args:
        own: Of the model that calls; None for what belongs to no model.

    Returns:
        What `using_threads` asks for here, else the model's own, else the process's default. A
        call may get fewer, where the system has no more; its numbers are the same.
    """
    if _here.count is not None:
        return _here.count
    if own is not None:
        return own
    loaded = library()
    return torch.get_num_threads() if loaded is None else int(loaded.ds_num_threads())


def set_num_threads(count: int) -> None:
    """Set the default: of models that are made from now on, and of what belongs to no model.

    Raises:
        InvalidRequestError: If `count` is not between 1 and 1024.
    """
    _check_count(count)
    loaded = library()
    if loaded is not None:
        loaded.ds_set_num_threads(count)


@contextmanager
def using_threads(count: int) -> Generator[None]:
    """Run this thread's calls of the kernels on `count` threads, whatever models say.

    Raises:
        InvalidRequestError: If `count` is not between 1 and 1024.
    """
    _check_count(count)
    loaded, before = library(), _here.count
    _use(loaded, count)
    try:
        yield
    finally:
        _use(loaded, before)


def _use(loaded: Library | None, count: int | None) -> None:
    _here.count = count
    if loaded is not None:
        loaded.ds_use_threads(count or 0)


def _check_count(count: int) -> None:
    if not 1 <= count <= 1024:
        raise InvalidRequestError(f"threads must be between 1 and 1024, got {count}")


def instruction_sets() -> Sequence[str]:
    """Those that this processor runs and the library has, best first."""
    loaded = library()
    if loaded is None:
        return ()
    names: list[str] = []
    while name := loaded.ds_isa_name(len(names)):
        names.append(name.decode())
    return names


def instruction_set() -> str | None:
    """The one in use; None without the library."""
    loaded = library()
    return None if loaded is None else loaded.ds_isa().decode()


def set_instruction_set(name: str | None) -> None:
    """Use another instruction set; None chooses the best.

    Raises:
        InvalidRequestError: If this processor does not run it.
    """
    loaded = library()
    if loaded is None or not loaded.ds_select_isa(None if name is None else name.encode()):
        known = ", ".join(instruction_sets())
        raise InvalidRequestError(f"instruction set must be one of {known}, got {name!r}")
