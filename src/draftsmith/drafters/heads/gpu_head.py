"""An EAGLE-3 head on the kernels of a GPU: layers and pages are those of a decoder there.

Of a decoder a head differs in how a pass begins (two normed rows side by side, over a feature in
the place of an embedding) and ends. `launch`, `guess` and `features` read nothing on the host, so
that a round's graph can hold them; `run` and `finish` are the same by the host's hand, as
`EagleHead`, the twin, has them.
"""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.gpu_weights import GpuHeadWeights
from draftsmith.drafters.heads.steps import Span
from draftsmith.drafters.heads.tables import check_target, tables_of
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.errors import CacheFullError
from draftsmith.kernels.gpu import norms, plain, plain_heads, products
from draftsmith.kernels.gpu.attention import PAGE, Places
from draftsmith.kernels.gpu.products import Scratch, plan_for
from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_cache import GpuCache, PagePool
from draftsmith.models.native.gpu_layers import MOST_ROWS, GpuLayers
from draftsmith.models.native.gpu_store import PageStore

__all__ = ["GpuHead", "GpuHeadRow"]

_MOST_PART_ROWS = 8192
"""Parts times rows of one pass, which bounds what their sums take."""


class GpuHeadRow:
    """What a head has read of one sequence: pages of its own store.

    Args:
        pool: The head's.
    """

    def __init__(self, pool: PagePool) -> None:
        # A cache of one row: its pages go back when nobody has it any more.
        self._cache = GpuCache(pool)
        self._number = self._cache.add()
        self.length = 0

    @property
    def slot(self) -> int:
        """The line of the store's tables that is this row's."""
        return self._cache.slot(self._number)

    def reserve(self, num_tokens: int) -> int:
        """Make room for so many tokens; the pages that they take.

        Raises:
            CacheFullError: The device has no memory for them.
        """
        return self._cache.reserve(self._number, num_tokens)

    def has_room(self, num_tokens: int) -> bool:
        """Whether there is memory for a sequence of so many tokens; it is taken."""
        try:
            self.reserve(num_tokens)
        except CacheFullError:
            return False
        return True


