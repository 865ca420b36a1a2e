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

from draftsmith.kernels.gpu import attention, plain, products
from draftsmith.kernels.gpu.attention import PAGE, Heads, Parts, Places
from draftsmith.kernels.gpu.products import Plan, Scratch, Stream, plan_for
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.native.config import DecoderConfig, Scales
from draftsmith.models.native.gpu_cache import GpuCache, PagePool
from draftsmith.models.native.gpu_weights import GpuWeights, on_gpu
from draftsmith.models.native.weights import DecoderWeights

__all__ = ["GpuDecoder", "PassInputs"]

_MOST_GRAPHED = 256
"""Rows of a pass that is captured; a larger one is long enough to be launched kernel by kernel."""
_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_FEWEST_PARTS = 16
_MOST_PART_ROWS = 8192
"""Parts times rows of one pass, which bounds what their sums take."""
_PROMPT_ROWS = 512


class PassInputs(NamedTuple):
    """What a pass reads on the device, int32."""

    starts: Int[Tensor, " batch"]
    widths: Int[Tensor, " batch"]
    slots: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch width"]


class _Plans(NamedTuple):
    inputs: Plan
    output: Plan
    gate_and_up: Plan
    down: Plan
    head: Plan


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
    """

    uses_torch_threads = False

    def __init__(self, weights: GpuWeights, config: DecoderConfig, name: str | None = None) -> None:
        assert self.computes(config)
        self.config = config
        self.weights = weights
        self.device = weights.embedding.device
        self.traits = ModelTraits(
            name=name or config.architecture,
            vocab_size=config.vocab_size,
            eos_token_ids=config.eos_token_ids,
            context_length=config.context_length,
        )
        self.pool = PagePool(config, self.device, weights.embedding.dtype)
        self._waves = _waves(config, self.pool.most_pages * PAGE, self.device)
        self._plans = _plans(weights)
        self._scratch = _scratch(self._plans, config, self.device)
        is_cuda = self.device.type == "cuda"
        self._kernels = (
            (products.embed, products.product, attention.attend)
            if is_cuda
            else (plain.embed, plain.product, plain.attend)
        )
        """The kernels, or on a CPU their twins."""
        self.can_be_captured = is_cuda
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
    ) -> "GpuDecoder":
        """Dequantise packed weights onto a GPU.

        Args:
            weights: As `read_gguf` and `read_folder` give them.
            config: The model's shape; `computes` it.
            device: A CUDA device.
            dtype: Of weights, activations and cache; sums are float32.
            name: For messages; None is the architecture's.
        """
        return cls(on_gpu(weights, device, dtype), config, name)

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
        if len(batch.rows) * batch.width > _PROMPT_ROWS:
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
            num_parts = -(-(cache.length(row) + _PROMPT_ROWS) // PAGE)
            step = max(16, min(_PROMPT_ROWS, _MOST_PART_ROWS // num_parts))
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
        shape = (len(batch.rows), batch.width, self.config.vocab_size)
        logits = torch.empty(shape, dtype=torch.float32, device=self.device)
        for place, (row, tokens) in enumerate(zip(batch.rows, batch.tokens, strict=True)):
            for first in range(0, len(tokens), _PROMPT_ROWS):
                part = tokens[first : first + _PROMPT_ROWS]
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
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits = self.run(inputs, num_parts)
        assert logits is not None
        return _Graph(graph, packed, logits)

    def run(
        self, inputs: PassInputs, num_parts: int, *, with_logits: bool = True
    ) -> Float[Tensor, "rows vocab"] | None:
        """Launch a pass; nothing is read back, and no number is looked at: it can be captured.

        Args:
            inputs: On the device.
            num_parts: Pages that the longest sequence has in use afterwards, or more.
            with_logits: Whether logits are wanted.

        Returns:
            The logits of every row, float32; None if they are not wanted.
        """
        config, weights, plans = self.config, self.weights, self._plans
        embed, product, attend = self._kernels
        epsilon = config.norm_epsilon
        batch, width = inputs.tokens.shape
        tables = self.pool.tables.index_select(0, inputs.slots)[:, :num_parts].contiguous()
        places = Places(inputs.starts, inputs.widths, tables, width)
        rows = batch * width
        like = weights.embedding
        tiles = -(-config.hidden_size // plans.output.outputs)
        stream = Stream(
            like.new_empty(rows, config.hidden_size),
            like.new_empty(rows, config.hidden_size),
            like.new_empty(rows, tiles, dtype=torch.float32),
        )
        embed(
            inputs.tokens.view(-1),
            weights.embedding,
            weights.layers[0].attention_norm,
            stream,
            plans.output.outputs,
        )
        kinds = (config.num_heads, config.num_heads + 2 * config.num_kv_heads)
        projected = like.new_empty(rows, kinds[1], config.head_size)
        attended = like.new_empty(rows, kinds[0], config.head_size)
        inner = like.new_empty(rows, config.intermediate_size)
        shape = (num_parts, rows, config.num_heads)
        parts = Parts(
            like.new_empty(*shape, config.head_size, dtype=torch.float32),
            like.new_empty(*shape, 2, dtype=torch.float32),
        )
        after = [*(layer.attention_norm for layer in weights.layers[1:]), weights.final_norm]
        for number, (layer, next_norm) in enumerate(zip(weights.layers, after, strict=True)):
            pages = self.pool.layer(number)
            product(
                stream.weighted,
                layer.inputs,
                projected.view(rows, -1),
                plans.inputs,
                squares=stream.squares,
                epsilon=epsilon,
                bias=layer.inputs_bias,
            )
            query_norm, key_norm = layer.head_norms or (None, None)
            attend(
                projected,
                attended,
                pages,
                places,
                Heads(*self._waves, query_norm, key_norm, epsilon),
                parts,
                num_parts,
                scale=config.head_size**-0.5,
                window=config.windows[number],
            )
            product(
                attended.view(rows, -1),
                layer.output,
                stream.values,
                plans.output,
                bias=layer.output_bias,
                residual=stream.values,
                norm=layer.feed_forward_norm,
                to=stream,
                scratch=self._scratch,
            )
            product(
                stream.weighted,
                layer.gate_and_up,
                inner,
                plans.gate_and_up,
                squares=stream.squares,
                epsilon=epsilon,
                bias=layer.gate_and_up_bias,
                gate=config.activation,
            )
            product(
                inner,
                layer.down,
                stream.values,
                plans.down,
                bias=layer.down_bias,
                residual=stream.values,
                norm=next_norm,
                to=stream,
                scratch=self._scratch,
            )
        if not with_logits:
            return None
        logits = like.new_empty(rows, config.vocab_size, dtype=torch.float32)
        product(
            stream.weighted,
            weights.head,
            logits,
            plans.head,
            squares=stream.squares,
            epsilon=epsilon,
        )
        return logits


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


def _waves(
    config: DecoderConfig, num_positions: int, device: torch.device
) -> tuple[Float[Tensor, "positions half"], Float[Tensor, "positions half"]]:
    """Cosine and sine of every position, float32, as the plain decoder has them."""
    frequencies = config.rotary.inverse_frequencies.to(device)
    angles = torch.arange(num_positions, device=device).unsqueeze(1) * frequencies
    return angles.cos() * config.rotary.scale, angles.sin() * config.rotary.scale


def _plans(weights: GpuWeights) -> _Plans:
    layer = weights.layers[0]
    gate = layer.gate_and_up
    down = plan_for(*layer.down.shape, is_gated=False)
    output = plan_for(*layer.output.shape, is_gated=False)
    return _Plans(
        plan_for(*layer.inputs.shape, is_gated=False),
        # Both end in the same stream, whose squares are summed tile by tile.
        output._replace(outputs=down.outputs),
        plan_for(gate.shape[0] // 2, gate.shape[1], is_gated=True),
        down,
        plan_for(*weights.head.shape, is_gated=False),
    )


def _scratch(plans: _Plans, config: DecoderConfig, device: torch.device) -> Scratch:
    most_rows = max(_PROMPT_ROWS, _MOST_GRAPHED)
    shares = max(plan.shares for plan in plans)
    tiles = max(-(-config.hidden_size // plan.outputs) for plan in (plans.output, plans.down))
    return Scratch(device, shares * most_rows * config.hidden_size, tiles * most_rows // 16)
