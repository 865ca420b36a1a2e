"""The fast decoder on a GPU: a pass over a few rows is one replay of a CUDA graph.

Every sum has one order, whatever the number of rows or sequences: a token's logits have the same
bits in every pass, whether it stood in a prompt, in a check or alone. `TorchDecoder` is the plain
twin.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.kernels.gpu.attention import PAGE
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.native.config import DecoderConfig, Scales
from draftsmith.models.native.gpu_cache import GpuCache, PagePool
from draftsmith.models.native.gpu_pass import MOST_ROWS, GpuPass, PassInputs
from draftsmith.models.native.gpu_weights import GpuWeights, on_gpu
from draftsmith.models.native.weights import DecoderWeights

__all__ = ["GpuDecoder"]

_MOST_GRAPHED = 256
"""Rows of a pass that is captured; a larger one is long enough to be launched kernel by kernel."""
_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_FEWEST_PARTS = 16
_MOST_PART_ROWS = 8192
"""Parts times rows of one pass, which bounds what their sums take."""


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    packed: Int[Tensor, " numbers"]
    logits: Float[Tensor, "rows vocab"]


class GpuDecoder(LanguageModel):
    """A decoder of the Llama, Mistral, Qwen2, Qwen3 or SmolLM family, on the Triton kernels.

    Args:
        weights: On the device, of one dtype.
        config: The model's shape.
        name: For messages; None is the architecture's.
        num_head_ids: For a draft: logits of the first ids alone, which are the most frequent in a
            byte-pair vocabulary; None is all.
    """

    uses_torch_threads = False
    has_reducible_head = True

    def __init__(
        self,
        weights: GpuWeights,
        config: DecoderConfig,
        name: str | None = None,
        num_head_ids: int | None = None,
    ) -> None:
        assert self.computes(config)
        self.config = config
        self.num_head_ids = num_head_ids
        self.weights = weights if num_head_ids is None else weights.with_head_of(num_head_ids)
        weights = self.weights
        self.device = weights.embedding.device
        self.traits = ModelTraits(
            name=name or config.architecture,
            vocab_size=config.vocab_size,
            eos_token_ids=config.eos_token_ids,
            context_length=config.context_length,
        )
        self.pool = PagePool(config, self.device, weights.embedding.dtype)
        self._launcher = GpuPass(weights, config, self.pool)
        is_cuda = self.device.type == "cuda"
        self.can_be_captured = is_cuda
        self._memory = torch.cuda.graph_pool_handle() if is_cuda else None
        self.lock = threading.RLock()
        """Held from a pass's inputs to the copy of its outputs: graphs and scratch are shared."""
        self._graphs: dict[tuple[int, int, int], _Graph] = {}
        self._version = self.pool.version

    @classmethod
    def from_weights(
        cls,
        weights: DecoderWeights,
        config: DecoderConfig,
        device: torch.device,
        dtype: torch.dtype = torch.bfloat16,
        name: str | None = None,
        num_head_ids: int | None = None,
    ) -> "GpuDecoder":
        """Dequantise packed weights onto a GPU.

        Args:
            weights: As `read_gguf` and `read_folder` give them.
            config: The model's shape; `computes` it.
            device: A CUDA device.
            dtype: Of weights, activations and cache; sums are float32.
            name: For messages; None is the architecture's.
            num_head_ids: For a draft: logits of the first ids alone; None is all.
        """
        return cls(on_gpu(weights, device, dtype), config, name, num_head_ids)

    @staticmethod
    def computes(config: DecoderConfig) -> bool:
        """Whether the kernels know all that such a model computes."""
        whole = 2 * len(config.rotary.inverse_frequencies) == config.head_size
        fits = (config.local_rotary, config.normalises_outputs) == (None, False)
        return whole and fits and config.scales == Scales()

    def open_cache(self) -> GpuCache:
        """An empty cache of this model."""
        return GpuCache(self.pool)

    @torch.inference_mode()
    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        assert isinstance(cache, GpuCache)
        assert batch.parents is None
        if len(batch.rows) * batch.width > MOST_ROWS:
            return self._in_parts(cache, batch)
        logits = self._pass(cache, batch, with_logits=True)
        assert logits is not None
        for row, tokens in zip(batch.rows, batch.tokens, strict=True):
            cache.append(row, len(tokens))
        return logits

    @torch.inference_mode()
    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        assert isinstance(cache, GpuCache)
        done = 0
        while done < len(tokens):
            num_parts = -(-(cache.length(row) + MOST_ROWS) // PAGE)
            step = max(16, min(MOST_ROWS, _MOST_PART_ROWS // num_parts))
            part = tokens[done : done + step]
            self._pass(cache, Rows([row], [part]), with_logits=False)
            cache.append(row, len(part))
            done += len(part)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    def captured_pass(
        self, batch: int, width: int, num_tokens: int
    ) -> tuple[Callable[[], None], Int[Tensor, " numbers"]]:
        """Capture a pass beforehand, rather than at the first of its kind.

        Args:
            batch: Sequences.
            width: Rows of each.
            num_tokens: That the longest sequence holds afterwards.

        Returns:
            What runs it, and the numbers that it reads: starts, widths, slots, then tokens.
        """
        with self.lock, self.current:
            graph = self._graph(*self._bucket(batch, width, -(-num_tokens // PAGE)))
        return graph.graph.replay, graph.packed

    def _in_parts(self, cache: GpuCache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """A pass of more rows than there is scratch for, one sequence after the other."""
        shape = (len(batch.rows), batch.width, len(self.weights.head))
        logits = torch.empty(shape, dtype=torch.float32, device=self.device)
        for place, (row, tokens) in enumerate(zip(batch.rows, batch.tokens, strict=True)):
            for first in range(0, len(tokens), MOST_ROWS):
                part = tokens[first : first + MOST_ROWS]
                logits[place, first : first + len(part)] = self.forward(cache, Rows([row], [part]))
        return logits

    @property
    def current(self) -> AbstractContextManager[object]:
        """Makes the model's device the one that kernels are launched on."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    # --- a pass -------------------------------------------------------------------------------

    def _pass(
        self, cache: GpuCache, batch: Rows, *, with_logits: bool
    ) -> Float[Tensor, "batch rows vocab"] | None:
        with self.lock, self.current:
            return self._run_pass(cache, batch, with_logits=with_logits)

    def _run_pass(
        self, cache: GpuCache, batch: Rows, *, with_logits: bool
    ) -> Float[Tensor, "batch rows vocab"] | None:
        lengths = [cache.length(row) for row in batch.rows]
        ends = [n + len(new) for n, new in zip(lengths, batch.tokens, strict=True)]
        num_parts = max(cache.reserve(row, end) for row, end in zip(batch.rows, ends, strict=True))
        num, width = len(batch.rows), batch.width
        slots = [cache.slot(row) for row in batch.rows]
        counts, wide, parts = self._bucket(num, width, num_parts)
        is_small = wide <= _WIDTHS[-1] and counts * wide <= _MOST_GRAPHED
        is_graphed = self.device.type == "cuda" and is_small
        if not is_graphed:
            counts, wide = num, width
        numbers = _packed(lengths, slots, batch.tokens, counts, wide)
        if not is_graphed:
            inputs = _unpacked(numbers.to(self.device), counts)
            found = self.run(inputs, parts, with_logits=with_logits)
            return None if found is None else found.view(counts, wide, -1)
        captured = self._graph(counts, wide, parts)
        captured.packed.copy_(numbers)
        captured.graph.replay()
        if not with_logits:
            return None
        # A copy: the next replay writes over what this one found.
        return captured.logits.view(counts, wide, -1)[:num, :width].clone()

    def _bucket(self, batch: int, width: int, num_parts: int) -> tuple[int, int, int]:
        """The captured pass that such a one runs as."""
        wide = next((one for one in _WIDTHS if one >= width), width)
        return 1 << (batch - 1).bit_length(), wide, self.num_parts(num_parts)

    def num_parts(self, num_pages: int) -> int:
        """The parts that are captured for sequences of so many pages."""
        parts = _FEWEST_PARTS
        while parts < num_pages:
            parts *= 2
        return min(parts, self.pool.most_pages)

    def _graph(self, batch: int, width: int, num_parts: int) -> _Graph:
        if self._version != self.pool.version:
            self._graphs.clear()
            self._version = self.pool.version
        key = batch, width, num_parts
        if key not in self._graphs:
            self._graphs[key] = self._captured(*key)
        return self._graphs[key]

    def _captured(self, batch: int, width: int, num_parts: int) -> _Graph:
        """Capture a pass; it is run once before, over no sequence, so that kernels are compiled."""
        packed = torch.zeros(batch * (3 + width), dtype=torch.int32, device=self.device)
        inputs = _unpacked(packed, batch)
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self.run(inputs, num_parts)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # One pool of memory: graphs run one after the other, and keep nothing but their logits.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            logits = self.run(inputs, num_parts)
        assert logits is not None
        return _Graph(graph, packed, logits)

    def run(
        self, inputs: PassInputs, num_parts: int, *, with_logits: bool = True
    ) -> Float[Tensor, "rows vocab"] | None:
        """Launch a pass, as `GpuPass.launch` does, which can be captured."""
        return self._launcher.launch(inputs, num_parts, with_logits=with_logits)


def _packed(
    starts: Sequence[int],
    slots: Sequence[int],
    tokens: Sequence[Sequence[int]],
    batch: int,
    width: int,
) -> Int[Tensor, " numbers"]:
    """Starts, widths, slots and tokens in one tensor, so that one copy takes them all."""
    missing = [0] * (batch - len(starts))
    rows = [token for new in tokens for token in (*new, *[0] * (width - len(new)))]
    widths = [len(new) for new in tokens]
    numbers = [*starts, *missing, *widths, *missing, *slots, *missing, *rows]
    numbers += [0] * (batch * (3 + width) - len(numbers))
    return torch.tensor(numbers, dtype=torch.int32)


def _unpacked(packed: Int[Tensor, " numbers"], batch: int) -> PassInputs:
    starts, widths, slots = packed[: 3 * batch].view(3, batch)
    return PassInputs(starts, widths, slots, packed[3 * batch :].view(batch, -1))
