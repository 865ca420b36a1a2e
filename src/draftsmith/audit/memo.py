"""A model that computes the logits of each text once, so that thousands of samples are cheap."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.audit.recall import Recalled
from draftsmith.audit.subject import Subject
from draftsmith.core.trees import ancestors
from draftsmith.drafters import ModelDrafter
from draftsmith.drafters.contract import Drafter, StatefulDrafter
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
        self.num_boundaries = inner.num_boundaries
        self._states = _States(inner)
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

    def forward_with_states(
        self, cache: Cache, batch: Rows, boundaries: Sequence[int]
    ) -> tuple[Float[Tensor, "batch rows vocab"], Float[Tensor, "batch rows boundaries hidden"]]:
        """As `forward`, and the inner model's streams, kept as its logits are."""
        assert isinstance(cache, _Tokens)
        held = [list(cache.texts[row]) for row in batch.rows]
        logits = self.forward(cache, batch)
        parts: list[Tensor] = []
        for line, (text, tokens) in enumerate(zip(held, batch.tokens, strict=True)):
            above = range(-1, len(tokens) - 1) if batch.parents is None else batch.parents[line]
            paths = [ancestors(above, index) for index in range(len(tokens))]
            texts = [[*text, *(tokens[one] for one in path)] for path in paths]
            found = self._states.after(texts, boundaries)
            gap = batch.width - len(tokens)
            parts.append(torch.nn.functional.pad(found, (0, 0, 0, 0, 0, gap)))
        return logits, torch.stack(parts)

    def extend_with_states(
        self, cache: Cache, row: int, tokens: Sequence[int], boundaries: Sequence[int]
    ) -> Float[Tensor, "tokens boundaries hidden"]:
        """As `extend`, and the streams."""
        assert isinstance(cache, _Tokens)
        held = list(cache.texts[row])
        self.extend(cache, row, tokens)
        texts = [[*held, *tokens[:end]] for end in range(1, len(tokens) + 1)]
        return self._states.after(texts, boundaries)

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


class _States:
    """The residual streams of texts, each computed the first time that it is asked for."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._cache: Cache | None = None
        self._row = 0
        self._held: list[int] = []
        """The text that the one row has."""
        self._boundaries: tuple[int, ...] = ()
        self._known: dict[tuple[int, ...], Tensor] = {}
        """Of a text, those of its last token."""

    def after(
        self, texts: Sequence[Sequence[int]], boundaries: Sequence[int]
    ) -> Float[Tensor, "texts boundaries hidden"]:
        """Those of the last token of each text."""
        if self._boundaries != tuple(boundaries):
            self._boundaries, self._known = tuple(boundaries), {}
            self._rollback(0)
        # The longest first: its pass has those of its beginnings.
        for text in sorted(texts, key=len, reverse=True):
            if tuple(text) not in self._known:
                self._read(list(text))
        return torch.stack([self._known[tuple(text)] for text in texts])

    def _read(self, text: list[int]) -> None:
        pairs = enumerate(zip(self._held, text[:-1], strict=False))
        length = next((i for i, (one, other) in pairs if one != other), None)
        self._rollback(min(len(self._held), len(text) - 1) if length is None else length)
        first = len(self._held)
        assert self._cache is not None
        new = Rows([self._row], [text[first:]])
        _, states = self._model.forward_with_states(self._cache, new, self._boundaries)
        for place, line in enumerate(states[0].clone()):
            self._known[tuple(text[: first + place + 1])] = line
        self._held = text

    def _rollback(self, length: int) -> None:
        if self._cache is None:
            self._cache = self._model.open_cache()
            self._row = self._cache.add()
        elif length < len(self._held):
            self._cache.rollback(self._row, length)
        self._held = self._held[:length]


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
    """The same with every model and every head behind a memo, and the target's memo."""
    target = Memo(subject.target)
    known: dict[int, Memo] = {id(subject.target): target}

    def remember(drafter: Drafter) -> Drafter:
        # A head's trees depend on more than one path.
        if isinstance(drafter, StatefulDrafter) and drafter.boundaries and drafter.branches == 1:
            return Recalled(drafter)
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
