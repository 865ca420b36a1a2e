"""A small draft in training: at every token it foretells the next one, as the target does.

A draft that is a model says the same of a token wherever in a draft it stands, so that each
position is practised once. The loss is cross-entropy and the share that is refused, 1 - the sum of
min(p, q), in equal parts: DistillSpec (Zhou et al., arXiv:2310.08461) compares such distances on
the target's own text.
"""

import random
from collections.abc import Iterator, Mapping

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear, rms_norm

from draftsmith.models.native.config import DecoderConfig
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.native.dense import DenseWeights
from draftsmith.models.native.named_layers import layer_of
from draftsmith.models.native.names import TRANSFORMERS
from draftsmith.train.pupil import Cut, Drafted, Emphasis, Pupil
from draftsmith.train.teacher import Lesson

__all__ = ["DistilledPupil"]

_MOST_LOGITS = 1 << 24
"""Numbers that a part of a step may have."""


class DistilledPupil(Pupil):
    """Foretells every token of the target's.

    Args:
        config: The draft's shape.
        parameters: Of its layers and its final norm, by the names of `transformers`.
        head: The output matrix, which does not learn.
        num_places: Of a draft that it is tried in.
    """

    is_alike_everywhere = True

    def __init__(
        self,
        config: DecoderConfig,
        parameters: Mapping[str, Tensor],
        head: Float[Tensor, "vocab hidden"],
        num_places: int,
    ) -> None:
        numbers = range(config.num_layers)
        layers = tuple(layer_of(parameters, TRANSFORMERS, config, number) for number in numbers)
        norm = parameters[TRANSFORMERS.final_norm]
        # Its embedding is never read, for lessons are embedded: the head stands there.
        weights = DenseWeights(head, layers, norm, head)
        self._decoder = TorchDecoder(config, weights, "the draft")
        self._head, self._norm, self._num_places = head, norm, num_places

    @property
    def num_places(self) -> int:
        """Of a draft that it is tried in."""
        return self._num_places

    def emphasis(self, place: int) -> Emphasis:
        """All there is."""
        return Emphasis(1.0)

    def drafts(self, lesson: Lesson, chance: random.Random | None) -> Iterator[Drafted]:
        """Every token at once, its logits part by part."""
        config = self._decoder.config
        streams = self._decoder.streams_of(lesson.embedded[:, :-1], (config.num_layers,))
        stream = rms_norm(
            streams[:, :, 0], self._norm.shape, self._norm, config.norm_epsilon
        ).flatten(0, 1)
        rows, of_law = lesson.wanted(-1)
        size = max(1, _MOST_LOGITS // len(self._head))
        for part, law in zip(rows.split(size), of_law.split(size), strict=True):
            yield self._part(stream.index_select(0, part), law, len(part) / len(rows))

    def _part(
        self, stream: Float[Tensor, "rows hidden"], of_law: Int[Tensor, " rows"], share: float
    ) -> Drafted:
        if not stream.requires_grad:
            return Drafted(0, linear(stream, self._head), of_law, share=share)
        leaf = stream.detach().requires_grad_()
        logits = linear(leaf, self._head)
        return Drafted(0, logits, of_law, share=share, cut=Cut(stream, leaf))
