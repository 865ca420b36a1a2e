"""Rung 2: what holds for every check, at the uniforms where a comparison could go wrong."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.core.noise import CounterNoise, NoiseKeys, PointMassNoise, RoundNoise, Stream
from draftsmith.core.verdict import PAD_TOKEN, Verdict, assemble, draw, race
from draftsmith.core.verify import (
    VERIFIERS,
    BlockVerifier,
    Check,
    CoupledVerifier,
    RejectionVerifier,
    ThresholdVerifier,
    Verifier,
    verifier_named,
)
from draftsmith.errors import InvalidRequestError

ALMOST_ONE = 1 - 2.0**-53
THRESHOLD_VERIFIERS: list[ThresholdVerifier] = [RejectionVerifier(), BlockVerifier()]
by_name = pytest.mark.parametrize("name", sorted(VERIFIERS))
by_threshold = pytest.mark.parametrize("verifier", THRESHOLD_VERIFIERS, ids=lambda v: v.name)
few = settings(max_examples=80, deadline=None)
seeds = st.integers(0, 2**32)


class ConstantNoise(NamedTuple):
    """Every uniform is `value`, every exponential what that quantile gives."""

    batch: int
    value: float

    def uniforms(self, stream: int, count: int) -> Tensor:
        return torch.full((self.batch, count), self.value, dtype=torch.float64)

    def exponentials(self, first: int, count: int, vocab: int) -> Tensor:
        return torch.full((self.batch, count, vocab), max(16.6 * self.value, 2.0**-33))

    def draw(self, stream: int, column: int, probs: Tensor) -> Tensor:
        return draw(probs, self.uniforms(stream, column + 1)[:, column])

    def race(self, first: int, probs: Tensor) -> Tensor:
        return race(probs, self.exponentials(first, *probs.shape[1:]))


def random_laws(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Small counts, normalised: zeros and ties are common, one in four is a point mass."""
    counts = torch.randint(0, 4, shape, generator=generator).to(dtype)
    winner = torch.randint(0, shape[-1], shape[:-1], generator=generator).unsqueeze(-1)
    is_certain = torch.rand(shape[:-1], generator=generator).unsqueeze(-1) < 0.25
    point = torch.zeros_like(counts).scatter(-1, winner, 1.0)
    counts = torch.where(is_certain | (counts.sum(-1, keepdim=True) == 0), point, counts)
    return counts / counts.sum(-1, keepdim=True)


def drawn_from(laws: Tensor, generator: torch.Generator) -> Tensor:
    flat = laws.flatten(0, -2)
    if not len(flat):
        return torch.zeros(laws.shape[:-1], dtype=torch.long)
    return torch.multinomial(flat, 1, generator=generator).view(laws.shape[:-1])


@st.composite
def checks(draw: st.DrawFn, perfect: bool = False, certain: bool = False) -> Check:
    """Ragged batches; `perfect` has draft law = target law, `certain` only point masses."""
    batch, gamma = draw(st.integers(1, 4)), draw(st.integers(0, 4))
    vocab = draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    lengths = draw(st.lists(st.integers(0, gamma), min_size=batch, max_size=batch))
    generator = torch.Generator().manual_seed(draw(seeds))
    target = random_laws(batch, gamma + 1, vocab, generator=generator, dtype=dtype)
    draft = random_laws(batch, gamma, vocab, generator=generator, dtype=dtype)
    if certain:
        target, draft = (
            one_hot(drawn_from(law, generator), vocab, dtype) for law in (target, draft)
        )
    is_copied = torch.rand(batch, gamma, 1, generator=generator) < (1.0 if perfect else 0.4)
    draft = torch.where(is_copied, target[:, :gamma], draft)
    tokens, num_drafted = drawn_from(draft, generator), torch.tensor(lengths)
    beyond = torch.arange(gamma) >= num_drafted.unsqueeze(1)
    return Check(tokens.masked_fill(beyond, PAD_TOKEN), num_drafted, draft, target)


