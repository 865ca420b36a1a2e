"""The contract of a drafter as a function: run your own through it in its tests."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.gamma import check_gamma
from draftsmith.core.params import SamplingParams
from draftsmith.drafters.contract import Drafter, open_state
from draftsmith.drafters.draft import Draft
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.rounds.breaches import LAW_TOLERANCE, check_contract
from draftsmith.engine.rounds.drafting import RoundContext
from draftsmith.engine.rounds.turn import Turn
from draftsmith.models.contract import ModelTraits
from draftsmith.testing.require import require

__all__ = ["check_drafter"]

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
    draft that is cut by a look at the drawn token shows up here as well. A drafter with
    more than one of `branches` is asked for trees, and held to the same: a node's law is the one
    that its elder siblings have left.

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
    check_gamma(gamma)
    require(gamma > 0, "gamma must be 1 or more, so that something is drafted")
    traits = ModelTraits(
        name="the target",
        vocab_size=vocab_size,
        eos_token_ids=(),
        context_length=None,
        is_encoder_decoder=is_encoder_decoder,
        decoder_start_token_id=0,
    )
    bench = _Bench(drafter, gamma, traits, device or torch.device("cpu"), random.Random(0))
    for params in _MODES:
        survivors = _walk(bench, params)
        if is_reproducible:
            _check_reproducible(bench, survivors)
    _check_honest(bench, num_draws, false_fail_rate)


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

    def __post_init__(self) -> None:
        """Ask as an engine does."""
        self.state = open_state(self.drafter)

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
        self.turns = [one.turn(gamma) for one, gamma in pairs]
        size, takes_trees = self.traits.vocab_size, self.drafter.branches > 1
        context = RoundContext(self.turns, size, self.device, takes_trees=takes_trees)
        draft = self.state.propose(context)
        name = self.drafter.name
        check_contract(draft, self.turns, size, name, takes_trees=takes_trees)
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
            gone = live.pop(bench.chance.randrange(len(live)))
            bench.state.release(gone.id)
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
    sample.commit_round(tokens, drafted, len(kept))


def _check_laws(name: str, draft: Draft, row: int) -> None:
    """The laws of one sequence are distributions, with mass at the tokens."""
    assert draft.probs is not None
    tokens = draft.tokens[row, : int(draft.num_drafted[row])]
    laws = draft.probs[row, : len(tokens)].double()
    for column, (token, law) in enumerate(zip(tokens.tolist(), laws, strict=True)):
        mass, least = float(law.sum()), float(law.min())
        where = f"drafter {name}: the law of drafted token {column}"
        require(abs(mass - 1) <= LAW_TOLERANCE, f"{where} sums to {mass:.6g}, not 1")
        require(least >= 0, f"{where} has a negative probability, {least:.3g}")
        require(float(law[token]) > 0, f"{where} gives no mass to the token, id {token}")


def _check_reproducible(bench: _Bench, samples: Sequence[Sample]) -> None:
    """Sequences with a past get the draft that new ones like them get."""
    gammas = [bench.gamma] * len(samples)
    seasoned = bench.propose(samples, gammas)
    twins = [bench.sample(one.params, one.source or one.prompt, one.seed) for one in samples]
    for one, twin in zip(samples, twins, strict=True):
        for record in one.records:
            # The noise is keyed by the round, so the twin lives through as many.
            num_before = len(twin.tokens)
            twin.commit_round(one.tokens[num_before : num_before + record.num_committed])
    fresh = bench.propose(twins, gammas)
    name = bench.drafter.name
    is_same = torch.equal(seasoned.num_drafted, fresh.num_drafted) and torch.equal(
        seasoned.tokens, fresh.tokens
    )
    require(
        is_same,
        f"drafter {name}: the same tokens and noise gave other drafts to sequences with a past "
        "(rejected drafts have left a trace, or a random number is not the context's)",
    )
    if seasoned.probs is not None and fresh.probs is not None:
        difference = float((seasoned.probs - fresh.probs).abs().max())
        require(
            difference <= LAW_TOLERANCE,
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
    require(
        len(certain) <= 1,
        f"drafter {name}: a draft without laws must be certain, but it changes with the noise",
    )
    # For each set of buckets Hoeffding's inequality, given the laws; then a union bound over sets.
    log_sets = num_buckets * math.log(2) + math.log(bench.gamma / false_fail_rate)
    bound = math.sqrt(log_sets / (2 * total))
    for column, distance in enumerate((excess / total).abs().sum(dim=1).div(2).tolist()):
        require(
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