class GpuHead:
    """A head over the tables of a decoder on a GPU, in its dtype.

    Args:
        config: Its conventions.
        weights: Checked against them here.
        target: Whose embedding, and perhaps output matrix, it reads.

    Raises:
        DraftsmithError: It is not a head for this target; the message names what differs.
    """

    uses_torch_threads = False

    def __init__(self, config: HeadConfig, weights: HeadWeights, target: GpuDecoder) -> None:
        sizes = config.target_hidden_size, config.target_vocab_size
        check_target(tables_of(target), *sizes, config.boundaries)
        weights.check(config)
        self.config, self.device = config, target.device
        self.weights = GpuHeadWeights.of(config, weights, target.weights)
        self.context_length = target.config.context_length
        shape = _layers_config(config, self.context_length)
        self.store = PageStore(shape, self.device, target.weights.embedding.dtype)
        self.pool = PagePool(self.store, self.context_length)
        self.lock = threading.RLock()
        """Held from a pass's inputs to the copy of its outputs: scratch is shared."""
        self._layers = GpuLayers(self.weights.layers, self.weights.norm, shape, self.store)
        self._fc = _Product(self.weights.fc)
        self._head = _Product(self.weights.head)
        self._norm = norms.norm if self.device.type == "cuda" else plain_heads.norm

    @property
    def current(self) -> AbstractContextManager[object]:
        """Makes the device the one that kernels are launched on."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    # --- on the device --------------------------------------------------------------------------

    def features(
        self, states: Float[Tensor, "rows boundaries hidden"]
    ) -> Float[Tensor, "rows width"]:
        """What `fc` makes of the target's states, which are of its dtype."""
        weights, kind = self.weights, self.config.feature_norm
        joined = states.flatten(1).contiguous()
        if kind != "none":
            assert weights.feature_norm is not None
            lines = joined.view(-1, weights.feature_norm.shape[1])
            normed = torch.empty_like(lines)
            self._norm(lines, weights.feature_norm, normed, self.config.norm_epsilon)
            joined = normed.view(joined.shape)
        out = joined.new_empty(len(joined), self.config.hidden_size)
        self._fc(joined, out)
        return out

    def tables(self, slots: Int[Tensor, " batch"], num_parts: int) -> Int[Tensor, "batch parts"]:
        """The pages of some sequences, as `launch` takes them.

        Args:
            slots: Theirs.
            num_parts: Pages that the longest has in use afterwards, or more.
        """
        return self._layers.tables(slots, num_parts)

    def launch(
        self,
        tokens: Int[Tensor, "batch width"],
        places: Places,
        features: Float[Tensor, "rows size"],
    ) -> Float[Tensor, "rows size"]:
        """Launch the layers over some rows.

        Args:
            tokens: That each row reads, contiguous.
            places: Where the rows stand.
            features: Of the rows, contiguous; they are written over.

        Returns:
            What stands before the final norm.
        """
        config, weights = self.config, self.weights
        width, read, num_parts = config.hidden_size, tokens.view(-1), places.tables.shape[1]
        both = features.new_empty(len(read), 2 * width)
        embedded, hidden = both[:, :width], both[:, width:]
        epsilon = config.norm_epsilon
        self._norm(weights.embedding, weights.embedding_norm, embedded, epsilon, read)
        self._norm(features, weights.hidden_norm, hidden, epsilon)
        if config.norm_before_residual:
            features.copy_(hidden)
        room = self._layers.room(len(read), num_parts)
        # The stream goes on where the features lie: they are what it begins with.
        room = room._replace(stream=room.stream._replace(values=features))
        self._layers.launch(room, places, num_parts, first=both)
        return features

    def guess(
        self, stream: Float[Tensor, "lines width"], rows: Int[Tensor, " rows"] | None = None
    ) -> tuple[Float[Tensor, "rows target_vocab"], Float[Tensor, "rows width"]]:
        """Logits behind some rows, and the next step's features.

        Args:
            stream: What `launch` gave.
            rows: Which of it; None is all.

        Returns:
            Of the target's ids, float32; those that the head does not draft have -inf.
        """
        config, weights = self.config, self.weights
        count = len(stream) if rows is None else len(rows)
        normed = stream.new_empty(count, config.hidden_size)
        self._norm(stream, weights.final_norm, normed, config.norm_epsilon, rows)
        logits = normed.new_empty(count, len(weights.head), dtype=torch.float32)
        self._head(normed, logits)
        if weights.ids is not None:
            whole = logits.new_full((count, config.target_vocab_size), -torch.inf)
            logits = whole.index_copy_(1, weights.ids, logits)
        if config.feeds_back_normed:
            return logits, normed
        return logits, stream if rows is None else stream.index_select(0, rows)

    # --- by the host's hand ---------------------------------------------------------------------

    def open_row(self) -> GpuHeadRow:
        """An empty cache for one sequence."""
        return GpuHeadRow(self.pool)

    @torch.inference_mode()
    def feature(
        self, states: Float[Tensor, "rows boundaries hidden"]
    ) -> Float[Tensor, "rows width"]:
        """As `features`, of states of any dtype."""
        states = states.to(self.device, self.weights.embedding.dtype)
        with self.lock, self.current:
            found = [self.features(some) for some in states.split(MOST_ROWS)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def most_rows(self, num_tokens: int) -> int:
        """Rows that a sequence of so many tokens is read in at once."""
        num_parts = -(-(num_tokens + MOST_ROWS) // PAGE)
        return max(16, min(MOST_ROWS, _MOST_PART_ROWS // num_parts))

    @torch.inference_mode()
    def run(
        self, spans: Sequence[Span], feature: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """Append rows to their sequences; what stands before the final norm.

        Args:
            spans: Of each sequence once.
            feature: Of all their rows, one after another.
        """
        counts = [len(span.tokens) for span in spans]
        at_once = MOST_ROWS // max(counts)
        found: list[Tensor] = []
        with self.lock, self.current:
            for first in range(0, len(spans), at_once):
                before, count = sum(counts[:first]), sum(counts[first : first + at_once])
                own = feature[before : before + count]
                found.append(self._run(spans[first : first + at_once], own))
        return found[0] if len(found) == 1 else torch.cat(found)

    @torch.inference_mode()
    def finish(
        self, stream: Float[Tensor, "rows width"]
    ) -> tuple[Float[Tensor, "rows target_vocab"], Float[Tensor, "rows width"]]:
        """As `guess`, of all rows."""
        with self.lock, self.current:
            return self.guess(stream.contiguous())

    def _run(
        self, spans: Sequence[Span], feature: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        rows = [_held(span) for span in spans]
        counts = [len(span.tokens) for span in spans]
        width = max(counts)
        ends = [span.position + count for span, count in zip(spans, counts, strict=True)]
        num_parts = max(row.reserve(end) for row, end in zip(rows, ends, strict=True))
        table = [
            [span.position, count, row.slot, *span.tokens, *[0] * (width - count)]
            for span, count, row in zip(spans, counts, rows, strict=True)
        ]
        packed = torch.tensor(table, dtype=torch.int32).to(self.device)
        starts, widths, slots = packed[:, :3].T.contiguous()
        places = Places(starts, widths, self.tables(slots, num_parts), width)
        # A group of rows for each sequence: short ones are padded.
        real = [width * one + place for one, count in enumerate(counts) for place in range(count)]
        of_rows = torch.tensor(real, device=self.device)
        padded = feature.new_zeros(width * len(spans), feature.shape[1])
        assert len(padded) <= MOST_ROWS
        tokens = packed[:, 3:].contiguous()
        stream = self.launch(tokens, places, padded.index_copy_(0, of_rows, feature))
        for row, end in zip(rows, ends, strict=True):
            row.length = end
        return stream.index_select(0, of_rows)


class _Product:
    """A matrix that is multiplied by itself, and not within a layer."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"]) -> None:
        self._weight = weight
        self._plan = plan = plan_for(*weight.shape, is_gated=False)
        tiles = -(-len(weight) // plan.outputs) * MOST_ROWS // 16
        size = plan.shares * len(weight) * MOST_ROWS
        self._scratch = Scratch(weight.device, size, tiles) if plan.shares > 1 else None
        self._product = products.product if weight.is_cuda else plain.product

    def __call__(self, x: Float[Tensor, "rows inputs"], out: Float[Tensor, "rows outputs"]) -> None:
        self._product(x, self._weight, out, self._plan, scratch=self._scratch)


def _layers_config(config: HeadConfig, context_length: int) -> DecoderConfig:
    """The shape of the layers, as that of a decoder."""
    return DecoderConfig(
        architecture="a head",
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_size=config.head_size,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        context_length=context_length,
        norm_epsilon=config.norm_epsilon,
        rotary=config.rotary,
        windows=(None,) * config.num_layers,
        eos_token_ids=(),
        normalises_heads=config.normalises_heads,
    )


def _held(span: Span) -> GpuHeadRow:
    assert isinstance(span.row, GpuHeadRow)
    return span.row