def one_hot(tokens: Tensor, vocab: int, dtype: torch.dtype) -> Tensor:
    return torch.nn.functional.one_hot(tokens, vocab).to(dtype)


def one_check(draft: list[list[float]], target: list[list[float]], tokens: list[int]) -> Check:
    """A batch of one, in float64."""
    return Check(
        torch.tensor([tokens]),
        torch.tensor([len(tokens)]),
        torch.tensor([draft], dtype=torch.float64),
        torch.tensor([target], dtype=torch.float64),
    )


def counter_noise(batch: int, seed: int) -> CounterNoise:
    keys = NoiseKeys(torch.arange(batch) + seed, torch.zeros(batch, dtype=torch.long))
    return CounterNoise(keys, torch.arange(batch) + 3, torch.arange(batch) + 11)


def noises(batch: int, seed: int) -> list[RoundNoise]:
    return [ConstantNoise(batch, 0.0), ConstantNoise(batch, ALMOST_ONE), counter_noise(batch, seed)]


def agree(one: Verdict, other: Verdict) -> bool:
    return torch.equal(one.num_accepted, other.num_accepted) and torch.equal(
        one.tokens, other.tokens
    )


# --- the shape of a verdict -----------------------------------------------------------------


@by_name
@few
@given(check=checks(), seed=seeds)
def test_a_verdict_is_kept_drafts_then_one_token_then_padding(
    name: str, check: Check, seed: int
) -> None:
    batch, gamma = check.draft_tokens.shape
    for noise in noises(batch, seed):
        verdict = verifier_named(name).verify(check, noise)
        assert verdict.tokens.shape == (batch, gamma + 1)
        for row, kept in enumerate(verdict.num_accepted.tolist()):
            assert 0 <= kept <= int(check.num_drafted[row])
            tokens = verdict.tokens[row].tolist()
            assert tokens[:kept] == check.draft_tokens[row, :kept].tolist()
            assert 0 <= tokens[kept] < check.target_probs.shape[-1]
            assert tokens[kept + 1 :] == [PAD_TOKEN] * (gamma - kept)


@by_name
@few
@given(check=checks(), seed=seeds)
def test_no_token_without_target_mass_is_ever_committed(name: str, check: Check, seed: int) -> None:
    for noise in noises(len(check.num_drafted), seed):
        verdict = verifier_named(name).verify(check, noise)
        for row, kept in enumerate(verdict.num_accepted.tolist()):
            for column in range(kept + 1):
                assert check.target_probs[row, column, verdict.tokens[row, column]] > 0


def test_the_parts_of_a_ragged_batch_are_put_in_their_places() -> None:
    verdict = assemble(
        torch.tensor([[4, 5], [6, 7], [8, 9]]), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3])
    )
    assert verdict.tokens.tolist() == [[1, PAD_TOKEN, PAD_TOKEN], [6, 2, PAD_TOKEN], [8, 9, 3]]
    assert verdict.num_accepted.tolist() == [0, 1, 2]


def test_padding_is_no_id_of_any_vocabulary() -> None:
    assert PAD_TOKEN == -1


@given(
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=6).filter(any),
    uniform=st.one_of(st.sampled_from([0.0, 0.5, ALMOST_ONE]), st.floats(0, ALMOST_ONE)),
    scale=st.sampled_from([1.0, 0.1, 1e-30, 3.0]),
)
@few
def test_a_draw_is_the_first_token_whose_cumulative_mass_exceeds_the_uniform(
    counts: list[int], uniform: float, scale: float
) -> None:
    probs = torch.tensor(counts, dtype=torch.float64) * scale
    token = int(draw(probs.unsqueeze(0), torch.tensor([uniform], dtype=torch.float64)))
    cumulative = probs.cumsum(0)
    assert probs[token] > 0
    assert cumulative[token] > uniform * cumulative[-1] or uniform == ALMOST_ONE
    assert token == 0 or cumulative[token - 1] <= uniform * cumulative[-1]


def test_a_draw_at_a_border_takes_the_token_above_it() -> None:
    half = torch.tensor([[0.5, 0.5]]).expand(3, -1)
    assert draw(half, torch.tensor([0.0, 0.5, 0.75])).tolist() == [0, 1, 1]


