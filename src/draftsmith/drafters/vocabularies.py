"""Two vocabularies: which ids mean the same, and how one spells what the other says."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.errors import VocabularyMismatchError
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["Translation", "translation_between"]

_LEAST_SHARED = 256
"""Ids that both must have in common: with fewer hardly anything could be drafted."""


@dataclass(frozen=True)
class Translation:
    """From a target's ids to a draft's, and back for those that both have.

    Example:
        >>> translation = Translation((b"a", b"b", b"ab"), (b"b", b"a"), {}, {})
        >>> translation.shared, [translation.to_draft(token) for token in range(3)]
        ({0: 1, 1: 0}, [(1,), (0,), (1, 0)])
    """

    target: Sequence[bytes]
    """What each id adds to a text; nothing for a special one."""
    draft: Sequence[bytes]
    target_specials: dict[str, int]
    """By name."""
    draft_specials: dict[str, int]

    @cached_property
    def shared(self) -> dict[int, int]:
        """The draft's id for every id of the target that means the same; of equals the first."""
        found = {
            token: own
            for token, piece in enumerate(self.target)
            if piece and (own := self._by_bytes.get(piece)) is not None
        }
        # Two ids of the target with the same bytes would both be drafted by one of the draft's.
        once = {own: token for token, own in reversed(found.items())}
        shared = {token: own for own, token in once.items()}
        names = self.target_specials.keys() & self.draft_specials.keys()
        shared |= {self.target_specials[name]: self.draft_specials[name] for name in names}
        return dict(sorted(shared.items()))

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        return {piece: own for own, piece in reversed([*enumerate(self.draft)]) if piece}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._by_bytes), default=0)

    @cached_property
    def _spelled(self) -> dict[int, tuple[int, ...]]:
        return {token: (own,) for token, own in self.shared.items()}

    def to_draft(self, token: int) -> tuple[int, ...]:
        """How the draft spells a token of the target: the longest pieces first, perhaps nothing."""
        found = self._spelled.get(token)
        if found is None:
            piece = self.target[token] if token < len(self.target) else b""
            found = self._spelled[token] = self._cut(piece)
        return found

    def _cut(self, text: bytes) -> tuple[int, ...]:
        found: list[int] = []
        start = 0
        while start < len(text):
            ends = range(min(len(text), start + self._longest), start, -1)
            end = next((end for end in ends if text[start:end] in self._by_bytes), None)
            if end is None:
                return ()  # the draft has no such byte: it does not hear of the token
            found.append(self._by_bytes[text[start:end]])
            start = end
        return tuple(found)

    @cached_property
    def _columns(self) -> tuple[Int[Tensor, " shared"], Int[Tensor, " shared"]]:
        pairs = torch.tensor(list(self.shared.items()), dtype=torch.long)
        return pairs[:, 0], pairs[:, 1]

    def to_target(
        self, logits: Float[Tensor, "rows draft_vocab"], vocab_size: int
    ) -> Float[Tensor, "rows target_vocab"]:
        """The draft's logits in the target's columns; ids that it does not share are -inf.

        Args:
            logits: The draft's.
            vocab_size: The target's number of ids.
        """
        ours, theirs = (one.to(logits.device) for one in self._columns)
        is_there = (theirs < logits.shape[-1]) & (ours < vocab_size)
        found = logits.new_full((len(logits), vocab_size), -torch.inf)
        found[:, ours[is_there]] = logits[:, theirs[is_there]]
        return found


def translation_between(
    target: Tokenizer, draft: Tokenizer, target_name: str, draft_name: str
) -> Translation:
    """What a draft of another vocabulary can say of a target's.

    Raises:
        VocabularyMismatchError: If one of them does not tell its bytes, or they share next to
            nothing.
    """
    ours, theirs = target.spellings(), draft.spellings()
    if ours is None or theirs is None:
        silent = target_name if ours is None else draft_name
        raise VocabularyMismatchError(
            f"draft {draft_name} has another tokenizer than target {target_name}, and that of "
            f"{silent} does not tell the bytes of its ids: use a draft of the target's family"
        )
    found = Translation(ours, theirs, target.special_tokens(), draft.special_tokens())
    if len(found.shared) < _LEAST_SHARED:
        raise VocabularyMismatchError(
            f"draft {draft_name} shares {len(found.shared)} ids with target {target_name}, fewer "
            f"than {_LEAST_SHARED}: use a draft of the target's family"
        )
    return found
