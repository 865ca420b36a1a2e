"""A model that computes the logits of each text once, so that thousands of samples are cheap."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.audit.subject import Subject
from draftsmith.core.trees import ancestors
from draftsmith.drafters import ModelDrafter
from draftsmith.drafters.contract import Drafter
from draftsmith.models.contract import Cache, CountedCache, LanguageModel, Rows, free_number
from draftsmith.models.follower import Follower

__all__ = ["Memo", "memoised"]


@dataclass
class _Text:
    """A text that the real model's one row moves along."""

    tokens: list[int]
    source: list[int]
    id: int = 0


class Memo(LanguageModel):
    """The inner model's logits, each text's kept from the first time that they are asked for.

    What a round does with them (drafting, laws, verdicts, commits) runs for every sample.
    """

    def __init__(self, inner: LanguageModel) -> None:
        self.inner = inner
        self.traits = inner.traits
        self.device = inner.device
        self.uses_torch_threads = inner.uses_torch_threads
        self.takes_trees = inner.takes_trees
        self._follower = Follower(inner)
        self._source: list[int] = []
        self._chunks: dict[tuple[tuple[int, ...], tuple[int, ...], int], Tensor] = {}

    def open_cache(self) -> Cache:
        """Rows of token ids."""
        return _Tokens()

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; the logits after each of them."""
        assert isinstance(cache, _Tokens)
        parts: list[Tensor] = []
        for line, (row, tokens) in enumerate(zip(batch.rows, batch.tokens, strict=True)):
            source, held = cache.sources[row], list(cache.texts[row])
            cache.texts[row].extend(tokens)
            if batch.parents is None:
                chunk = self._chunk(source, cache.texts[row], len(tokens))
            else:
                above = batch.parents[line]
                paths = [ancestors(above, index) for index in range(len(tokens))]
                texts = [[*held, *(tokens[one] for one in path)] for path in paths]
                chunk = torch.cat([self._chunk(source, text, 1) for text in texts])
            parts.append(torch.nn.functional.pad(chunk, (0, 0, 0, batch.width - len(tokens))))
        return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        assert isinstance(cache, _Tokens)
        cache.texts[row].extend(tokens)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Note the source of a row."""
        assert isinstance(cache, _Tokens)
        cache.sources[row] = list(source)

    def logits_after(self, source: Sequence[int], tokens: Sequence[int]) -> Float[Tensor, " vocab"]:
        """The logits of the token after a text."""
        return self._chunk(list(source), list(tokens), 1)[0]

    def _chunk(
        self, source: list[int], tokens: list[int], count: int
    ) -> Float[Tensor, "count vocab"]:
        """Logits after each of the last `count` tokens."""
        key = (tuple(source), tuple(tokens), count)
        if key not in self._chunks:
            ends = range(len(tokens) - count + 1, len(tokens) + 1)
            self._chunks[key] = (
                self._computed(source, tokens).unsqueeze(0)
                if count == 1
                else torch.cat([self._chunk(source, tokens[:end], 1) for end in ends])
            )
        return self._chunks[key]

    def _computed(self, source: list[int], tokens: list[int]) -> Float[Tensor, " vocab"]:
        if source != self._source:
            self._follower.release_all_but([])
            self._source = source
        text = _Text(tokens, source)
        return self._follower.forward([text], [self._follower.catch_up(text)])[0, -1].clone()


class _Tokens(CountedCache):
    """Rows of ids, in the place of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[int, list[int]] = {}
        self.sources: dict[int, list[int]] = {}

    def add(self) -> int:
        row = free_number(self.texts)
        self.texts[row], self.sources[row] = [], []
        return row

    def remove(self, row: int) -> None:
        del self.texts[row], self.sources[row]

    def length(self, row: int) -> int:
        return len(self.texts[row])

    def rollback(self, row: int, length: int) -> None:
        del self.texts[row][length:]

    def keep(self, row: int, length: int, path: Sequence[int]) -> None:
        text = self.texts[row]
        text[length:] = [text[length + index] for index in path]


def memoised(subject: Subject) -> tuple[Subject, Memo]:
    """The same with every model behind a memo, and the target's memo."""
    target = Memo(subject.target)
    known: dict[int, Memo] = {id(subject.target): target}

    def remember(drafter: Drafter) -> Drafter:
        if not isinstance(drafter, ModelDrafter):
            return drafter
        model = drafter.model
        memo = known.setdefault(id(model), Memo(model))
        return ModelDrafter(memo, branches=drafter.branches)

    drafters = {name: remember(drafter) for name, drafter in subject.drafters.items()}
    itself = None if subject.itself is None else remember(subject.itself)
    trees = None if subject.trees is None else remember(subject.trees)
    found = replace(subject, target=target, drafters=drafters, itself=itself, trees=trees)
    return found, target