# --- what each verifier keeps ---------------------------------------------------------------


@by_threshold
@few
@given(check=checks(perfect=True), seed=seeds)
def test_a_perfect_draft_is_always_kept(
    verifier: ThresholdVerifier, check: Check, seed: int
) -> None:
    for noise in noises(len(check.num_drafted), seed):
        verdict = verifier.verify(check, noise)
        assert verdict.num_accepted.tolist() == check.num_drafted.tolist()


@few
@given(check=checks(perfect=True), seed=seeds)
def test_the_coupled_drafts_own_draws_agree_when_the_laws_do(check: Check, seed: int) -> None:
    verifier, noise = CoupledVerifier(), counter_noise(len(check.num_drafted), seed)
    assert check.draft_probs is not None
    drawn = [
        verifier.draw(check.draft_probs[:, index], noise, index)
        for index in range(check.draft_tokens.shape[1])
    ]
    tokens = torch.stack(drawn, dim=1) if drawn else check.draft_tokens
    verdict = verifier.verify(check._replace(draft_tokens=tokens, draft_probs=None), noise)
    assert verdict.num_accepted.tolist() == check.num_drafted.tolist()


@by_name
@few
@given(check=checks(), seed=seeds)
def test_disjoint_supports_are_always_rejected(name: str, check: Check, seed: int) -> None:
    """The draft's law lives on the first half of a doubled vocabulary, the target's on the rest."""
    vocab = check.target_probs.shape[-1]
    assert check.draft_probs is not None
    apart = check._replace(
        draft_probs=torch.nn.functional.pad(check.draft_probs, (0, vocab)),
        target_probs=torch.nn.functional.pad(check.target_probs, (vocab, 0)),
    )
    for noise in noises(len(check.num_drafted), seed):
        verdict = verifier_named(name).verify(apart, noise)
        assert not verdict.num_accepted.any()
        assert (verdict.tokens[:, 0] >= vocab).all()


@few
@given(check=checks(certain=True), seed=seeds)
def test_all_verifiers_give_one_verdict_on_point_masses(check: Check, seed: int) -> None:
    batch, gamma = check.draft_tokens.shape
    wanted = check.target_probs.argmax(-1)
    columns = torch.arange(gamma)
    agrees = (wanted[:, :gamma] == check.draft_tokens) & (columns < check.num_drafted[:, None])
    kept = agrees.long().cumprod(1).sum(1)
    emitted = wanted.gather(1, kept.unsqueeze(1)).squeeze(1)
    expected = assemble(check.draft_tokens, kept, emitted)
    for noise in [PointMassNoise(batch, torch.device("cpu")), *noises(batch, seed)]:
        for verifier in VERIFIERS.values():
            assert agree(verifier.verify(check, noise), expected)


def test_a_certain_draft_is_kept_with_the_targets_probability() -> None:
    check = one_check([[0, 1, 0]], [[0.5, 0.375, 0.125], [1, 0, 0]], [1])
    assert RejectionVerifier().thresholds(check).tolist() == [[0.375]]
    law = RejectionVerifier().emitted_law(check, torch.tensor([0]))
    assert law.tolist() == [[0.8, 0.0, 0.2]]


@by_threshold
def test_a_test_passes_strictly_below_its_threshold(verifier: ThresholdVerifier) -> None:
    check = one_check([[0.5, 0.5]], [[0.25, 0.75], [1, 0]], [0])
    emit = torch.tensor([0.0])
    for uniform, kept in ((0.5, 0), (0.5 - 2**-54, 1)):
        accept = torch.tensor([[uniform]], dtype=torch.float64)
        assert verifier.decide(check, accept, emit).num_accepted.tolist() == [kept]


@by_threshold
def test_a_forbidden_token_is_rejected_even_when_the_uniform_is_zero(
    verifier: ThresholdVerifier,
) -> None:
    check = one_check([[0.5, 0.5]], [[0, 1], [0.5, 0.5]], [0])
    verdict = verifier.decide(check, torch.zeros(1, 1), torch.zeros(1))
    assert verdict.tokens.tolist() == [[1, PAD_TOKEN]]


