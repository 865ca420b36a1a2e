"""The target as the teacher: its states and laws of whole texts, computed when they are wanted."""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import rms_norm

from draftsmith.drafters.heads.tables import TargetTables
from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.train.texts import Text

__all__ = ["Lesson", "Teacher", "batches"]


class Lesson(NamedTuple):
    """A batch of texts, short ones padded at the end; n is the longest's tokens but one."""

    states: Float[Tensor, "batch n boundaries hidden"]
    """Of tokens 0 to n-1."""
    embedded: Float[Tensor, "batch n+1 width"]
    """Of all tokens, 0 to n."""
    final: Float[Tensor, "batch n hidden"]
    """Behind the final norm, of tokens 0 to n-1: what the target foretells tokens 1 to n from."""
    following: Int[Tensor, "batch n"]
    """Tokens 1 to n."""
    is_own: Bool[Tensor, "batch n"]
    """Whether the target wrote that token; always on the host, which asks where."""

    def wanted(self, step: int) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
        """Where the target's own tokens are foretold at a step of the draft.

        Row t foretells token t+2+step, whose law the target has behind token t+1+step.

        Args:
            step: From 0; -1 is of rows that foretell the very next token, as the target does.

        Returns:
            Rows of the stream, and of `final`, both with batch and rows as one; none where the
            texts are too short.
        """
        length = self.is_own.shape[1]
        text, row = self.is_own[:, 1 + step :].nonzero(as_tuple=True)
        # Without a wait: what the device still computes goes on.
        rows = (text * length + row).to(self.final.device, non_blocking=True)
        return rows, rows + 1 + step


class _Reading(NamedTuple):
    """What the target has made of one text."""

    text: Text
    """Held, so that nothing else is taken for it."""
    states: Float[Tensor, "n boundaries hidden"]
    final: Float[Tensor, "n hidden"]


class Teacher:
    """A target that hands out its states.

    Args:
        target: A native decoder.
        tables: Its tables.
        boundaries: Of the states that the head reads.
        reads_whole: Whether it reads a batch of texts at once, as is fast on a GPU; else text by
            text, as it will read when the head drafts.
        room: Bytes that what was read whole may take, so that the next epoch need not read it
            again; None is half of what is free on the GPU when the first batch is read.
    """

    def __init__(
        self,
        target: LanguageModel,
        tables: TargetTables,
        boundaries: Sequence[int],
        *,
        reads_whole: bool = False,
        room: int | None = None,
    ) -> None:
        if not target.num_boundaries:
            raise InvalidRequestError(
                f"{target.traits.name} hands out no hidden states, which a draft is trained on: "
                "give a model that a native decoder runs on a CPU"
            )
        assert isinstance(target, TorchDecoder) or not reads_whole
        self.target, self.tables = target, tables
        self.boundaries = tuple(boundaries)
        self.reads_whole = reads_whole
        self._room = room
        self._kept: dict[int, _Reading] = {}
        """By the text's own place in memory."""

    @property
    def device(self) -> torch.device:
        """Where states and laws are."""
        return self.target.device

    @torch.no_grad()
    def lesson(self, texts: Sequence[Text]) -> Lesson:
        """Read some texts."""
        own = _padded([torch.arange(1, len(text.tokens)) >= text.num_prompt for text in texts])
        if self.reads_whole:
            return self._whole(texts, own)
        read = [self._read(text.tokens) for text in texts]
        following = [torch.tensor(text.tokens[1:]) for text in texts]
        return Lesson(
            _padded([states for states, _, _ in read]),
            _padded([embedded for _, embedded, _ in read]),
            _padded([final for _, _, final in read]),
            _padded(following).to(self.device),
            own,
        )

    def _whole(self, texts: Sequence[Text], own: Bool[Tensor, "batch n"]) -> Lesson:
        target = self.target
        assert isinstance(target, TorchDecoder)
        tokens = _padded([torch.tensor(text.tokens) for text in texts])
        # Zeros behind the end of a text, as where texts are read one by one.
        is_there = _padded([torch.ones(len(text.tokens), dtype=torch.bool) for text in texts])
        tokens, is_there = (
            one.to(self.device, non_blocking=True) for one in (tokens, is_there.unsqueeze(-1))
        )
        embedded = target.embedded(tokens.flatten()).view(*tokens.shape, -1)
        known = [one for text in texts if (one := self._kept.get(id(text))) is not None]
        if len(known) == len(texts):
            states, final = (
                _padded([one.states for one in known]),
                _padded([one.final for one in known]),
            )
        else:
            read = target.states_of(tokens[:, :-1], (*self.boundaries, target.num_boundaries - 1))
            states = read[:, :, :-1] * is_there[:, 1:].unsqueeze(-1)
            final = self._final(read[:, :, -1]) * is_there[:, 1:]
            self._keep(texts, states, final)
        return Lesson(states, embedded * is_there, final, tokens[:, 1:], own)

    def _keep(
        self,
        texts: Sequence[Text],
        states: Float[Tensor, "batch n boundaries hidden"],
        final: Float[Tensor, "batch n hidden"],
    ) -> None:
        """What was read of some texts, as long as there is room."""
        if self._room is None:
            is_cuda = self.device.type == "cuda"
            self._room = torch.cuda.mem_get_info(self.device)[0] // 2 if is_cuda else 0
        for text, its_states, its_final in zip(texts, states, final, strict=True):
            length = len(text.tokens) - 1
            parts = its_states[:length], its_final[:length]
            size = sum(part.numel() * part.element_size() for part in parts)
            if id(text) in self._kept or size > self._room:
                continue
            self._room -= size
            self._kept[id(text)] = _Reading(text, *(part.clone() for part in parts))

    def _final(self, stream: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        weight, epsilon = self.tables.final_norm
        return rms_norm(stream, weight.shape, weight, epsilon)

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
        return states[:, :-1], self.tables.embed(tokens).clone(), self._final(states[:, -1])


def _padded(parts: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "..."]:
    """Parts as lines, zeros behind those that are shorter than the longest."""
    longest = max(len(part) for part in parts)
    whole = parts[0].new_zeros(len(parts), longest, *parts[0].shape[1:])
    for line, part in zip(whole, parts, strict=True):
        line[: len(part)] = part
    return whole


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
