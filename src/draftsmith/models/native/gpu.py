"""The fast decoder on a GPU: a pass over a few rows is one replay of a CUDA graph.

Every sum has one order, whatever the number of rows or sequences: a token's logits have the same
bits in every pass, whether it stood in a prompt, in a check or alone. `TorchDecoder` is the plain
twin.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

from draftsmith.kernels.gpu.attention import PAGE
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.native.config import DecoderConfig, Scales
from draftsmith.models.native.gpu_cache import GpuCache, PagePool
from draftsmith.models.native.gpu_pass import MOST_ROWS
from draftsmith.models.native.gpu_runner import Found, GpuRunner, PassShape
from draftsmith.models.native.gpu_weights import GpuWeights, on_gpu
from draftsmith.models.native.weights import DecoderWeights

__all__ = ["GpuDecoder"]

_MOST_GRAPHED = 256
"""Rows of a pass that is captured; a larger one is long enough to be launched kernel by kernel."""
_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_WIDTHS_WITH_STREAMS = (1, 8, 16)
"""Of passes that hand out streams: fewer, because they are rare beside rounds that are graphs."""
_MOST_PART_ROWS = 8192
"""Parts times rows of one pass, which bounds what their sums take."""


class GpuDecoder(LanguageModel):
    """A decoder of the Llama, Mistral, Qwen2, Qwen3 or SmolLM family, on the Triton kernels.

    Args:
        runner: This rank's part of it; all of it, where there are no other ranks.
        config: The whole model's shape.
        name: For messages; None is the architecture's.
        num_head_ids: For a draft: the head has logits of the first ids alone, which are the most
            frequent in a byte-pair vocabulary; None is all.
    """

    uses_torch_threads = False
    has_reducible_head = True

    def __init__(
        self,
        runner: GpuRunner,
        config: DecoderConfig,
        name: str | None = None,
        num_head_ids: int | None = None,
    ) -> None:
        assert self.computes(config)
        self.runner, self.config = runner, config
        self.num_head_ids = num_head_ids
        self.device = runner.device
        self.traits = ModelTraits(
            name=name or config.architecture,
            vocab_size=config.vocab_size,
            eos_token_ids=config.eos_token_ids,
            context_length=config.context_length,
        )
        if runner.told is None:
            self.num_boundaries, self.hidden_size = config.num_layers + 1, config.hidden_size
        self.pool = PagePool(runner.store, config.context_length)
        self.can_be_captured = self.device.type == "cuda"
        self.lock = threading.RLock()
        """Held from a pass's inputs to the copy of its outputs: graphs and scratch are shared."""

    @classmethod
    def on_weights(
        cls,
        weights: GpuWeights,
        config: DecoderConfig,
        name: str | None = None,
        num_head_ids: int | None = None,
    ) -> "GpuDecoder":
        """A decoder over weights that are on a device already, whole.

        Args:
            weights: Of one dtype.
            config: The model's shape.
            name: For messages; None is the architecture's.
            num_head_ids: For a draft: logits of the first ids alone; None is all.
        """
        held = weights if num_head_ids is None else weights.with_head_of(num_head_ids)
        return cls(GpuRunner(held, config), config, name, num_head_ids)

    @property
    def context_length(self) -> int:
        """Most tokens of a sequence."""
        return self.config.context_length

    @property
    def weights(self) -> GpuWeights:
        """This rank's."""
        return self.runner.weights

    def embedded(self, tokens: Sequence[int]) -> Float[Tensor, "tokens hidden"]:
        """Rows of the embedding, in float32."""
        return self.weights.embedding[torch.tensor(tokens, device=self.device)].float()

    def head_product(self, inputs: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows vocab"]:
        """The output matrix alone, without the final norm, in float32."""
        head = self.weights.head
        return linear(inputs.to(head.dtype), head).float()

    def head_rows(self, ids: Sequence[int]) -> Float[Tensor, "ids hidden"]:
        """Rows of the output matrix, in float32."""
        return self.weights.head[torch.tensor(ids, device=self.device)].float()

    @property
    def final_norm(self) -> Float[Tensor, " hidden"]:
        """The weight of the norm before the output matrix, in float32."""
        return self.weights.final_norm.float()

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
        return cls.on_weights(on_gpu(weights, device, dtype), config, name, num_head_ids)

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
        logits = self._forward(cache, batch).logits
        assert logits is not None
        return logits

    @torch.inference_mode()
    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Sequence[int]
    ) -> tuple[Float[Tensor, "batch rows vocab"], Float[Tensor, "batch rows boundaries hidden"]]:
        """As `forward`, and the residual stream of every new token."""
        logits, states = self._forward(cache, batch, tuple(boundaries))
        assert logits is not None
        assert states is not None
        return logits, states.float()

    @torch.inference_mode()
    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self._extend(cache, row, tokens)

    @torch.inference_mode()
    def extend_with_states(
        self, cache: Cache, row: int, tokens: Sequence[int], boundaries: Sequence[int]
    ) -> Float[Tensor, "tokens boundaries hidden"]:
        """As `extend`, and the residual stream of every token."""
        parts = self._extend(cache, row, tokens, tuple(boundaries))
        nothing = torch.empty(0, len(boundaries), self.hidden_size, device=self.device)
        return torch.cat(parts).float() if parts else nothing

    def _forward(self, cache: Cache, batch: Rows, boundaries: tuple[int, ...] = ()) -> Found:
        """A pass with logits; shapes begin with `[batch, width]`."""
        assert isinstance(cache, GpuCache)
        assert batch.parents is None
        if len(batch.rows) * batch.width > MOST_ROWS:
            return self._in_parts(cache, batch, boundaries)
        found = self._pass(cache, batch, boundaries, with_logits=True)
        for row, tokens in zip(batch.rows, batch.tokens, strict=True):
            cache.append(row, len(tokens))
        return found

    def _extend(
        self, cache: Cache, row: int, tokens: Sequence[int], boundaries: tuple[int, ...] = ()
    ) -> list[Tensor]:
        """Passes without logits; the streams of each part, where any are wanted."""
        assert isinstance(cache, GpuCache)
        parts: list[Tensor] = []
        done = 0
        while done < len(tokens):
            num_parts = -(-(cache.length(row) + MOST_ROWS) // PAGE)
            step = max(16, min(MOST_ROWS, _MOST_PART_ROWS // num_parts))
            part = tokens[done : done + step]
            states = self._pass(cache, Rows([row], [part]), boundaries, with_logits=False).states
            if states is not None:
                parts.append(states[0])
            cache.append(row, len(part))
            done += len(part)
        return parts

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
            graph = self.runner.graph(self._bucket(batch, width, -(-num_tokens // PAGE)))
        return graph.graph.replay, graph.packed

    def _in_parts(self, cache: GpuCache, batch: Rows, boundaries: tuple[int, ...]) -> Found:
        """A pass of more rows than there is scratch for, one sequence after the other."""
        shape, new = (len(batch.rows), batch.width), self.weights.embedding.new_empty
        logits = new(*shape, self.runner.num_ids, dtype=torch.float32)
        states = new(*shape, len(boundaries), self.hidden_size) if boundaries else None
        for place, (row, tokens) in enumerate(zip(batch.rows, batch.tokens, strict=True)):
            for first in range(0, len(tokens), MOST_ROWS):
                part = tokens[first : first + MOST_ROWS]
                found = self._forward(cache, Rows([row], [part]), boundaries)
                for whole, own in zip((logits, states), found, strict=True):
                    if whole is not None and own is not None:
                        whole[place, first : first + len(part)] = own[0]
        return Found(logits, states)

    @property
    def current(self) -> AbstractContextManager[object]:
        """Makes the model's device the one that kernels are launched on."""
        return self.runner.current

    # --- a pass -------------------------------------------------------------------------------

    def _pass(
        self, cache: GpuCache, batch: Rows, boundaries: tuple[int, ...], *, with_logits: bool
    ) -> Found:
        """Logits and streams, whose shapes begin with `[batch, width]`."""
        with self.lock, self.current:
            return self._run_pass(cache, batch, boundaries, with_logits=with_logits)

    def _run_pass(
        self, cache: GpuCache, batch: Rows, boundaries: tuple[int, ...], *, with_logits: bool
    ) -> Found:
        lengths = [cache.length(row) for row in batch.rows]
        ends = [n + len(new) for n, new in zip(lengths, batch.tokens, strict=True)]
        num_parts = max(cache.reserve(row, end) for row, end in zip(batch.rows, ends, strict=True))
        num, width = len(batch.rows), batch.width
        slots = [cache.slot(row) for row in batch.rows]
        shape = self._bucket(num, width, num_parts, boundaries)
        is_small = shape.width <= _WIDTHS[-1] and shape.batch * shape.width <= _MOST_GRAPHED
        if not (self.device.type == "cuda" and is_small):
            shape = shape._replace(batch=num, width=width)
            numbers = _packed(lengths, slots, batch.tokens, shape)
            found = _by_sequence(self.runner.launch_once(numbers, shape, with_logits), shape)
        else:
            replayed = self.runner.replay(_packed(lengths, slots, batch.tokens, shape), shape)
            # Copies: the next replay writes over what this one found.
            whole = _by_sequence(replayed, shape)
            found = Found(*(None if one is None else one[:num, :width].clone() for one in whole))
        if self.runner.told is not None and self.runner.is_cuda:
            # The others' part of it must be known to be there before a token is drawn.
            torch.cuda.current_stream(self.device).synchronize()
        self.runner.check_ranks()
        return found

    def _bucket(
        self, batch: int, width: int, num_parts: int, boundaries: tuple[int, ...] = ()
    ) -> PassShape:
        """The captured pass that such a one runs as."""
        widths = _WIDTHS_WITH_STREAMS if boundaries else _WIDTHS
        wide = next((one for one in widths if one >= width), width)
        parts = self.runner.num_parts(num_parts)
        return PassShape(1 << (batch - 1).bit_length(), wide, parts, boundaries)


def _by_sequence(found: Found, shape: PassShape) -> Found:
    """The same with rows as `[batch, width]`."""
    sizes = shape.batch, shape.width
    return Found(*(None if one is None else one.unflatten(0, sizes) for one in found))


def _packed(
    starts: Sequence[int], slots: Sequence[int], tokens: Sequence[Sequence[int]], shape: PassShape
) -> list[int]:
    """Starts, widths, slots and tokens in one list, so that one copy takes them all."""
    batch, width = shape.batch, shape.width
    missing = [0] * (batch - len(starts))
    rows = [token for new in tokens for token in (*new, *[0] * (width - len(new)))]
    widths = [len(new) for new in tokens]
    numbers = [*starts, *missing, *widths, *missing, *slots, *missing, *rows]
    return numbers + [0] * (batch * (3 + width) - len(numbers))