@by_threshold
@few
@given(check=st.one_of(checks(), checks(perfect=True), checks(certain=True)))
def test_thresholds_are_probabilities(verifier: ThresholdVerifier, check: Check) -> None:
    """Not NaN either, where the laws agree and nothing can be gained by stopping."""
    thresholds = verifier.thresholds(check)
    assert ((thresholds >= 0) & (thresholds <= 1)).all()
    assert thresholds.dtype == torch.float64


@by_threshold
def test_a_token_that_its_law_cannot_give_is_never_kept(verifier: ThresholdVerifier) -> None:
    for wanted in (0.5, 0.0):
        check = one_check([[0, 1]], [[wanted, 1 - wanted], [1, 0]], [0])
        assert verifier.thresholds(check).tolist() == [[0.0]]


def test_token_verification_keeps_what_precedes_the_first_failure() -> None:
    passed = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 0]]).bool()
    assert RejectionVerifier().count(passed).tolist() == [3, 1, 0, 0]


def test_block_verification_keeps_the_longest_prefix_that_passes() -> None:
    passed = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]]).bool()
    assert BlockVerifier().count(passed).tolist() == [3, 3, 2, 0]


# --- against plain Python -------------------------------------------------------------------


def rejection_by_hand(check: Check, row: int) -> list[float]:
    """min(1, target(x) / draft(x)) at each drafted token."""
    draft, target, tokens = _row(check, row)
    return [
        min(1.0, target[index][token] / draft[index][token]) for index, token in enumerate(tokens)
    ]


def block_by_hand(check: Check, row: int) -> tuple[list[float], list[list[float]]]:
    """Algorithm 2 of arXiv:2403.10444: the thresholds, and the residuals after each prefix."""
    draft, target, tokens = _row(check, row)
    weights = [1.0]
    for index, token in enumerate(tokens):
        weights.append(min(1.0, weights[-1] * target[index][token] / draft[index][token]))
    residuals = [
        [max(weights[index] * wanted - had, 0.0) for wanted, had in zip(*pair, strict=True)]
        for index, pair in enumerate(zip(target, draft, strict=False))
    ]
    thresholds: list[float] = []
    for length in range(1, len(tokens)):
        mass = sum(residuals[length])
        rest = mass + 1 - weights[length]
        thresholds.append(mass / rest if rest else 1.0)
    return [*thresholds, *weights[1:][-1:]], residuals


def _row(check: Check, row: int) -> tuple[list[list[float]], list[list[float]], list[int]]:
    length = int(check.num_drafted[row])
    assert check.draft_probs is not None
    return (
        check.draft_probs[row, :length].tolist(),
        check.target_probs[row].tolist(),
        check.draft_tokens[row, :length].tolist(),
    )


def in_float64(check: Check) -> Check:
    assert check.draft_probs is not None
    draft, target = check.draft_probs.double(), check.target_probs.double()
    return check._replace(
        draft_probs=draft / draft.sum(-1, keepdim=True),
        target_probs=target / target.sum(-1, keepdim=True),
    )


@few
@given(check=checks().map(in_float64))
def test_the_thresholds_are_those_of_the_papers(check: Check) -> None:
    gamma = check.draft_tokens.shape[1]
    token, block = (verifier.thresholds(check) for verifier in THRESHOLD_VERIFIERS)
    for row, length in enumerate(check.num_drafted.tolist()):
        beyond = [0.0] * (gamma - length)
        assert token[row].tolist() == pytest.approx([*rejection_by_hand(check, row), *beyond])
        # 0/0 is decided by rounding on either side: at such a prefix any threshold is exact.
        by_hand = block_by_hand(check, row)[0]
        for index, expected in enumerate([*by_hand, *beyond]):
            assert float(block[row, index]) == pytest.approx(expected, abs=1e-9) or (
                index < length - 1 and _is_a_tie(check, row, index + 1)
            )


