"""The noise is Philox, depends on its key alone, and has the laws that it claims (rung 3)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from draftsmith.audit import planted
from draftsmith.core import noise as noise_module
from draftsmith.core import verdict
from draftsmith.core.noise import (
    CounterNoise,
    NoiseKeys,
    PointMassNoise,
    Stream,
    _philox,  # pyright: ignore[reportPrivateUsage]  # the published vectors are for this function
    exponentials,
    uniforms,
)
from draftsmith.core.verify import Check, CoupledVerifier, RejectionVerifier, ThresholdVerifier
from tests.statistics import assert_law

few = settings(max_examples=60, deadline=None)
WORD = 0xFFFFFFFF
# Python's ints are unbounded; a seed of 64 bits is stored as two's complement.
seeds = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**63 - 1, 2**63, 2**64 - 1]))

# Random123's kat_vectors, the lines "philox4x32 10": counter, key, and the four words.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def keys_of(seeds: list[int], samples: list[int] | None = None) -> NoiseKeys:
    signed = [seed - 2**64 if seed >= 2**63 else seed for seed in seeds]
    return NoiseKeys(torch.tensor(signed), torch.tensor(samples or [0] * len(seeds)))


def words(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    block, second, stream, sample = counter
    keys = keys_of([key[1] << 32 | key[0]], [sample])
    result = _philox(
        keys, block=torch.tensor([[block]]), counter=torch.tensor([[second]]), stream=stream
    )
    return tuple(int(word) for word in result)


def philox_by_hand(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """The paper's figure 2 in Python's integers."""
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        one, two = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (two >> 32) ^ b ^ k0, two & WORD, (one >> 32) ^ d ^ k1, one & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return a, b, c, d


# --- Philox ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert words(counter, key) == expected
    assert philox_by_hand(counter, key) == expected


@few
@given(counter=st.tuples(*[st.integers(0, WORD)] * 4), key=st.tuples(*[st.integers(0, WORD)] * 2))
def test_philox_agrees_with_pythons_integers(
    counter: tuple[int, ...], key: tuple[int, ...]
) -> None:
    assert words(counter, key) == philox_by_hand(counter, key)


@few
@given(
    seed=seeds,
    sample=st.integers(0, WORD),
    counter=st.integers(0, 2**40),
    column=st.integers(0, WORD),
)
def test_a_uniform_is_53_bits_of_its_counter(
    seed: int, sample: int, counter: int, column: int
) -> None:
    drawn = uniforms(
        keys_of([seed], [sample]), Stream.EMIT, torch.tensor([counter]), torch.tensor([column])
    )
    one, two, _, _ = philox_by_hand(
        (column, counter & WORD, int(Stream.EMIT), sample), (seed & WORD, seed >> 32)
    )
    assert drawn.dtype == torch.float64
    assert drawn.item() == (one << 21 | two >> 11) / 2**53


@few
@given(seed=seeds, sample=st.integers(0, WORD), position=st.integers(0, 2**40))
def test_an_exponential_is_the_logarithm_of_32_bits_of_its_counter(
    seed: int, sample: int, position: int
) -> None:
    drawn = exponentials(keys_of([seed], [sample]), torch.tensor([position]), 7)[0]
    assert drawn.dtype == torch.float32
    bits = [
        word
        for block in range(2)
        for word in philox_by_hand(
            (block, position & WORD, int(Stream.COUPLED), sample), (seed & WORD, seed >> 32)
        )
    ]
    for value, word in zip(drawn.tolist(), bits, strict=False):
        fraction = (word + 0.5) / 2**32
        # Float32 holds the fraction to 2^-24; near 1 its logarithm is that much coarser.
        slack = 2.0**-23 * (fraction / (1 - fraction) + 1)
        exact = -math.log1p(-fraction)
        assert value == pytest.approx(exact, rel=1e-6, abs=slack) or word > WORD - 2**9


def with_words(monkeypatch: pytest.MonkeyPatch, word: int) -> None:
    """Let Philox return one word everywhere."""

    def constant(keys: NoiseKeys, *, block: Tensor, counter: Tensor, stream: int) -> list[Tensor]:
        return [torch.full_like(block + counter, word)] * 4

    monkeypatch.setattr(noise_module, "_philox", constant)


def test_the_largest_uniform_is_below_1_and_the_smallest_is_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = keys_of([0]), 0, torch.tensor([0]), torch.arange(1)
    with_words(monkeypatch, WORD)
    assert uniforms(*arguments).item() == 1 - 2.0**-53
    with_words(monkeypatch, 0)
    assert uniforms(*arguments).item() == 0


def test_the_extreme_exponentials_are_positive_and_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = keys_of([0]), torch.tensor([0]), 4
    with_words(monkeypatch, 0)
    assert exponentials(*arguments)[0].tolist() == pytest.approx([2.0**-33] * 4, rel=1e-6)
    with_words(monkeypatch, WORD)
    assert exponentials(*arguments)[0].tolist() == pytest.approx([24 * math.log(2)] * 4, rel=1e-6)


# --- a number depends on its key alone ------------------------------------------------------


@few
@given(
    rows=st.lists(
        st.tuples(seeds, st.integers(0, 9), st.integers(0, 2**33)), min_size=1, max_size=5
    ),
    data=st.data(),
)
def test_numbers_do_not_depend_on_the_batch(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    vocab = data.draw(st.integers(1, 40))
    seeds, samples, counters = (list(column) for column in zip(*rows, strict=True))
    keys, positions = keys_of(seeds, samples), torch.tensor(counters)
    columns = torch.arange(3)
    all_uniforms = uniforms(keys, Stream.ACCEPT, positions, columns)
    all_exponentials = exponentials(keys, positions, vocab)
    shuffled = NoiseKeys(keys.seeds[order], keys.samples[order])
    assert torch.equal(
        uniforms(shuffled, Stream.ACCEPT, positions[order], columns), all_uniforms[order]
    )
    assert torch.equal(exponentials(shuffled, positions[order], vocab), all_exponentials[order])
    for row, (seed, sample, counter) in enumerate(rows):
        alone, position = keys_of([seed], [sample]), torch.tensor([counter])
        assert torch.equal(uniforms(alone, Stream.ACCEPT, position, columns)[0], all_uniforms[row])
        assert torch.equal(exponentials(alone, position, vocab)[0], all_exponentials[row])


@pytest.mark.parametrize("vocab", [1, 3, 4, 5, 31, 1001, 49152, 100003])
def test_a_larger_vocabulary_extends_a_smaller_one(vocab: int) -> None:
    keys, positions = keys_of([1, 2**63, 7]), torch.tensor([5, 6, 7])
    small = exponentials(keys, positions, vocab)
    assert small.shape == (3, vocab)
    assert torch.equal(exponentials(keys, positions, vocab + 13)[:, :vocab], small)
    assert torch.equal(exponentials(keys_of([7]), positions[2:], vocab)[0], small[2])


@few
@given(seed=seeds)
def test_uniforms_are_in_the_half_open_interval(seed: int) -> None:
    drawn = uniforms(keys_of([seed]), Stream.DRAFT, torch.tensor([0]), torch.arange(200))
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    assert len(drawn.unique()) == 200


@few
@given(seed=seeds)
def test_exponentials_are_positive_and_finite(seed: int) -> None:
    drawn = exponentials(keys_of([seed]), torch.tensor([0]), 1000)
    assert (drawn > 0).all()
    assert drawn.isfinite().all()


@few
@given(
    seed=seeds, sample=st.integers(0, 9), counter=st.integers(0, 2**20), stream=st.integers(0, 3)
)
def test_each_part_of_the_key_changes_the_numbers(
    seed: int, sample: int, counter: int, stream: int
) -> None:
    def drawn(seed: int, sample: int, stream: int, counter: int) -> float:
        keys = keys_of([seed], [sample])
        return uniforms(keys, stream, torch.tensor([counter]), torch.arange(1)).item()

    def raced(seed: int, sample: int, position: int) -> list[float]:
        return exponentials(keys_of([seed], [sample]), torch.tensor([position]), 4)[0].tolist()

    one = drawn(seed, sample, stream, counter)
    assert one != drawn(seed ^ 1, sample, stream, counter)
    assert one != drawn(seed ^ 2**63, sample, stream, counter)
    assert one != drawn(seed ^ 2**32, sample, stream, counter)
    assert one != drawn(seed, sample + 1, stream, counter)
    assert one != drawn(seed, sample, stream + 1, counter)
    assert one != drawn(seed, sample, stream, counter + 1)
    many = raced(seed, sample, counter)
    assert many != raced(seed ^ 2**63, sample, counter)
    assert many != raced(seed, sample + 1, counter)
    assert many != raced(seed, sample, counter + 1)
    assert len(set(many)) == 4


# --- the noise of a round -------------------------------------------------------------------


def round_noise(
    rounds: int = 3, position: int = 10, level: int = 0, inner: int = 0
) -> CounterNoise:
    return CounterNoise(
        keys_of([5, 6]), torch.tensor([rounds, 9]), torch.tensor([position, 40]), level, inner
    )


def test_no_two_levels_inner_rounds_and_streams_share_a_number() -> None:
    drawn = [
        round_noise(level=level, inner=inner).uniforms(stream, 1)[0].item()
        for level in range(4)
        for inner in range(4)
        for stream in Stream
    ]
    assert len(set(drawn)) == len(drawn)


def test_the_target_and_its_drafters_rounds_count_their_streams_as_documented() -> None:
    """Seeded texts must not change between releases: 8 streams a level, 256 an inner round."""
    columns, rounds = torch.arange(2), torch.tensor([3, 9])
    expected = uniforms(keys_of([5, 6]), 3 * 256 + 2 * 8 + 1, rounds, columns)
    assert torch.equal(round_noise(level=2, inner=3).uniforms(Stream.ACCEPT, 2), expected)
    plain = uniforms(keys_of([5, 6]), 1, rounds, columns)
    assert torch.equal(round_noise().uniforms(Stream.ACCEPT, 2), plain)


def test_the_noise_of_a_round_is_the_targets_unless_told() -> None:
    keys, rounds = keys_of([5, 6]), torch.tensor([3, 9])
    default = CounterNoise(keys, rounds, rounds).uniforms(Stream.ACCEPT, 2)
    assert torch.equal(default, round_noise().uniforms(Stream.ACCEPT, 2))


def test_streams_keep_their_numbers() -> None:
    assert [(stream.name, int(stream)) for stream in Stream] == [
        ("DRAFT", 0),
        ("ACCEPT", 1),
        ("EMIT", 2),
        ("COUPLED", 3),
    ]


def test_uniforms_are_fresh_in_each_round_and_blind_to_the_position() -> None:
    one = round_noise(rounds=3).uniforms(Stream.ACCEPT, 4)
    assert one.shape == (2, 4)
    assert torch.equal(round_noise(rounds=3, position=11).uniforms(Stream.ACCEPT, 4), one)
    assert not torch.equal(round_noise(rounds=4).uniforms(Stream.ACCEPT, 4)[0], one[0])
    assert torch.equal(round_noise().uniforms(Stream.ACCEPT, 9)[:, :4], one)


def test_coupled_noise_belongs_to_the_position_and_not_to_the_round() -> None:
    one = round_noise(rounds=3, position=10).exponentials(0, 4, 6)
    assert one.shape == (2, 4, 6)
    other = round_noise(rounds=7, position=12, level=1, inner=2)
    assert torch.equal(other.exponentials(0, 2, 6)[0], one[0, 2:])
    assert torch.equal(other.exponentials(1, 1, 6)[0, 0], one[0, 3])
    direct = exponentials(keys_of([5, 6]), torch.tensor([13, 43]), 6)
    assert torch.equal(one[:, 3], direct)


def test_coupled_noise_is_remembered_for_each_vocabulary_and_index() -> None:
    noise = round_noise()
    first = noise.exponentials(0, 3, 6)
    assert torch.equal(noise.exponentials(0, 3, 6), first)
    assert torch.equal(noise.exponentials(2, 1, 6)[:, 0], first[:, 2])
    assert torch.equal(noise.exponentials(0, 3, 9)[:, :, :6], first)
    assert not torch.equal(first[:, 0], first[:, 1])


def test_coupled_noise_is_made_once_for_draft_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = round_noise()
    first = noise.exponentials(0, 2, 6)
    with_words(monkeypatch, 0)
    assert torch.equal(noise.exponentials(0, 2, 6), first)


def test_the_noise_of_point_masses_lets_the_only_token_win() -> None:
    noise = PointMassNoise(2, torch.device("cpu"))
    assert noise.uniforms(Stream.EMIT, 3).tolist() == [[0.0] * 3] * 2
    assert noise.uniforms(Stream.EMIT, 3).dtype == torch.float64
    assert noise.exponentials(4, 3, 5).tolist() == [[[1.0] * 5] * 3] * 2


# --- rung 3: laws ---------------------------------------------------------------------------

RATE = 1e-9
NUM_ROWS = 400_000


def many_keys(count: int, seed: int = 0) -> NoiseKeys:
    """One seed throughout: the rows differ by position or by round only."""
    return NoiseKeys(torch.full((count,), seed), torch.zeros(count, dtype=torch.long))


def many_rounds(count: int, seed: int = 0) -> CounterNoise:
    return CounterNoise(many_keys(count, seed), torch.arange(count), torch.arange(count))


def below(exponential: Tensor) -> Tensor:
    """The exponential's quantile, uniform on [0, 1)."""
    return -torch.expm1(-exponential.double())


