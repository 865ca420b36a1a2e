"""The contracts as functions: run your own drafter or model through them in its tests.

`check_drafter` plays the engine to a drafter; `check_model` plays the engine's passes on a model
and compares every logit with a pass over that sequence alone.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.params import SamplingParams, check_gamma
from draftsmith.drafters.contract import Draft, Drafter
from draftsmith.engine.request import make_request
from draftsmith.engine.result import Origin, TokenTrace
from draftsmith.engine.round import RoundContext, Turn, check_contract
from draftsmith.engine.sequence import Sequence as Sample
from draftsmith.errors import NotRollbackableError
from draftsmith.models.contract import Cache, LanguageModel, ModelTraits, Rows

__all__ = ["check_drafter", "check_model"]

_MODES = (
    SamplingParams(temperature=1.0, verifier="block", max_tokens=10**6),
    SamplingParams(temperature=0.8, top_p=0.9, frequency_penalty=0.3, seed=0, max_tokens=10**6),
    SamplingParams(max_tokens=10**6),
)
"""Every kind of request: laws wanted, coupled noise, greedy."""
_NUM_ROUNDS = 10
_NUM_COPIES = 32
"""Sequences that draw side by side in the honesty check."""
_NUM_BUCKETS = 16
_LAW_TOLERANCE = 1e-3


def check_drafter(
    drafter: Drafter,
    *,
    vocab_size: int,
    gamma: int = 4,
    is_encoder_decoder: bool = False,
    is_reproducible: bool = True,
    num_draws: int = 2000,
    false_fail_rate: float = 1e-9,
    device: torch.device | None = None,
) -> None:
    """Run a drafter as the engine would, and hold it to its contract.

    Sequences come, grow and go; one or many are wanted, each with its own gamma, 0 among them. No
    draft is longer than wanted or names an unknown id; laws are distributions that give mass to
    the drawn token; after any history a sequence gets the draft that a new one with the same
    tokens and noise would get. The honesty check compares, at every drafted position, how often
    each token came with the laws that were reported; ids are told apart modulo 16. An honest
    drafter fails it with probability `false_fail_rate` at most, and with b = min(16, vocab_size)
    it resolves a total variation of twice sqrt((b ln 2 + ln(gamma / rate)) / (2 num_draws)). A
    draft that is cut by a look at the drawn token shows up here as well.

    Args:
        drafter: Yours.
        vocab_size: The target's number of ids.
        gamma: The longest draft to ask for, 1 to 32.
        is_encoder_decoder: Whether the sequences have a source, as an encoder-decoder's do.
        is_reproducible: False for a drafter that learns as it goes.
        num_draws: How many drafts the honesty check draws.
        false_fail_rate: Probability at most that the honesty check fails an honest drafter.
        device: Where the drafts are wanted; None is the CPU.

    Raises:
        DraftError: If a draft breaks the contract in form.
        AssertionError: If its laws are not the ones drawn from, or its drafts not reproducible.

    Example:
        >>> from draftsmith.drafters import RandomDrafter
        >>> check_drafter(RandomDrafter(vocab_size=8), vocab_size=8, num_draws=64)
    """
    _require(check_gamma(gamma) > 0, "gamma must be 1 or more, so that something is drafted")
    traits = ModelTraits("the target", vocab_size, (), None, is_encoder_decoder, 0)
    bench = _Bench(drafter, gamma, traits, device or torch.device("cpu"), random.Random(0))
    for params in _MODES:
        survivors = _walk(bench, params)
        if is_reproducible:
            _check_reproducible(bench, survivors)
    _check_honest(bench, num_draws, false_fail_rate)


def check_model(model: LanguageModel, *, tolerance: float = 1e-4) -> None:
    """Run a model's ragged passes, and compare each with a pass over that sequence alone.

    Logits after chunks are those of one pass; rollback leaves no trace; rows of other lengths,
    widths, orders and sources change nothing in a row; rows come and go.

    Args:
        model: Yours.
        tolerance: Largest difference of two logits, as a share of the largest one; the default
            suits float32.

    Raises:
        AssertionError: If a logit, a length or a shape is off, in one line that says when.

    Example:
        check_model(wrap_model(my_transformers_model))
    """
    subject = _Subject(model, tolerance, random.Random(0))
    _check_chunks(subject)
    _check_rollback(subject)
    _check_ragged(subject)
    _check_turnover(subject)


# --- drafters -------------------------------------------------------------------------------


@dataclass
class _Bench:
    """A drafter, and the engine's part played around it."""

    drafter: Drafter
    gamma: int
    traits: ModelTraits
    device: torch.device
    chance: random.Random
    turns: list[Turn] = field(default_factory=list)
    """Those of the last proposal."""

    def sample(self, params: SamplingParams, prompt: Sequence[int], seed: int) -> Sample:
        """A new sequence, as the engine makes them."""
        request = make_request(prompt, params, self.traits, None)
        return request.sequence(0, seed, self.device, None)

    def new_sample(self, params: SamplingParams) -> Sample:
        """A new sequence of random tokens, some of which repeat themselves."""
        prompt = self.tokens(self.chance.randint(1, 9))
        return self.sample(params, prompt * self.chance.randint(1, 2), self.seed())

    def tokens(self, count: int) -> list[int]:
        """Random ids."""
        return [self.chance.randrange(self.traits.vocab_size) for _ in range(count)]

    def seed(self) -> int:
        """A fresh seed."""
        return self.chance.getrandbits(63)

    def propose(self, samples: Sequence[Sample], gammas: Sequence[int]) -> Draft:
        """One round's draft, checked in form."""
        pairs = zip(samples, gammas, strict=True)
        self.turns = [
            Turn(one.view(gamma), one.law, one.verifier, one.history(), one.noise)
            for one, gamma in pairs
        ]
        vocab_size = self.traits.vocab_size
        draft = self.drafter.propose(RoundContext(self.turns, vocab_size, self.device))
        check_contract(draft, self.turns, vocab_size, self.drafter.name)
        for row, turn in enumerate(self.turns):
            if draft.probs is not None and turn.verifier.needs_draft_probs:
                _check_laws(self.drafter.name, draft, row)
        return draft


