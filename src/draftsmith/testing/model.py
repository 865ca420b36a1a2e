"""The contract of a language model as a function: run your own through it in its tests."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from draftsmith.errors import NotRollbackableError
from draftsmith.models.contract import Cache, CountedCache, LanguageModel, Rows
from draftsmith.testing.require import require

__all__ = ["check_model"]


def check_model(model: LanguageModel, *, tolerance: float = 1e-4) -> None:
    """Run a model's ragged passes, and compare each with a pass over that sequence alone.

    Logits after chunks are those of one pass; rollback leaves no trace; rows of other lengths,
    widths, orders and sources change nothing in a row; rows come and go. If the model takes trees,
    every token of one says what it says at the end of its own chain, and a kept path is one.

    Args:
        model: Yours.
        tolerance: Largest difference of two logits, as a share of the largest one; the default
            suits float32.

    Raises:
        AssertionError: If a logit, a length or a shape is off, in one line that says when.

    Example:
        >>> from draftsmith.models.load import load_adapted_model
        >>> yours = load_adapted_model("smollm2-135m-instruct")
        >>> check_model(yours)
    """
    subject = _Subject(model, tolerance, random.Random(0))
    _check_chunks(subject)
    _check_rollback(subject)
    _check_ragged(subject)
    _check_reopening(subject)
    _check_turnover(subject)
    if model.takes_trees:
        _check_trees(subject)


@dataclass(frozen=True)
class _Text:
    """One sequence, and for an encoder-decoder its source."""

    tokens: list[int]
    source: list[int]


@dataclass
class _Subject:
    """A model, and what it says of a sequence in one pass of its own."""

    model: LanguageModel
    tolerance: float
    chance: random.Random

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence to try."""
        return min(24, self.model.traits.context_length or 24)

    def text(self, length: int) -> _Text:
        """Random tokens, and a random source if there is an encoder."""
        num_source = self.chance.randint(1, 9) if self.model.traits.is_encoder_decoder else 0
        return _Text(self._ids(length), self._ids(num_source))

    def texts(self, *lengths: int) -> Iterator[_Text]:
        """Several of them."""
        return (self.text(min(length, self.longest)) for length in lengths)

    def open_row(self, cache: Cache, text: _Text) -> int:
        """A row of the cache, its source encoded."""
        row = cache.add()
        require(cache.length(row) == 0, f"a new row holds {cache.length(row)} tokens, not 0")
        if text.source:
            self.model.encode(cache, row, text.source)
        return row

    def forward(
        self,
        cache: Cache,
        rows: Sequence[int],
        tokens: Sequence[Sequence[int]],
        parents: Sequence[Sequence[int]] | None = None,
    ) -> Float[Tensor, "batch rows vocab"]:
        """A pass, its shape checked."""
        batch = Rows(rows, tokens, parents)
        logits = self.model.forward(cache, batch)
        wanted = (len(rows), batch.width, self.model.traits.vocab_size)
        require(tuple(logits.shape) == wanted, f"logits are {tuple(logits.shape)}, not {wanted}")
        return logits

    def compare(self, logits: Float[Tensor, "rows vocab"], text: _Text, when: str) -> None:
        """The logits after the last tokens of a text are those of one pass over it alone."""
        cache = self.model.open_cache()
        alone = self.forward(cache, [self.open_row(cache, text)], [text.tokens])[0]
        expected = alone[-len(logits) :].float()
        difference = float((logits.float() - expected).abs().max())
        bound = self.tolerance * max(1.0, float(expected.abs().max()))
        # A NaN must fail too.
        require(
            difference <= bound,
            f"{self.model.traits.name}: logits {when} differ by {difference:.3g} from one pass",
        )

    def _ids(self, count: int) -> list[int]:
        return [self.chance.randrange(self.model.traits.vocab_size) for _ in range(count)]


def _check_chunks(subject: _Subject) -> None:
    """Chunks of any width, with logits and without, say what one pass says."""
    text = subject.text(subject.longest)
    for widths in ([1] * subject.longest, [3, 1, 4, 2], [subject.longest - 1]):
        cache = subject.model.open_cache()
        row, start = subject.open_row(cache, text), 0
        for number, width in enumerate(widths):
            chunk = text.tokens[start : start + width]
            if not chunk:
                continue
            start += len(chunk)
            if number % 2:
                subject.model.extend(cache, row, chunk)
            else:
                logits = subject.forward(cache, [row], [chunk])[0]
                so_far = _Text(text.tokens[:start], text.source)
                subject.compare(logits, so_far, f"after a chunk of {width}")
            require(cache.length(row) == start, f"a row of {start} says {cache.length(row)}")
    cache = subject.model.open_cache()
    row = subject.open_row(cache, text)
    subject.model.prefill(cache, row, text.tokens[:-1])
    logits = subject.forward(cache, [row], [text.tokens[-1:]])[0]
    subject.compare(logits, text, "after a prefill")