def bins(values: Tensor, count: int) -> Tensor:
    return (values * count).long().clamp(max=count - 1)


def even(count: int) -> Tensor:
    return torch.full((count,), 1 / count)


@pytest.mark.statistical
def test_the_exponentials_have_their_law() -> None:
    drawn = exponentials(many_keys(4000), torch.arange(4000), 100).flatten()
    assert_law(bins(below(drawn), 16), even(16), false_fail_rate=RATE, detects=0.02)
    # Races are won near 0: the quantile's binary exponent is geometric.
    exponents = (-below(drawn).log2()).floor().long().clamp(max=12)
    law = torch.tensor([2.0 ** -(k + 1) for k in range(12)] + [2.0**-12])
    assert_law(exponents, law, false_fail_rate=RATE, detects=0.02)


@pytest.mark.statistical
@pytest.mark.parametrize("stream", list(Stream))
def test_the_uniforms_have_their_law(stream: Stream) -> None:
    drawn = many_rounds(NUM_ROWS).uniforms(stream, 1).flatten()
    assert_law(bins(drawn, 16), even(16), false_fail_rate=RATE, detects=0.02)


PAIRS = ["draft and accept", "accept and emit", "columns", "rounds", "token ids", "positions"]


@pytest.mark.statistical
@pytest.mark.parametrize("name", PAIRS)
def test_numbers_are_independent_of_each_other(name: str) -> None:
    noise = many_rounds(NUM_ROWS)
    accept = noise.uniforms(Stream.ACCEPT, 2)
    race = below(noise.exponentials(0, 1, 4)[:, 0])
    one, other = {
        "draft and accept": (noise.uniforms(Stream.DRAFT, 1)[:, 0], accept[:, 0]),
        "accept and emit": (accept[:, 0], noise.uniforms(Stream.EMIT, 1)[:, 0]),
        "columns": (accept[:, 0], accept[:, 1]),
        "rounds": (accept[:-1, 0], accept[1:, 0]),
        "token ids": (race[:, 0], race[:, 3]),
        "positions": (race[:-1, 0], race[1:, 0]),
    }[name]
    joint = bins(one, 4) * 4 + bins(other, 4)
    assert_law(joint, even(16), false_fail_rate=RATE, detects=0.02)


