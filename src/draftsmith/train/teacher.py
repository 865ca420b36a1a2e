"""The target as the teacher: its states and laws of whole texts, computed when they are wanted."""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import rms_norm

from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.train.texts import Text

__all__ = ["Lesson", "Teacher", "batches"]


class Lesson(NamedTuple):
    """A batch of texts, short ones padded at the end; n is the longest's tokens but one."""

    states: Float[Tensor, "batch n boundaries hidden"]
    """Of tokens 0 to n-1."""
    embedded: Float[Tensor, "batch n width"]
    """Of tokens 1 to n."""
    final: Float[Tensor, "batch n hidden"]
    """Behind the final norm, of tokens 0 to n-1: what the target foretells tokens 1 to n from."""
    following: Int[Tensor, "batch n"]
    """Tokens 1 to n."""
    is_own: Bool[Tensor, "batch n"]
    """Whether the target wrote that token."""


class Teacher:
    """A target that hands out its states.

    Args:
        target: A native decoder.
        tables: Its tables.
        boundaries: Of the states that the head reads.
    """

    def __init__(
        self, target: LanguageModel, tables: TargetTables, boundaries: Sequence[int]
    ) -> None:
        if not target.num_boundaries:
            raise InvalidRequestError(
                f"{target.traits.name} hands out no hidden states, which a head is trained on: "
                "give a model that a native decoder runs on a CPU"
            )
        self.target, self.tables = target, tables
        self.boundaries = tuple(boundaries)

    @torch.no_grad()
    def lesson(self, texts: Sequence[Text]) -> Lesson:
        """Read some texts."""
        longest = max(len(text.tokens) for text in texts) - 1
        read = [self._read(text.tokens) for text in texts]

        def padded(parts: Sequence[Tensor]) -> Tensor:
            whole = parts[0].new_zeros(len(parts), longest, *parts[0].shape[1:])
            for line, part in zip(whole, parts, strict=True):
                line[: len(part)] = part
            return whole

        following = [torch.tensor(text.tokens[1:]) for text in texts]
        own = [torch.arange(1, len(text.tokens)) >= text.num_prompt for text in texts]
        return Lesson(
            padded([states for states, _, _ in read]),
            padded([embedded for _, embedded, _ in read]),
            padded([final for _, _, final in read]),
            padded(following),
            padded(own),
        )

    def _read(self, tokens: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        target, last = self.target, self.target.num_boundaries - 1
        cache = target.open_cache()
        row, wanted = cache.add(), (*self.boundaries, last)
        parts = [
            target.extend_with_states(cache, row, part, wanted)
            for _, part in target.prompt_chunks(tokens[:-1])
        ]
        # A copy, since tensors of inference cannot take part in gradients.
        states = torch.cat(parts).clone()
        weight, epsilon = self.tables.final_norm
        final = rms_norm(states[:, -1], weight.shape, weight, epsilon)
        return states[:, :-1], self.tables.embed(tokens[1:]).clone(), final


def batches(
    texts: Sequence[Text], batch_tokens: int, seed: int, epoch: int
) -> Iterator[list[Text]]:
    """One epoch: texts of like lengths together, the batches in an order of chance.

    Args:
        texts: All of them.
        batch_tokens: At most, padding included; a longer text is a batch of its own.
        seed: Of the order.
        epoch: Its number, which changes the order.

    Yields:
        The texts of a batch.
    """
    chance = random.Random(f"{seed} {epoch}")
    order = list(texts)
    chance.shuffle(order)
    order.sort(key=lambda text: len(text.tokens))
    found: list[list[Text]] = [[]]
    for text in order:
        if found[-1] and (len(found[-1]) + 1) * len(text.tokens) > batch_tokens:
            found.append([])
        found[-1].append(text)
    chance.shuffle(found)
    yield from found
