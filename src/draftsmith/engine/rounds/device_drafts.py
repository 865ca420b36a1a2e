"""Drafts that are made on the device, as part of a round's graph."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.engine.rounds.buffers import Buffers, Check, Kind
from draftsmith.kernels.gpu import laws, lookup, noise, plain, verdicts
from draftsmith.kernels.gpu.columns import Columns
from draftsmith.kernels.gpu.verdicts import Bests
from draftsmith.models.native.gpu_pass import PassInputs
from draftsmith.models.native.gpu_runner import GpuRunner
from draftsmith.models.native.gpu_store import PageStore

__all__ = ["DeviceDraft", "LookupDraft", "ModelDraft", "NoDraft", "chosen", "prepared"]


class DeviceDraft(ABC):
    """What launches the first part of a round."""

    store: PageStore | None = None
    """Of the cache that must follow the sequences; None is none."""
    has_history: bool = False
    """Whether the text is wanted on the device."""
    boundaries: tuple[int, ...] = ()
    """Where the target's residual streams are wanted, in rounds that draft."""
    like: Tensor | None = None
    """A row of what is kept of them until the next round."""

    @abstractmethod
    def launch(self, kind: Kind, buffers: Buffers) -> Check:
        """Launch what drafts; nothing in it waits for the host.

        Args:
            kind: Of the graph.
            buffers: Of its batch size.

        Returns:
            What the target's pass is to check.
        """

    def num_fresh(self, batch: int, gamma: int, before: int) -> int:
        """Tokens of the round before that the graph of a round reads first, at most.

        Args:
            batch: Sequences.
            gamma: Drafted tokens of the round.
            before: Of the one before, at most; 0 where that one is the host's.
        """
        del batch, gamma, before
        return 0

    def leave(
        self,
        buffers: Buffers,
        states: Float[Tensor, "rows boundaries hidden"],
        found: Int[Tensor, "batch twice_rows"],
    ) -> None:
        """Keep what a settled round has shown, for the next.

        Args:
            buffers: Of its batch size.
            states: Of the tokens that were checked, at `boundaries`; only called where there are.
            found: The verdicts.
        """
        raise AssertionError("only what has boundaries is told of states")


class NoDraft(DeviceDraft):
    """Plain decoding.

    Args:
        vocab_size: The target's.
    """

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def launch(self, kind: Kind, buffers: Buffers) -> Check:
        """The newest token alone."""
        return prepared(kind, buffers, self._vocab_size)[0]


class ModelDraft(DeviceDraft):
    """A smaller model: gamma passes of its own.

    Args:
        model: On the target's device.
        vocab_size: The target's.
    """

    def __init__(self, model: GpuRunner, vocab_size: int) -> None:
        self.store: PageStore | None = model.store
        self._model, self._vocab_size = model, vocab_size

    def launch(self, kind: Kind, buffers: Buffers) -> Check:
        """Each pass is fed the token that the one before decided for."""
        model, batch = self._model, kind.batch
        check, (starts, widths, fed) = prepared(kind, buffers, model.config.vocab_size)
        kernels = verdicts if buffers.slots.is_cuda else plain
        parts = min(kind.num_parts, model.store.most_pages)
        following = buffers.slots.new_zeros(batch, 1)
        for step in range(kind.gamma):
            logits = model.run(
                PassInputs(starts[step], widths[step], buffers.draft_slots, fed), parts
            ).logits
            assert logits is not None
            last = logits.view(batch, -1, logits.shape[-1])[:, -1].contiguous()
            own = chosen(last, buffers, kind, buffers.draft_columns, self._vocab_size, first=step)
            kernels.take_draft(own, check.tokens, following[:, 0], step + 1)
            fed = following
        return check


class LookupDraft(DeviceDraft):
    """Prompt lookup: a copy of what followed the last time that the text ran like this.

    Args:
        vocab_size: The target's.
        ngrams: Shortest match that is followed, and the longest that is told from longer ones.
    """

    has_history = True

    def __init__(self, vocab_size: int, ngrams: tuple[int, int]) -> None:
        self._vocab_size, self._ngrams = vocab_size, ngrams

    def launch(self, kind: Kind, buffers: Buffers) -> Check:
        """As many tokens as there are, and gamma at most."""
        check = prepared(kind, buffers, self._vocab_size)[0]
        if not kind.gamma:
            return check
        assert buffers.history is not None
        nums = buffers.slots.new_zeros(kind.batch)
        look_up = lookup.look_up if buffers.slots.is_cuda else plain.look_up
        look_up(buffers.history, buffers.state, check.tokens, check.widths, nums, self._ngrams)
        return check._replace(nums=nums)


def prepared(
    kind: Kind, buffers: Buffers, draft_vocab_size: int
) -> tuple[
    Check, tuple[Int[Tensor, "gamma batch"], Int[Tensor, "gamma batch"], Int[Tensor, "batch two"]]
]:
    """The newest token as what is to be checked, and the inputs of a draft model's passes."""
    batch, gamma = kind.batch, kind.gamma
    ints = buffers.slots.new_zeros
    starts, widths, tokens = ints(batch), ints(batch), ints(batch, gamma + 1)
    draft = ints(max(1, gamma), batch), ints(max(1, gamma), batch), ints(batch, 2)
    kernels = verdicts if buffers.slots.is_cuda else plain
    kernels.prepare(buffers.state, (starts, widths, tokens), draft, draft_vocab_size)
    return Check(starts, widths, tokens, None), draft


def chosen(
    logits: Float[Tensor, "rows columns"],
    buffers: Buffers,
    kind: Kind,
    columns: Columns,
    vocab_size: int,
    first: int = 0,
) -> Bests:
    """The token that each row decides for.

    Args:
        logits: As many rows of each sequence.
        buffers: Whose noise it is, and where the sequences stand.
        kind: Of the graph: whether any law is sampled from.
        columns: The laws of the sequences.
        vocab_size: Ids that count.
        first: Position of the first row, from the first that the round decides.
    """
    is_cuda = logits.is_cuda
    if not kind.is_sampled:
        return (verdicts if is_cuda else plain).best_parts(logits, vocab_size)
    own = laws.laws, noise.race_parts
    make, race = own if is_cuda else (plain.laws, plain.race_parts)
    probs = make(logits, columns, vocab_size).view(kind.batch, -1, vocab_size)
    return race(probs, buffers.keys, buffers.state.lengths, first)
