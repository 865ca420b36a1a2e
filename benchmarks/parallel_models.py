"""Models of random weights over several GPUs: cut up from whole ones, or made rank by rank."""

import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symmetric_memory
from torch import Tensor

from benchmarks.gpu_models import SHAPES, random_weights, shape
from draftsmith.engine.rounds import graphs
from draftsmith.kernels.gpu.capture import GraphPool
from draftsmith.kernels.gpu.products import Stream
from draftsmith.kernels.gpu.verdicts import Bests, State
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu_runner import GpuRunner, PassShape
from draftsmith.models.native.gpu_weights import GpuLayer, GpuWeights
from draftsmith.parallel.group import Group, current_group
from draftsmith.parallel.orders import Shared, together

__all__ = [
    "CHEN",
    "Coins",
    "Device",
    "Exchanges",
    "Timer",
    "cut_config",
    "cut_weights",
    "part_of_random",
    "random_on_rank",
]

CHEN = {
    "target": shape((40, 8192, 64, 8, 128, 28_672, 128_256), 8192),
    "wide": shape((8, 5120, 40, 8, 128, 15_360, 128_256), 8192, is_tied=True),
    "deep": shape((24, 3072, 24, 8, 128, 8704, 128_256), 8192, is_tied=True),
    "8B": SHAPES["8B"],
}
"""Llama 3 70B cut to 40 of its 80 layers; drafts of a twelfth of its parameters, of Chen et al.'s
proportions (8 wide layers) and of as many layers as a model of that size has elsewhere."""


def cut_config(config: DecoderConfig, size: int) -> DecoderConfig:
    """The shape of one rank's part."""
    return replace(
        config,
        num_heads=config.num_heads // size,
        num_kv_heads=config.num_kv_heads // size,
        intermediate_size=config.intermediate_size // size,
    )