@pytest.mark.statistical
def test_a_race_over_8_tokens_follows_its_law() -> None:
    law = torch.tensor([0.4, 0.0, 0.3, 0.15, 0.1, 0.04, 0.0, 0.01])
    winners = CoupledVerifier().draw(law.expand(NUM_ROWS, -1), many_rounds(NUM_ROWS), 0)
    assert_law(winners, law, false_fail_rate=RATE, detects=0.02)
    assert not torch.isin(winners, torch.tensor([1, 6])).any()


@pytest.mark.statistical
def test_a_race_over_1000_tokens_with_a_heavy_tail_follows_its_law() -> None:
    """Zipf's law; the tail is binned by powers of two, so that each bin has mass."""
    law = 1 / torch.arange(1, 1001).double()
    law = (law / law.sum()).float()
    batches: list[Tensor] = []
    for start in range(0, 60_000, 10_000):
        positions = torch.arange(start, start + 10_000)
        race = exponentials(many_keys(10_000), positions, 1000) / law
        batches.append(race.argmin(-1))
    octave = (torch.arange(1000) + 1.5).log2().floor().long()
    binned = torch.zeros(10).index_add_(0, octave, law)
    assert_law(octave[torch.cat(batches)], binned, false_fail_rate=RATE, detects=0.06)