def _walk(bench: _Bench, params: SamplingParams) -> list[Sample]:
    """Rounds of a batch whose sequences come, grow and go; the ones left at the end."""
    live: list[Sample] = []
    for number in range(_NUM_ROUNDS):
        arrivals = 1 if number == 0 else bench.chance.randint(0, 2)
        live += [bench.new_sample(params) for _ in range(arrivals)]
        if len(live) > 4:
            live.pop(bench.chance.randrange(len(live)))
        # The first rounds want one token, then none, then as many as may be.
        gammas = [1, 0, bench.gamma][number:] or [None]
        wanted = [
            bench.chance.randint(0, bench.gamma) if gammas[0] is None else gammas[0] for _ in live
        ]
        draft = bench.propose(live, wanted)
        for row, sample in enumerate(live):
            _grow(bench, sample, draft.tokens[row, : int(draft.num_drafted[row])].tolist())
    return live


def _grow(bench: _Bench, sample: Sample, drafted: list[int]) -> None:
    """Keep some of a draft and emit a token, as a verdict would."""
    kept = drafted[: bench.chance.randint(0, len(drafted))]
    tokens = [*kept, *bench.tokens(1)]
    traces = [TokenTrace(token, Origin.KEPT, 0, None, None, ()) for token in tokens]
    sample.commit_round(traces, len(drafted), len(kept))


def _check_laws(name: str, draft: Draft, row: int) -> None:
    """The laws of one sequence are distributions, with mass at the tokens."""
    assert draft.probs is not None
    tokens = draft.tokens[row, : int(draft.num_drafted[row])]
    laws = draft.probs[row, : len(tokens)].double()
    for column, (token, law) in enumerate(zip(tokens.tolist(), laws, strict=True)):
        mass, least = float(law.sum()), float(law.min())
        where = f"drafter {name}: the law of drafted token {column}"
        _require(abs(mass - 1) <= _LAW_TOLERANCE, f"{where} sums to {mass:.6g}, not 1")
        _require(least >= 0, f"{where} has a negative probability, {least:.3g}")
        _require(float(law[token]) > 0, f"{where} gives no mass to the token, id {token}")


def _check_reproducible(bench: _Bench, samples: Sequence[Sample]) -> None:
    """Sequences with a past get the draft that new ones like them get."""
    gammas = [bench.gamma] * len(samples)
    seasoned = bench.propose(samples, gammas)
    twins = [bench.sample(one.params, one.source or one.prompt, one.seed) for one in samples]
    for one, twin in zip(samples, twins, strict=True):
        for record in one.records:
            # The noise is keyed by the round, so the twin lives through as many.
            num_before = twin.num_output
            new = one.trace[num_before : num_before + record.num_committed]
            twin.commit_round(new, record.num_drafted, record.num_accepted)
    fresh = bench.propose(twins, gammas)
    name = bench.drafter.name
    is_same = torch.equal(seasoned.num_drafted, fresh.num_drafted) and torch.equal(
        seasoned.tokens, fresh.tokens
    )
    _require(
        is_same,
        f"drafter {name}: the same tokens and noise gave other drafts to sequences with a past "
        "(rejected drafts have left a trace, or a random number is not the context's)",
    )
    if seasoned.probs is not None and fresh.probs is not None:
        difference = float((seasoned.probs - fresh.probs).abs().max())
        _require(
            difference <= _LAW_TOLERANCE,
            f"drafter {name}: the same tokens gave laws that differ by {difference:.3g}",
        )