def part_of_random(config: DecoderConfig, rank: int, size: int) -> GpuWeights:
    """A rank's part of a model of random weights, of which nobody ever has the whole."""
    part = replace(cut_config(config, size), vocab_size=-(-config.vocab_size // size))
    held = random_weights(part, seed=rank)
    # What comes of a sum over the ranks is as large as what comes of one.
    for layer in held.layers:
        for matrix in (layer.output, layer.down):
            matrix.mul_(size**-0.5)
    return held


def cut_weights(weights: GpuWeights, config: DecoderConfig, rank: int, size: int) -> GpuWeights:
    """A rank's part of a model that is there whole."""

    def rows(matrix: Tensor) -> Tensor:
        return matrix.chunk(size)[rank].contiguous()

    def columns(matrix: Tensor) -> Tensor:
        return matrix.chunk(size, dim=1)[rank].contiguous()

    def blocks(matrix: Tensor | None, sizes: tuple[int, ...]) -> Tensor | None:
        if matrix is None:
            return None
        return torch.cat([rows(one) for one in matrix.split(sizes)])

    own, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    inner = config.intermediate_size

    def layer(of: GpuLayer) -> GpuLayer:
        inputs, gates = blocks(of.inputs, (own, kv, kv)), blocks(of.gate_and_up, (inner, inner))
        assert inputs is not None
        assert gates is not None
        return replace(
            of,
            inputs=inputs,
            inputs_bias=blocks(of.inputs_bias, (own, kv, kv)),
            output=columns(of.output),
            gate_and_up=gates,
            gate_and_up_bias=blocks(of.gate_and_up_bias, (inner, inner)),
            down=columns(of.down),
        )

    embedding = rows(weights.embedding)
    head = embedding if weights.head is weights.embedding else rows(weights.head)
    return GpuWeights(embedding, tuple(map(layer, weights.layers)), weights.final_norm, head)


def random_on_rank(name: str, placement: str) -> GpuRunner:
    """What every rank does to have a model of `CHEN`: its part, or the whole."""
    group = current_group()
    assert group is not None
    config = CHEN[name]
    if placement == "whole":
        return GpuRunner(random_weights(config), config)
    weights = part_of_random(config, group.rank, group.size)
    own = cut_config(config, group.size)
    return GpuRunner(weights, own, config.vocab_size, group.exchange, whole=config)


class Coins(Shared):
    """Verdicts in which a coin, and not the target, says whether a drafted token is right."""

    def __init__(self, chance: float) -> None:
        self._chance = chance
        self._settle = graphs.verdicts.settle
        # The same coins fall on every rank.
        torch.cuda.manual_seed(0)
        graphs.verdicts.settle = self._tossed  # type: ignore[assignment]

    @together
    def put_away(self) -> None:
        """The target decides again."""
        graphs.verdicts.settle = self._settle

    def _tossed(
        self, bests: Bests, tokens: Tensor, state: State, found: Tensor, *rest: Tensor | None
    ) -> None:
        rows = tokens.shape[1]
        drafted = torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1).reshape(-1)
        is_drafted = torch.arange(rows, device=tokens.device).repeat(len(tokens)) < rows - 1
        is_kept = is_drafted & (torch.rand(drafted.shape, device=tokens.device) < self._chance)
        highs, ids = bests.highs.clone(), bests.ids.clone()
        highs[:, 0] = torch.where(is_kept, 3e38, highs[:, 0])
        ids[:, 0] = torch.where(is_kept, drafted, ids[:, 0])
        self._settle(Bests(highs, ids), tokens, state, found, *rest)


class Device(Shared):
    """What a rank says of its own GPU."""

    def copy_gbps(self) -> float:
        """Gigabytes that a copy reads and writes in a second."""
        source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda")
        to = torch.empty_like(source)
        for _ in range(3):
            to.copy_(source)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(10):
            to.copy_(source)
        last.record()
        last.synchronize()
        return 20 * source.nbytes / first.elapsed_time(last) / 1e6

    def name(self) -> str:
        """The card's."""
        return torch.cuda.get_device_name()


class Timer(Shared):
    """Times captured passes of one model, on every rank at once."""

    def __init__(self, runner: GpuRunner) -> None:
        self._runner = runner
        self._slot = runner.store.num_slots - 1
        pages = torch.arange(runner.store.most_pages, dtype=torch.int32) % runner.store.num_pages
        runner.store.tables[self._slot] = pages.to(runner.device)

    @torch.inference_mode()
    def milliseconds(self, rows: int) -> float:
        """Of a pass of one sequence, behind 300 tokens: the median of a few runs."""
        runner, shape = self._runner, PassShape(1, rows, self._runner.num_parts(8))
        numbers = [300, rows, self._slot, *range(100, 100 + rows)]
        with runner.current:
            # Not by `replay`, which would tell the others: they are told to time as well.
            graph = runner.graph(shape)
            graph.packed.copy_(torch.tensor(numbers, dtype=torch.int32))
            return milliseconds(graph.graph.replay)


class Exchanges(Shared):
    """Times what ranks exchange behind a product: sums over the ranks, in graphs of many."""

    hidden = 8192
    _MANY = 80

    @torch.inference_mode()
    def microseconds(self, kind: str, rows: int) -> float:
        """Of one sum of `[rows, 8192]`.

        Args:
            kind: Ours, with the norm and the residual in it; or a library's, of bfloat16, alone.
            rows: How many.
        """
        group = current_group()
        assert group is not None
        if kind.startswith("sum"):
            run = self._sums(group, rows)
        elif kind.startswith("logits"):
            run = self._logits(group, rows)
        else:
            run = self._theirs(kind, rows)
        graph, _ = GraphPool(group.device).captured(run)
        found = 1000 * milliseconds(graph.replay) / self._MANY
        # A graph that holds a library's calls must be gone before its group is.
        del graph
        return found

    def _sums(self, group: Group, rows: int) -> Callable[[], None]:
        values = torch.zeros(rows, self.hidden, dtype=torch.bfloat16, device=group.device)
        exchange = group.exchange
        squares = torch.zeros(rows, -(-self.hidden // exchange.tile), device=group.device)
        stream, norm = Stream(values, values.clone(), squares), torch.ones_like(values[0])

        def run() -> None:
            exchange.begin()
            for _ in range(self._MANY):
                mine = exchange.room(rows, self.hidden)
                exchange.add_up(mine, norm=norm, to=stream, residual=values)
            exchange.end()

        return run

    def _logits(self, group: Group, rows: int) -> Callable[[], None]:
        exchange, own = group.exchange, 64_128
        out = torch.zeros(rows, own * exchange.size, device=group.device)

        def run() -> None:
            exchange.begin()
            for _ in range(self._MANY):
                exchange.gather(exchange.room(rows, own), own, out)
            exchange.end()

        return run

    def _theirs(self, kind: str, rows: int) -> Callable[[], None]:
        world = dist.group.WORLD
        assert world is not None
        if kind == "NCCL":
            held = torch.zeros(rows, self.hidden, dtype=torch.bfloat16, device="cuda")

            def reduce_held() -> None:
                for _ in range(self._MANY):
                    dist.all_reduce(held)

            return reduce_held
        memory = symmetric_memory.empty(
            rows * self.hidden, dtype=torch.bfloat16, device=torch.device("cuda")
        )
        symmetric_memory.rendezvous(memory, world.group_name)
        name = "one_shot_all_reduce" if kind == "one-shot" else "two_shot_all_reduce_"
        reduce = getattr(torch.ops.symm_mem, name)

        def run() -> None:
            for _ in range(self._MANY):
                reduce(memory, "sum", world.group_name)

        return run


def milliseconds(run: Callable[[], object], count: int = 10) -> float:
    """The median of five runs of so many each, by events on the device."""
    run()
    torch.cuda.synchronize()
    found: list[float] = []
    for _ in range(5):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(count):
            run()
        last.record()
        last.synchronize()
        found.append(first.elapsed_time(last) / count)
    return statistics.median(found)
