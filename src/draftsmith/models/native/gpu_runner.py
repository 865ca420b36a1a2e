"""A rank's own part of a decoder on a GPU: its weights and pages, and the passes over them.

A pass over a few rows is one replay of a CUDA graph. Where one rank is all there is, its part is
the whole model.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.capture import GraphPool
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu_pass import GpuPass, PassInputs, Taps
from draftsmith.models.native.gpu_store import PageStore
from draftsmith.models.native.gpu_weights import GpuWeights
from draftsmith.parallel.exchange import Exchange
from draftsmith.parallel.orders import Shared, together

__all__ = ["Found", "GpuRunner", "PassShape"]

_FEWEST_PARTS = 16


class PassShape(NamedTuple):
    """What tells the captured passes from each other."""

    batch: int
    width: int
    num_parts: int
    boundaries: tuple[int, ...] = ()
    """Of the residual streams that are handed out."""


class Found(NamedTuple):
    """What a pass has come to."""

    logits: Float[Tensor, "rows vocab"] | None
    """None where they were not wanted."""
    states: Float[Tensor, "rows boundaries hidden"] | None
    """Residual streams, in the dtype of the weights; None without boundaries."""


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    packed: Int[Tensor, " numbers"]
    found: Found


class GpuRunner(Shared):
    """What runs passes on one device.

    Args:
        weights: On the device, of one dtype: this rank's.
        config: The shape of what this rank has.
        num_ids: Columns of the logits, of all ranks together; None is as many as the head has rows.
        exchange: What joins this rank's part to the others'; None if there are no others.
        whole: The shape of what all ranks have together; None is `config`.
    """

    def __init__(
        self,
        weights: GpuWeights,
        config: DecoderConfig,
        num_ids: int | None = None,
        exchange: Exchange | None = None,
        whole: DecoderConfig | None = None,
    ) -> None:
        self.config, self.weights = config, weights
        self.whole = config if whole is None else whole
        self.device = weights.embedding.device
        self.num_ids = len(weights.head) if num_ids is None else num_ids
        self.store = PageStore(config, self.device, weights.embedding.dtype)
        self._launcher = GpuPass(weights, config, self.store, self.num_ids, exchange)
        self.is_cuda = self.device.type == "cuda"
        self._pool = GraphPool(self.device) if self.is_cuda else None
        self._graphs: dict[PassShape, _Graph] = {}
        self._version = self.store.version
        self.captured_s = 0.0
        """Time that capturing passes has taken so far, compiling included."""

    @property
    def current(self) -> AbstractContextManager[object]:
        """Makes the device the one that kernels are launched on."""
        return torch.cuda.device(self.device) if self.is_cuda else nullcontext()

    def num_parts(self, num_pages: int) -> int:
        """The parts that are captured for sequences of so many pages."""
        parts = _FEWEST_PARTS
        while parts < num_pages:
            parts *= 2
        return min(parts, self.store.most_pages)

    def run(
        self,
        inputs: PassInputs,
        num_parts: int,
        *,
        with_logits: bool = True,
        boundaries: tuple[int, ...] = (),
    ) -> Found:
        """Launch a pass, as `GpuPass.launch` does, which can be captured."""
        taps = None
        if boundaries:
            shape = inputs.tokens.numel(), len(boundaries), self.config.hidden_size
            taps = Taps(boundaries, self.weights.embedding.new_empty(shape))
        logits = self._launcher.launch(inputs, num_parts, with_logits=with_logits, taps=taps)
        return Found(logits, None if taps is None else taps.to)

    def check_ranks(self) -> None:
        """Make sure that what was computed so far is whole: that no other rank has failed.

        Raises:
            ParallelError: One has.
        """
        if self.told is not None:
            self.told.orders.check()

    def let_go(self) -> None:
        """Drop all graphs, which may hold collectives."""
        self._graphs.clear()

    @together
    def launch_once(self, numbers: Sequence[int], shape: PassShape, with_logits: bool) -> Found:
        """Run a pass kernel by kernel.

        Args:
            numbers: Starts, widths, slots and tokens: `batch` of each of the first three.
            shape: Of the pass.
            with_logits: Whether logits are wanted.

        Returns:
            Them, and the streams of the shape's boundaries.
        """
        packed = torch.tensor(numbers, dtype=torch.int32).to(self.device)
        inputs = unpacked(packed, shape.batch)
        return self.run(
            inputs, shape.num_parts, with_logits=with_logits, boundaries=shape.boundaries
        )

    @together
    def replay(self, numbers: Sequence[int], shape: PassShape) -> Found:
        """Run a pass as a graph, captured at the first of its shape.

        Args:
            numbers: As `launch_once` takes them.
            shape: Of the pass.

        Returns:
            Logits, and streams where the shape has boundaries; the next replay writes over them.
        """
        captured = self.graph(shape)
        captured.packed.copy_(torch.tensor(numbers, dtype=torch.int32))
        captured.graph.replay()
        return captured.found

    def graph(self, shape: PassShape) -> _Graph:
        """The graph of a shape."""
        if self._version != self.store.version:
            self._graphs.clear()
            self._version = self.store.version
        if shape not in self._graphs:
            start = self._now()
            self._graphs[shape] = self._captured(shape)
            self.captured_s += self._now() - start
        return self._graphs[shape]

    def _now(self) -> float:
        """The time when the device has done what it was given so far."""
        torch.cuda.current_stream(self.device).synchronize()
        return time.perf_counter()

    def _captured(self, shape: PassShape) -> _Graph:
        """Capture a pass; it is run once before, over no sequence, so that kernels are compiled."""
        count = shape.batch * (3 + shape.width)
        packed = torch.zeros(count, dtype=torch.int32, device=self.device)
        inputs = unpacked(packed, shape.batch)
        assert self._pool is not None
        graph, found = self._pool.captured(
            lambda: self.run(inputs, shape.num_parts, boundaries=shape.boundaries)
        )
        return _Graph(graph, packed, found)


def unpacked(packed: Int[Tensor, " numbers"], batch: int) -> PassInputs:
    """Starts, widths, slots and tokens, out of one tensor."""
    starts, widths, slots = packed[: 3 * batch].view(3, batch)
    return PassInputs(starts, widths, slots, packed[3 * batch :].view(batch, -1))