@pytest.mark.statistical
def test_a_draw_follows_its_law() -> None:
    law = torch.tensor([0.0, 0.35, 0.05, 0.0, 0.5, 0.1])
    drawn = many_rounds(NUM_ROWS).uniforms(Stream.EMIT, 1)[:, 0]
    tokens = verdict.draw(law.expand(NUM_ROWS, -1), drawn)
    assert_law(tokens, law, false_fail_rate=RATE, detects=0.02)


# --- teeth ----------------------------------------------------------------------------------

DRAFT = torch.tensor([0.6, 0.3, 0.1])
TARGET = torch.tensor([0.2, 0.3, 0.5])


class ReusesTheRace(CounterNoise):
    """A planted bug: acceptance takes the coupled noise that the draft was drawn with."""

    def uniforms(self, stream: int, count: int) -> Tensor:
        return below(self.exponentials(0, count, 3)[:, :, 0])


def first_tokens(
    verifier: ThresholdVerifier, noise: CounterNoise, drafter: ThresholdVerifier | CoupledVerifier
) -> Tensor:
    """The first token of many rounds that draft one token."""
    drafted = drafter.draw(DRAFT.expand(NUM_ROWS, -1), noise, 0)
    check = Check(
        drafted.unsqueeze(1),
        torch.ones(NUM_ROWS, dtype=torch.long),
        DRAFT.expand(NUM_ROWS, 1, -1),
        TARGET.expand(NUM_ROWS, 2, -1),
    )
    return verifier.verify(check, noise).tokens[:, 0]