def _check_rollback(subject: _Subject) -> None:
    """What is rolled back leaves no trace; a model that cannot do it says so."""
    text = subject.text(subject.longest)
    cache = subject.model.open_cache()
    row = subject.open_row(cache, text)
    half = len(text.tokens) // 2
    subject.forward(cache, [row], [text.tokens[:half]])
    if not subject.model.traits.can_rollback:
        _check_refusal(cache, row, half)
        return
    for length in (half - 1, half // 2, 0):
        cache.rollback(row, length)
        subject.forward(cache, [row], [subject.text(half).tokens])
        cache.rollback(row, length)
        require(cache.length(row) == length, f"rolled back to {length}, not {cache.length(row)}")
        logits = subject.forward(cache, [row], [text.tokens[length:]])[0]
        subject.compare(logits, text, f"after a rollback to {length}")


def _check_refusal(cache: Cache, row: int, length: int) -> None:
    cache.rollback(row, length)
    try:
        cache.rollback(row, length - 1)
    except NotRollbackableError:
        return
    raise AssertionError("traits say that the model cannot roll back, but rollback does not raise")


def _check_ragged(subject: _Subject) -> None:
    """Rows of other lengths, widths and sources, in any order, change nothing in a row."""
    cache = subject.model.open_cache()
    texts = list(subject.texts(14, 3, 9, 9))
    rows = [subject.open_row(cache, text) for text in texts]
    held = [0, 0, 0, 0]
    for order, widths in (
        ([0, 1, 2, 3], [6, 1, 2, 2]),
        ([2, 0], [3, 1]),
        ([3, 1, 0], [1, 2, 5]),
        ([1, 0, 3, 2], [0, 2, 6, 4]),
    ):
        chunks = [
            texts[i].tokens[held[i] : held[i] + w] for i, w in zip(order, widths, strict=True)
        ]
        live = [(i, chunk) for i, chunk in zip(order, chunks, strict=True) if chunk]
        logits = subject.forward(cache, [rows[i] for i, _ in live], [chunk for _, chunk in live])
        for line, (i, chunk) in zip(logits, live, strict=True):
            held[i] += len(chunk)
            so_far = _Text(texts[i].tokens[: held[i]], texts[i].source)
            subject.compare(line[: len(chunk)], so_far, "of a row in a ragged pass")


def _check_reopening(subject: _Subject) -> None:
    """A row that is closed and opened again knows nothing of before, its source included."""
    cache = subject.model.open_cache()
    for text in subject.texts(9, 5, 7):
        row = subject.open_row(cache, text)
        logits = subject.forward(cache, [row], [text.tokens])[0]
        subject.compare(logits, text, "of a row opened again")
        cache.remove(row)


def _check_turnover(subject: _Subject) -> None:
    """Rows come, grow, are rolled back and go, at random."""
    cache, chance = subject.model.open_cache(), subject.chance
    live: dict[int, _Text] = {}
    for _ in range(25):
        if len(live) < 2 or (len(live) < 5 and chance.random() < 0.5):
            text = subject.text(0)
            row = subject.open_row(cache, text)
            require(row not in live, f"row {row} was opened twice")
            live[row] = text
        batch = chance.sample(sorted(live), chance.randint(1, len(live)))
        chunks = [subject.text(chance.randint(1, 5)).tokens for _ in batch]
        logits = subject.forward(cache, batch, chunks)
        for row, chunk, line in zip(batch, chunks, logits, strict=True):
            live[row].tokens.extend(chunk)
            subject.compare(line[: len(chunk)], live[row], "after rows came and went")
        _shrink(subject, cache, live)


def _shrink(subject: _Subject, cache: Cache, live: dict[int, _Text]) -> None:
    """Roll some rows back, and close the ones that grow too long."""
    for row, text in list(live.items()):
        require(cache.length(row) == len(text.tokens), f"row {row} has lost count of its tokens")
        if len(text.tokens) + 5 > subject.longest or subject.chance.random() < 0.1:
            cache.remove(row)
            del live[row]
        elif subject.model.traits.can_rollback and subject.chance.random() < 0.5:
            length = subject.chance.randint(0, len(text.tokens))
            cache.rollback(row, length)
            del text.tokens[length:]


def _check_trees(subject: _Subject) -> None:
    """Beside a chain, a tree's tokens say what their ways say alone; one way is gone on with."""
    cache = subject.model.open_cache()
    require(isinstance(cache, CountedCache), "a model that takes trees needs a cache that can keep")
    assert isinstance(cache, CountedCache)
    tree, beside = next(subject.texts(12)), next(subject.texts(9))
    held, new = tree.tokens[:4], tree.tokens[4:]
    ways = [[0], [0, 1], [0, 2], [0, 1, 3], [0, 2, 4], [5], [5, 6], [0, 2, 4, 7]][: len(new)]
    parents = [way[-2] if len(way) > 1 else -1 for way in ways]
    rows = [subject.open_row(cache, text) for text in (beside, tree)]
    subject.model.extend(cache, rows[1], held)
    chain = list(range(-1, len(beside.tokens) - 1))
    logits = subject.forward(cache, rows, [beside.tokens, new], [chain, parents])
    subject.compare(logits[0, : len(chain)], beside, "of a chain beside a tree")
    texts = [_Text([*held, *(new[i] for i in way)], tree.source) for way in ways]
    for index, text in enumerate(texts):
        subject.compare(logits[1, index : index + 1], text, "of a token of a tree")
    cache.keep(rows[1], len(held), ways[-1])
    kept = texts[-1].tokens
    require(cache.length(rows[1]) == len(kept), f"a row that keeps {len(kept)} has lost count")
    more = subject.text(2).tokens
    logits = subject.forward(cache, rows[1:], [more])[0]
    subject.compare(logits, _Text([*kept, *more], tree.source), "after a path of a tree")