def _is_a_tie(check: Check, row: int, length: int) -> bool:
    """Whether stopping after `length` tokens has a residual and a shortfall of rounding size."""
    draft, target, tokens = _row(check, row)
    weight = 1.0
    for index in range(length):
        token = tokens[index]
        weight = min(1.0, weight * target[index][token] / draft[index][token])
    excess = sum(
        max(weight * wanted - had, 0.0)
        for wanted, had in zip(target[length], draft[length], strict=True)
    )
    return excess + 1 - weight < 1e-12


@few
@given(check=checks().map(in_float64), seed=seeds)
def test_the_emitted_law_is_the_residual_or_the_target(check: Check, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    fraction = torch.rand(len(check.num_drafted), generator=generator)
    kept = (fraction * (check.num_drafted + 1)).long()
    token, block = (verifier.emitted_law(check, kept) for verifier in THRESHOLD_VERIFIERS)
    for row, (index, length) in enumerate(
        zip(kept.tolist(), check.num_drafted.tolist(), strict=True)
    ):
        draft, target, _ = _row(check, row)
        if index == length:
            assert token[row].tolist() == pytest.approx(target[index])
            assert block[row].tolist() == pytest.approx(target[index])
            continue
        pairs = zip(target[index], draft[index], strict=True)
        plain = [max(wanted - had, 0.0) for wanted, had in pairs]
        weighted = block_by_hand(check, row)[1][index]
        for law, residual in ((token[row], plain), (block[row], weighted)):
            mass = sum(residual)
            expected = [share / mass for share in residual] if mass else target[index]
            assert mass < 1e-12 or law.tolist() == pytest.approx(expected)


@by_threshold
def test_a_residual_without_mass_falls_back_to_the_target(verifier: ThresholdVerifier) -> None:
    """Rounding has left the draft's law above the target's everywhere, yet u is larger still."""
    check = one_check([[0.5 + 2**-20, 0.5]], [[0.5, 0.5], [1, 0]], [0])
    law = verifier.emitted_law(check, torch.tensor([0]))
    assert law.tolist() == [[0.5, 0.5]]
    accept = torch.full((1, 1), ALMOST_ONE, dtype=torch.float64)
    assert verifier.decide(check, accept, torch.tensor([0.7])).tokens.tolist() == [[1, PAD_TOKEN]]


def test_block_verification_saves_a_weak_token_for_the_sake_of_the_next() -> None:
    """The paper's section 2: target (1/3, 2/3), draft (2/3, 1/3), and the draft is "ab"."""
    check = one_check([[2 / 3, 1 / 3]] * 2, [[1 / 3, 2 / 3]] * 3, [0, 1])
    assert RejectionVerifier().thresholds(check).tolist() == [[0.5, 1.0]]
    # P_1 = 1/2 and P_2 = 1; the residual after one token has no mass.
    assert BlockVerifier().thresholds(check).tolist() == [[0.0, 1.0]]


# --- what must not matter -------------------------------------------------------------------


@by_name
@few
@given(check=checks(), seed=seeds, garbage=st.sampled_from([PAD_TOKEN, 0, 1, 10**6]))
def test_columns_beyond_the_draft_never_matter(
    name: str, check: Check, seed: int, garbage: int
) -> None:
    assert check.draft_probs is not None
    gamma = check.draft_tokens.shape[1]
    lengths = check.num_drafted.unsqueeze(1)
    beyond = torch.arange(gamma) >= lengths
    spoilt = check._replace(
        draft_tokens=check.draft_tokens.masked_fill(beyond, garbage),
        draft_probs=check.draft_probs.masked_fill(beyond.unsqueeze(-1), torch.nan),
        target_probs=check.target_probs.masked_fill(
            (torch.arange(gamma + 1) > lengths).unsqueeze(-1), torch.nan
        ),
    )
    for noise in noises(len(lengths), seed):
        verifier = verifier_named(name)
        assert agree(verifier.verify(check, noise), verifier.verify(spoilt, noise))


@by_name
@few
@given(check=checks(), seed=seeds)
def test_a_ragged_batch_equals_its_rows_one_at_a_time(name: str, check: Check, seed: int) -> None:
    verifier = verifier_named(name)
    batch = len(check.num_drafted)
    whole = verifier.verify(check, counter_noise(batch, seed))
    assert check.draft_probs is not None
    for row in range(batch):
        length = int(check.num_drafted[row])
        one = Check(
            check.draft_tokens[row : row + 1, :length],
            check.num_drafted[row : row + 1],
            check.draft_probs[row : row + 1, :length],
            check.target_probs[row : row + 1, : length + 1],
        )
        keys = NoiseKeys(torch.tensor([row + seed]), torch.tensor([0]))
        noise = CounterNoise(keys, torch.tensor([row + 3]), torch.tensor([row + 11]))
        alone = verifier.verify(one, noise)
        assert alone.num_accepted[0] == whole.num_accepted[row]
        assert alone.tokens[0].tolist() == whole.tokens[row, : length + 1].tolist()


@few
@given(check=checks(), seed=seeds)
def test_the_coupled_text_is_the_same_whatever_was_drafted(check: Check, seed: int) -> None:
    """Along the kept prefix the tokens are those of a check with nothing drafted."""
    verifier, noise = CoupledVerifier(), counter_noise(len(check.num_drafted), seed)
    verdict = verifier.verify(check, noise)
    for column in range(check.target_probs.shape[1]):
        plain = verifier.draw(check.target_probs[:, column], noise, column)
        reached = verdict.num_accepted >= column
        assert torch.equal(verdict.tokens[reached, column], plain[reached])


# --- the noise that each verifier takes -----------------------------------------------------


@by_threshold
@few
@given(check=checks(), seed=seeds)
def test_a_verdict_uses_the_uniforms_of_its_own_streams(
    verifier: ThresholdVerifier, check: Check, seed: int
) -> None:
    noise = counter_noise(len(check.num_drafted), seed)
    accept = noise.uniforms(Stream.ACCEPT, check.draft_tokens.shape[1])
    emit = noise.uniforms(Stream.EMIT, 1)[:, 0]
    assert agree(verifier.verify(check, noise), verifier.decide(check, accept, emit))


@by_threshold
@given(index=st.integers(0, 5), seed=seeds)
@few
def test_a_drafted_token_is_drawn_with_the_draft_streams_number_at_its_index(
    verifier: ThresholdVerifier, index: int, seed: int
) -> None:
    noise = counter_noise(3, seed)
    law = random_laws(3, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = draw(law, noise.uniforms(Stream.DRAFT, 6)[:, index])
    assert torch.equal(verifier.draw(law, noise, index), expected)


def test_a_race_is_won_by_the_smallest_quotient_and_ties_go_to_the_lowest_id() -> None:
    law = torch.tensor([[0.0, 0.25, 0.5, 0.25], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0]])
    ones = PointMassNoise(3, torch.device("cpu"))
    assert CoupledVerifier().draw(law, ones, 0).tolist() == [2, 1, 3]


# --- the register ---------------------------------------------------------------------------


@by_name
def test_a_verifier_is_found_by_its_name(name: str) -> None:
    verifier: Verifier = verifier_named(name)
    assert verifier.name == name
    assert verifier.needs_draft_probs == (name != "coupled")


def test_there_are_three_verifiers() -> None:
    assert sorted(VERIFIERS) == ["block", "coupled", "rejection"]


@pytest.mark.parametrize("name", ["", "Block", "greedy"])
def test_an_unknown_verifier_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"block, coupled, rejection") as caught:
        verifier_named(name)
    assert repr(name) in str(caught.value)


@by_name
def test_nothing_drafted_is_plain_decoding(name: str) -> None:
    target = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    nothing = torch.zeros(2, 0, dtype=torch.long)
    check = Check(nothing, torch.tensor([0, 0]), torch.zeros(2, 0, 2), target)
    verdict = verifier_named(name).verify(check, counter_noise(2, 0))
    assert verdict.tokens.tolist() == [[1], [0]]
    assert verdict.num_accepted.tolist() == [0, 0]