@pytest.mark.statistical
@pytest.mark.parametrize("drafter", [RejectionVerifier(), CoupledVerifier()])
def test_rounds_with_their_own_streams_follow_the_target(
    drafter: RejectionVerifier | CoupledVerifier,
) -> None:
    tokens = first_tokens(RejectionVerifier(), many_rounds(NUM_ROWS), drafter)
    assert_law(tokens, TARGET, false_fail_rate=RATE, detects=0.02)


@pytest.mark.statistical
def test_a_draft_stream_reused_for_acceptance_is_caught() -> None:
    verifier = planted.SharedStreams(RejectionVerifier())
    tokens = first_tokens(verifier, many_rounds(NUM_ROWS), verifier)
    with pytest.raises(AssertionError, match="TV"):
        assert_law(tokens, TARGET, false_fail_rate=RATE, detects=0.02)


@pytest.mark.statistical
def test_coupled_noise_reused_for_acceptance_is_caught() -> None:
    count = NUM_ROWS
    noise = ReusesTheRace(many_keys(count), torch.arange(count), torch.arange(count))
    tokens = first_tokens(RejectionVerifier(), noise, CoupledVerifier())
    with pytest.raises(AssertionError, match="TV"):
        assert_law(tokens, TARGET, false_fail_rate=RATE, detects=0.02)


@pytest.mark.statistical
def test_numbers_that_are_not_independent_are_caught() -> None:
    drawn = many_rounds(NUM_ROWS).uniforms(Stream.DRAFT, 1)[:, 0]
    joint = bins(drawn, 4) * 4 + bins((drawn * 7) % 1, 4)
    with pytest.raises(AssertionError, match="TV"):
        assert_law(joint, even(16), false_fail_rate=RATE, detects=0.02)
