"""A decoder over several ranks: each reads its own part, and rank 0 runs them all as one model.

A target is cut. A draft may be cut as well, or be whole on every rank: a small model's sums over
the ranks can cost more than the reading that they save. Whichever is faster is kept.
"""

import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from draftsmith.errors import InvalidRequestError, ModelFormatError
from draftsmith.models.gguf.read import read_gguf
from draftsmith.models.native.bounds import named_after
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_runner import GpuRunner, PassShape
from draftsmith.models.native.gpu_store import PageStore
from draftsmith.models.native.gpu_weights import on_gpu
from draftsmith.models.native.memory import check_fits
from draftsmith.models.native.read import read_folder
from draftsmith.models.native.shards import Part, shard_config
from draftsmith.parallel.group import Group, current_group
from draftsmith.parallel.orders import Orders

__all__ = ["Placement", "load_on_ranks", "pass_seconds", "placement_of", "runner_on_ranks"]

_log = logging.getLogger(__name__)
Placement: TypeAlias = Literal["cut", "whole"]
_TIMED = 5


def load_on_ranks(
    path: Path,
    reference: str,
    dtype: torch.dtype,
    group: Group,
    placement: Placement | None = "cut",
) -> GpuDecoder:
    """Load a model on every rank of a group.

    Args:
        path: A folder, or a GGUF file; every rank sees the same.
        reference: For messages.
        dtype: Of weights, activations and cache.
        group: This process is its rank 0.
        placement: `cut` gives each rank its part; `whole` gives each all of it, so that they need
            nothing from each other; None tries both and keeps what is faster.

    Returns:
        The model, as rank 0 drives it.

    Raises:
        ModelFormatError: It is not a model, or a part does not fit on its device.
        InvalidRequestError: It cannot be cut into so many parts, or the kernels do not know all
            that it computes.
        ParallelError: A rank has failed.
    """
    orders = group.orders
    assert orders is not None
    asked = str(path), reference, dtype
    if placement is not None:
        return _decoder(runner_on_ranks(orders, _read_part, *asked, placement), reference)
    # Where it cannot be cut, there is nothing to try.
    try:
        cut = runner_on_ranks(orders, _read_part, *asked, "cut")
    except InvalidRequestError:
        return load_on_ranks(path, reference, dtype, group, "whole")
    whole = runner_on_ranks(orders, _read_part, *asked, "whole")
    cut_ms, whole_ms = (1000 * pass_seconds(one) for one in (cut, whole))
    # The slower one is let go of, on all ranks.
    is_cut = cut_ms <= whole_ms
    found = _decoder(cut if is_cut else whole, reference)
    times = f"{cut_ms:.2f} ms a pass, {whole_ms:.2f} whole on each"
    if not is_cut:
        times = f"{whole_ms:.2f} ms a pass, {cut_ms:.2f} cut"
    ranks = f"cut over {group.size} ranks" if is_cut else f"whole on each of {group.size} ranks"
    found.placed = f"{ranks}: {times}"
    _log.info("%s is %s", reference, found.placed)
    return found


def runner_on_ranks(orders: Orders, factory: Callable[..., GpuRunner], *args: object) -> GpuRunner:
    """Make a runner on every rank, whose pages rank 0 deals out on all.

    Args:
        orders: Rank 0's.
        factory: Of a module.
        args: Its arguments.

    Raises:
        ParallelError: A rank could not.
    """
    runner = orders.make(factory, *args)
    orders.make(_store_of, runner)
    return runner


def pass_seconds(runner: GpuRunner) -> float:
    """What a pass of one token takes: the median of a few, after one that captures it."""
    numbers, shape = [0, 1, 0, 0], PassShape(1, 1, runner.num_parts(1))
    times: list[float] = []
    with torch.inference_mode(), runner.current:
        for _ in range(_TIMED + 1):
            start = time.perf_counter()
            if runner.is_cuda:
                runner.replay(numbers, shape)
                torch.cuda.synchronize(runner.device)
            else:
                runner.launch_once(numbers, shape, True)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _decoder(runner: GpuRunner, reference: str) -> GpuDecoder:
    decoder = GpuDecoder(runner, runner.whole, reference)
    decoder.has_reducible_head = False
    return decoder


def placement_of(model: GpuDecoder) -> Placement:
    """Whether a model over several ranks is cut, or whole on each of them."""
    return "whole" if model.runner.config is model.config else "cut"


def _store_of(runner: GpuRunner) -> PageStore:
    return runner.store


def _read_part(path: str, reference: str, dtype: torch.dtype, placement: Placement) -> GpuRunner:
    """What every rank does to load a model."""
    group = current_group()
    assert group is not None
    is_cut = placement == "cut"
    part = Part(group.rank, group.size) if is_cut else None
    source = Path(path)
    read = read_gguf if source.is_file() else read_folder
    config, weights = read(source, None, part)
    if not GpuDecoder.computes(config):
        raise InvalidRequestError(
            f"tensor_parallel={group.size} is for models that the kernels know, and they do not "
            f"know all that this {config.architecture} model computes: leave it out"
        )
    if group.device.type == "cuda":
        with named_after(Path(f"rank {group.rank}'s part of {reference}")):
            free = torch.cuda.mem_get_info(group.device)[0]
            check_fits(dtype.itemsize * weights.num_weights, free)
    try:
        held = on_gpu(weights, group.device, dtype)
    except torch.OutOfMemoryError as error:
        raise ModelFormatError(
            f"rank {group.rank}'s part of {reference} does not fit on {group.device}: use more "
            "ranks, or a smaller model"
        ) from error
    own = config if part is None else shard_config(config, part)
    exchange = group.exchange if is_cut else None
    return GpuRunner(held, own, config.vocab_size, exchange, whole=config)
