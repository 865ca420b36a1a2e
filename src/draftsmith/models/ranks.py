"""A model over several processes: started, agreed on what they read, and loaded on each."""

import logging
from pathlib import Path

import torch

from draftsmith.errors import InvalidRequestError
from draftsmith.kernels.cpu.library import physical_cores
from draftsmith.models.contract import LanguageModel
from draftsmith.models.gguf.header import read_header
from draftsmith.models.native.checkpoint import open_checkpoint
from draftsmith.models.native.gpu_parallel import load_on_ranks as load_parts
from draftsmith.models.settings import ModelSettings
from draftsmith.parallel.agreement import ModelFile, check_agreement
from draftsmith.parallel.orders import Orders, Shared
from draftsmith.parallel.processes import start_group

__all__ = ["load_on_ranks", "model_files"]

_log = logging.getLogger(__name__)
_READ_WHOLE = ("*.json", "*.txt", "*.model", "*.jinja")


def load_on_ranks(
    path: Path,
    reference: str,
    dtype: torch.dtype,
    device: torch.device,
    settings: ModelSettings,
    *,
    is_draft: bool = False,
) -> LanguageModel:
    """Load a model that lies here on every rank, starting them where they do not run yet.

    Args:
        path: A folder, or a GGUF file.
        reference: For messages.
        dtype: Of weights, activations and cache.
        device: `cpu` or `cuda`.
        settings: Of which the number of ranks and their threads count.
        is_draft: Whether it may be whole on every rank, if that is faster.

    Raises:
        DraftsmithError: As `load_model` does.
    """
    size = settings.tensor_parallel
    if device.type == "cpu":
        if dtype != torch.float32:
            raise InvalidRequestError(
                f"dtype must be float32 or auto with parallel={size} on a CPU, got "
                f"{str(dtype).removeprefix('torch.')}"
            )
        if not is_draft:
            _log.warning(
                "%s runs in plain torch in %d processes on this CPU, which is for trying it: one "
                "process has kernels that are many times faster",
                reference,
                size,
            )
    group = start_group(size, device)
    assert group.orders is not None
    if device.type == "cpu":
        _share_threads(group.orders, size, settings.threads)
    check_agreement(group.orders, model_files(path), str(dtype).removeprefix("torch."))
    model = load_parts(path, reference, dtype, group, None if is_draft else "cut")
    model.num_ranks = size
    return model


def model_files(path: Path) -> list[ModelFile]:
    """What a model is read from.

    Args:
        path: A folder, or a GGUF file.
    """
    if path.is_file():
        tensors = [(one.path, one.offset) for one in read_header(path).tensors]
        return _with_headers(tensors)
    whole = [ModelFile(str(one), None) for kind in _READ_WHOLE for one in sorted(path.glob(kind))]
    stored = [(one.path, one.offset) for one in open_checkpoint(path).values()]
    return [*whole, *_with_headers(stored)]


def _with_headers(tensors: list[tuple[Path, int]]) -> list[ModelFile]:
    """Files of weights, each up to where the first of its tensors lies."""
    starts: dict[Path, int] = {}
    for file, offset in tensors:
        starts[file] = min(offset, starts.get(file, offset))
    return [ModelFile(str(file), start) for file, start in sorted(starts.items())]


class _Threads(Shared):
    """How many threads a rank has."""

    def __init__(self, count: int) -> None:
        torch.set_num_threads(count)


def _share_threads(orders: Orders, size: int, threads: int | None) -> None:
    """Give each rank its threads, by default so many that all together have one for each core."""
    if threads is None:
        threads = max(1, min(torch.get_num_threads(), physical_cores() // size))
    orders.make(_Threads, threads)
