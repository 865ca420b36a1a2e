"""The fast decoder on a CPU: a whole pass is one call of the C++ kernels.

Every output is summed in one order, whatever the number of rows, sequences or threads: a token's
logits have the same bits in every pass. `TorchDecoder` is the plain twin.
"""

import ctypes
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.kernels.cpu.library import Library, library, num_threads
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows
from draftsmith.models.native.config import DecoderConfig, Scales
from draftsmith.models.native.cpu_cache import TILE, CpuCache, CpuRow
from draftsmith.models.native.cpu_structs import (
    PASS_BYTES,
    DecoderStruct,
    PassStruct,
    SequenceStruct,
    address,
    decoder_struct,
    projections,
)
from draftsmith.models.native.weights import DecoderWeights
from draftsmith.models.trees import stem_of

__all__ = ["CpuCache", "CpuDecoder", "PassTimes"]

_MOST_ROWS = 512
"""Of one call: more would push the activations out of the processor's caches."""
_INT, _POINTER = ctypes.c_int32, ctypes.c_void_p


class PassTimes(NamedTuple):
    """Where the time of the passes went, in seconds."""

    products: float
    attention: float
    rest: float


class CpuDecoder(LanguageModel):
    """A decoder of the Llama, Mistral, Qwen2, Qwen3 or SmolLM family, on the C++ kernels.

    Args:
        weights: As `read_gguf` and `read_folder` give them.
        config: The model's shape.
        name: For messages; None is the architecture's.
        exact_activations: Keep activations and cache in float32. Otherwise products with
            quantised weights round activations to 8 bits in groups of 16, each row by itself,
            and the cache of a quantised model is float16.
        num_head_ids: For a draft: compute logits only for so many of the first ids, which are
            the most frequent in a byte-pair vocabulary, and for those of the sequence; all
            others are -inf. None computes all.
    """

    uses_torch_threads = False

    def __init__(
        self,
        weights: DecoderWeights,
        config: DecoderConfig,
        name: str | None = None,
        *,
        exact_activations: bool = False,
        num_head_ids: int | None = None,
        threads: int | None = None,
    ) -> None:
        loaded = library()
        assert loaded is not None, "without the kernels, use TorchDecoder"
        self._library: Library = loaded
        self.config = config
        self.weights = weights
        self.device = torch.device("cpu")
        self.traits = ModelTraits(
            name=name or config.architecture,
            vocab_size=config.vocab_size,
            eos_token_ids=config.eos_token_ids,
            context_length=config.context_length,
        )
        is_quantised = weights.head.format not in ("F32", "F16", "BF16")
        is_half = is_quantised and not exact_activations
        self._cache_dtype = torch.float16 if is_half else torch.float32
        self._struct, self._kept = decoder_struct(weights, config, is_half, exact_activations)
        self.has_reducible_head = True
        self.num_head_ids = num_head_ids
        self.hidden_size = config.hidden_size
        # A library that was built earlier knows of chains alone, and would run a tree as one.
        is_current = hasattr(loaded, "ds_pass_bytes") and loaded.ds_pass_bytes() >= PASS_BYTES
        self.takes_trees = is_current
        self.num_boundaries = config.num_layers + 1 if is_current else 0
        self.num_threads = num_threads() if threads is None else threads
        self._nanoseconds = (ctypes.c_int64 * 3)()

    @staticmethod
    def computes(config: DecoderConfig) -> bool:
        """Whether the kernels know all that such a model computes."""
        is_llama = (config.scales, config.activation) == (Scales(), "silu")
        is_whole = 2 * len(config.rotary.inverse_frequencies) == config.head_size
        return is_llama and is_whole and not config.normalises_outputs

    @property
    def weight_bytes_per_pass(self) -> int:
        """Bytes of weights that a pass of one token reads."""
        matrices = [
            projection.matrix for layer in self.weights.layers for projection in projections(layer)
        ]
        head = self.weights.head
        share = min(1.0, (self.num_head_ids or head.num_outputs) / head.num_outputs)
        return sum(matrix.num_bytes for matrix in matrices) + int(head.num_bytes * share)

    def take_times(self) -> PassTimes:
        """Where the time of all passes since the last call went."""
        products, attention, rest = (value / 1e9 for value in self._nanoseconds)
        self._nanoseconds = (ctypes.c_int64 * 3)()
        return PassTimes(products, attention, rest)

    def open_cache(self) -> CpuCache:
        """An empty cache of this model."""
        return CpuCache(self.config, self._cache_dtype)

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        return self._forward(cache, batch, None)

    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Sequence[int]
    ) -> tuple[Float[Tensor, "batch rows vocab"], Float[Tensor, "batch rows boundaries hidden"]]:
        """As `forward`, and the residual stream of every new token."""
        states = torch.empty(len(batch.rows), batch.width, len(boundaries), self.hidden_size)
        return self._forward(cache, batch, _Streams(boundaries, list(states))), states

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self._extend(cache, row, tokens, None)

    def extend_with_states(
        self, cache: Cache, row: int, tokens: Sequence[int], boundaries: Sequence[int]
    ) -> Float[Tensor, "tokens boundaries hidden"]:
        """As `extend`, and the residual stream of every token."""
        states = torch.empty(len(tokens), len(boundaries), self.hidden_size)
        self._extend(cache, row, tokens, _Streams(boundaries, [states]))
        return states

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    def _forward(
        self, cache: Cache, batch: Rows, streams: "_Streams | None"
    ) -> Float[Tensor, "batch rows vocab"]:
        assert isinstance(cache, CpuCache)
        logits = torch.empty(len(batch.rows), batch.width, self.config.vocab_size)
        for first, last in _groups(batch):
            part = batch if last - first == len(batch.rows) else _part(batch, first, last)
            lines = [logits[first + i, : len(new)] for i, new in enumerate(part.tokens)]
            own = streams and _Streams(streams.boundaries, streams.lines[first:last])
            self._pass(cache, part, lines, own)
            if self._has_reduced_head:
                held = [cache.row(row) for row in part.rows]
                self._hide_foreign(held, logits[first:last])
                if part.parents is not None:
                    self._hide_branches(held, part.parents, lines)
        return logits

    def _extend(
        self, cache: Cache, row: int, tokens: Sequence[int], streams: "_Streams | None"
    ) -> None:
        assert isinstance(cache, CpuCache)
        for start in range(0, len(tokens), _MOST_ROWS):
            part = Rows([row], [tokens[start : start + _MOST_ROWS]])
            own = streams and _Streams(streams.boundaries, [streams.lines[0][start:]])
            self._pass(cache, part, [], own)

    def _pass(
        self,
        cache: CpuCache,
        batch: Rows,
        logits: Sequence[Float[Tensor, "_ vocab"]],
        streams: "_Streams | None",
    ) -> None:
        """Run some rows; `logits` has a place for each of their tokens, or is empty."""
        tokens, parents = batch.tokens, batch.parents
        flat = [token for new in tokens for token in new]
        self.weights.embedding.check_ids(flat)
        model, embedded, _held = self._embedding(flat)
        rows, starts = cache.begin(batch.rows, tokens)
        sequences = (SequenceStruct * len(rows))(
            *(
                (len(new), start, row.capacity, row.keys.data_ptr(), row.values.data_ptr())
                for row, start, new in zip(rows, starts, tokens, strict=True)
            )
        )
        places = [place for line in logits for place in _places(line, line.shape[0])]
        tiles, times = self._head_tiles(rows, starts, tokens), self._nanoseconds
        ids = (_INT * len(flat))(*embedded)
        wanted = (_INT * len(places))(*range(len(places)))
        pointers = (_POINTER * len(places))(*places)
        chosen = None if tiles is None else (_INT * len(tiles))(*tiles)
        follows = None if parents is None else (_INT * len(flat))(*chain.from_iterable(parents))
        struct = PassStruct(
            address(sequences),
            len(rows),
            len(places),
            address(ids),
            address(wanted),
            address(pointers),
            address(chosen),
            0 if tiles is None else len(tiles),
            num_threads(self.num_threads),
            address(times),
            address(follows),
        )
        _held_states = streams and streams.hand_to(struct, tokens)
        self._library.ds_decoder_forward(address(model), address(struct))
        cache.end(batch.rows, tokens)

    def _embedding(self, tokens: Sequence[int]) -> tuple[DecoderStruct, Sequence[int], object]:
        """The model for C, the rows of its embedding for these tokens, and what holds them."""
        if not self.weights.embedding.is_in_file:
            return self._struct, tokens, None
        found = self.weights.embedding.find(tokens)
        model = DecoderStruct.from_buffer_copy(self._struct)
        model.embedding = found.struct
        return model, found.ids, found.held

    def _head_tiles(
        self, rows: Sequence[CpuRow], starts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Sequence[int] | None:
        """Which tiles of a reduced head this pass computes."""
        if not self._has_reduced_head:
            return None
        for row, start, new in zip(rows, starts, tokens, strict=True):
            row.note(new, start)
        return [*range(self._num_frequent), *sorted(self._rare(rows))]

    @property
    def _has_reduced_head(self) -> bool:
        return self.num_head_ids is not None and self.num_head_ids < self.config.vocab_size

    @property
    def _num_frequent(self) -> int:
        """Tiles that every pass computes."""
        return -(-(self.num_head_ids or 0) // TILE)

    def _rare(self, rows: Sequence[CpuRow]) -> set[int]:
        """Tiles that are computed for the texts of some rows."""
        frequent = self._num_frequent
        return {tile for row in rows for tile in row.tiles if tile >= frequent}

    def _hide_foreign(
        self, rows: Sequence[CpuRow], logits: Float[Tensor, "rows width vocab"]
    ) -> None:
        """Take what was computed for others out of each row: a law is its own text's alone."""
        if len(rows) == 1:
            return
        rare = self._rare(rows)
        foreign = [
            (i, tile) for i, row in enumerate(rows) for tile in rare if tile not in row.tiles
        ]
        if not foreign:
            return
        places, tiles = torch.tensor(foreign).unbind(1)
        whole = self.config.vocab_size // TILE
        tiled = logits[..., : whole * TILE].unflatten(-1, (whole, TILE))
        is_whole = tiles < whole
        tiled[places[is_whole], :, tiles[is_whole]] = -torch.inf
        logits[places[~is_whole], :, whole * TILE :] = -torch.inf

    def _hide_branches(
        self,
        rows: Sequence[CpuRow],
        parents: Sequence[Sequence[int]],
        lines: Sequence[Float[Tensor, "_ vocab"]],
    ) -> None:
        """Take what was computed for the other branches out of each token of a tree."""
        for row, tree, line in zip(rows, parents, lines, strict=True):
            if stem_of(tree) == len(tree):
                continue
            for index, tile in row.tiles_of_others(tree):
                if tile >= self._num_frequent:
                    line[index, TILE * tile : TILE * (tile + 1)] = -torch.inf


class _Streams(NamedTuple):
    """Where a pass puts residual streams."""

    boundaries: Sequence[int]
    lines: Sequence[Float[Tensor, "_ boundaries hidden"]]
    """Of each row, its first tokens first."""

    def hand_to(self, struct: PassStruct, tokens: Sequence[Sequence[int]]) -> object:
        """Tell a pass; what must live as long as it."""
        pairs = zip(self.lines, tokens, strict=True)
        places = [place for line, new in pairs for place in _places(line, len(new))]
        pointers = (_POINTER * len(places))(*places)
        boundaries = (_INT * len(self.boundaries))(*self.boundaries)
        struct.boundaries, struct.num_boundaries = address(boundaries), len(boundaries)
        struct.states = address(pointers)
        return boundaries, pointers


def _places(line: Tensor, count: int) -> range:
    """Addresses of the first parts of a contiguous float32 tensor."""
    step = 4 * line.stride(0)
    return range(line.data_ptr(), line.data_ptr() + step * count, step)


def _part(batch: Rows, first: int, last: int) -> Rows:
    parents = None if batch.parents is None else batch.parents[first:last]
    return Rows(batch.rows[first:last], batch.tokens[first:last], parents)


def _groups(batch: Rows) -> Iterator[tuple[int, int]]:
    """Neighbouring sequences that together are one call: at most `_MOST_ROWS` tokens, or one."""
    first, size = 0, 0
    for index, tokens in enumerate(batch.tokens):
        if index > first and size + len(tokens) > _MOST_ROWS:
            yield first, index
            first, size = index, 0
        size += len(tokens)
    yield first, len(batch.tokens)
