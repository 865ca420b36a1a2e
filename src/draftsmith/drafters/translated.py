"""A draft model of another vocabulary: it reads the text in its own ids, and drafts shared ones.

Token-level intersection (TLI) of Timor et al., "Accelerating LLM Inference with Lossless
Speculative Decoding Algorithms for Heterogeneous Vocabularies" (arXiv:2502.05202), algorithm 4:
the draft's law is cut to the ids that both have, and checked as any other law. What the target
says in ids of its own the draft reads in pieces of its own, token by token, so that what it has
read never changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from draftsmith.drafters.contract import DraftContext, DraftState, SequenceView, StatefulDrafter
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.vocabularies import Translation
from draftsmith.errors import CacheFullError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.follower import Follower, common_prefix
from draftsmith.models.tokenizer import Tokenizer

__all__ = ["TranslatedDrafter"]


class TranslatedDrafter(StatefulDrafter):
    """Drafts with a model that has other ids than the target.

    Args:
        model: Decoder-only.
        translation: Between the target's ids and its own.
        target_vocab_size: Columns of the target's logits.
        tokenizer: The model's own.

    Example:
        >>> import draftsmith
        >>> draft = "smollm2-135m-instruct"
        >>> engine = draftsmith.load_engine("qwen2.5-coder-1.5b-instruct", draft)
        >>> engine.draft.name
        'smollm2-135m-instruct'
    """

    def __init__(
        self,
        model: LanguageModel,
        translation: Translation,
        target_vocab_size: int,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.model = model
        self.translation = translation
        self.target_vocab_size = target_vocab_size
        self.tokenizer = tokenizer
        self.name = model.traits.name
        self.uses_torch_threads = model.uses_torch_threads

    def open(self) -> DraftState:
        """A cache of the model, without rows."""
        return _State(self)


class _Own(NamedTuple):
    """A sequence as the draft reads it."""

    id: int
    tokens: Sequence[int]
    source: Sequence[int] = ()


class _Text:
    """One sequence in both vocabularies."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        self._read: list[int] = []
        self._ends: list[int] = []
        """Of each token that was read, where its spelling ends."""
        self.tokens: list[int] = []

    def read(self, tokens: Sequence[int]) -> None:
        """Take in what is new, and forget what is gone."""
        common = common_prefix(self._read, tokens)
        if common < len(self._read):
            del self._read[common:], self._ends[common:]
            del self.tokens[self._ends[-1] if self._ends else 0 :]
        for token in tokens[common:]:
            self.tokens += self._translation.to_draft(token)
            self._read.append(token)
            self._ends.append(len(self.tokens))


class _State(DraftState):
    """The model's cache rows of one engine's sequences, and their texts."""

    def __init__(self, drafter: TranslatedDrafter) -> None:
        self._drafter = drafter
        self._texts: dict[int, _Text] = {}
        self.follower = Follower(drafter.model)

    def propose(self, context: DraftContext) -> Draft:
        """Run the model token by token; each is drawn from its law over the shared ids."""
        views = {row: self._own(view) for row, view in enumerate(context.sequences) if view.gamma}
        live = [row for row, own in views.items() if self._has_room(own, context.sequences[row])]
        feeds = {row: self.follower.catch_up(views[row]) for row in live}
        translation, size = self._drafter.translation, self._drafter.target_vocab_size
        while live := context.wanting(live):
            logits = self.follower.forward(
                [views[row] for row in live], [feeds[row] for row in live]
            )
            rows = torch.arange(len(live), device=logits.device)
            last = torch.tensor([len(feeds[row]) - 1 for row in live], device=logits.device)
            drawn = context.draw(live, translation.to_target(logits[rows, last].float(), size))
            known = context.follow(live)
            feeds = {
                row: [own for one in (token, *more) for own in translation.to_draft(one)]
                for row, token, more in zip(live, drawn, known, strict=True)
            }
            # What the draft cannot spell it cannot go on from.
            live = [row for row in live if feeds[row]]
        return context.drawn()

    def release(self, sequence: int) -> None:
        """Close the row of a sequence."""
        self._texts.pop(sequence, None)
        self.follower.release(sequence)

    def _own(self, view: SequenceView) -> _Own:
        text = self._texts.setdefault(view.id, _Text(self._drafter.translation))
        text.read(view.tokens)
        return _Own(view.id, text.tokens)

    def _has_room(self, own: _Own, view: SequenceView) -> bool:
        if not own.tokens:
            return False
        length, end = self._drafter.model.traits.context_length, len(own.tokens) + view.gamma
        if length is not None and end > length:
            return False
        try:
            self.follower.make_room(own, end)
        except CacheFullError:
            return False
        return True