def _check_honest(bench: _Bench, num_draws: int, false_fail_rate: float) -> None:
    """At every position, tokens come as often as the laws reported for them say."""
    prompt = bench.tokens(3) * 2
    samples = [bench.sample(_MODES[0], prompt, 0) for _ in range(_NUM_COPIES)]
    num_buckets = min(_NUM_BUCKETS, bench.traits.vocab_size)
    excess = torch.zeros(bench.gamma, num_buckets, dtype=torch.float64)
    certain: set[tuple[int, ...]] = set()
    num_rounds = -(-num_draws // _NUM_COPIES)
    for _ in range(num_rounds):
        for sample in samples:
            sample.seed = bench.seed()
        draft = bench.propose(samples, [bench.gamma] * _NUM_COPIES)
        for row, length in enumerate(draft.num_drafted.tolist()):
            tokens = draft.tokens[row, :length].cpu()
            if draft.probs is None:
                certain.add(tuple(tokens.tolist()))
            else:
                excess[:length] += _excess(tokens, draft.probs[row, :length].cpu(), num_buckets)
    name, total = bench.drafter.name, num_rounds * _NUM_COPIES
    _require(
        len(certain) <= 1,
        f"drafter {name}: a draft without laws must be certain, but it changes with the noise",
    )
    # For each set of buckets Hoeffding's inequality, given the laws; then a union bound over sets.
    log_sets = num_buckets * math.log(2) + math.log(bench.gamma / false_fail_rate)
    bound = math.sqrt(log_sets / (2 * total))
    for column, distance in enumerate((excess / total).abs().sum(dim=1).div(2).tolist()):
        _require(
            distance <= bound,
            f"drafter {name}: drafted token {column} does not follow the law reported for it "
            f"(total variation {distance:.3f}, more than {bound:.3f}, in {total} draws)",
        )


def _excess(
    tokens: Tensor, laws: Float[Tensor, "columns vocab"], num_buckets: int
) -> Float[Tensor, "columns buckets"]:
    """What came minus what the laws say, by id modulo the number of buckets."""
    came = torch.nn.functional.one_hot(tokens % num_buckets, num_buckets).double()
    buckets = torch.arange(laws.shape[1]) % num_buckets
    expected = torch.zeros_like(came).index_add_(1, buckets, laws.double())
    return came - expected


# --- models ---------------------------------------------------------------------------------


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
        _require(cache.length(row) == 0, f"a new row holds {cache.length(row)} tokens, not 0")
        if text.source:
            self.model.encode(cache, row, text.source)
        return row

    def forward(
        self, cache: Cache, rows: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Float[Tensor, "batch rows vocab"]:
        """A pass, its shape checked."""
        batch = Rows(rows, tokens)
        logits = self.model.forward(cache, batch)
        wanted = (len(rows), batch.width, self.model.traits.vocab_size)
        _require(tuple(logits.shape) == wanted, f"logits are {tuple(logits.shape)}, not {wanted}")
        return logits

    def compare(self, logits: Float[Tensor, "rows vocab"], text: _Text, when: str) -> None:
        """The logits after the last tokens of a text are those of one pass over it alone."""
        cache = self.model.open_cache()
        alone = self.forward(cache, [self.open_row(cache, text)], [text.tokens])[0]
        expected = alone[-len(logits) :].float()
        difference = float((logits.float() - expected).abs().max())
        bound = self.tolerance * max(1.0, float(expected.abs().max()))
        # A NaN must fail too.
        _require(
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
            _require(cache.length(row) == start, f"a row of {start} says {cache.length(row)}")
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
        _require(cache.length(row) == length, f"rolled back to {length}, not {cache.length(row)}")
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


def _check_turnover(subject: _Subject) -> None:
    """Rows come, grow, are rolled back and go, at random."""
    cache, chance = subject.model.open_cache(), subject.chance
    live: dict[int, _Text] = {}
    for _ in range(25):
        if len(live) < 2 or (len(live) < 5 and chance.random() < 0.5):
            text = subject.text(0)
            row = subject.open_row(cache, text)
            _require(row not in live, f"row {row} was opened twice")
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
        _require(cache.length(row) == len(text.tokens), f"row {row} has lost count of its tokens")
        if len(text.tokens) + 5 > subject.longest or subject.chance.random() < 0.1:
            cache.remove(row)
            del live[row]
        elif subject.model.traits.can_rollback and subject.chance.random() < 0.5:
            length = subject.chance.randint(0, len(text.tokens))
            cache.rollback(row, length)
            del text.tokens[length:]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
