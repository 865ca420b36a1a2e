"""The sampling kernels beside the core: the same noise to the bit, the same laws to rounding."""

import random
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from draftsmith.core import verdict
from draftsmith.core.laws import History, SamplingLaw
from draftsmith.core.noise import (
    CounterNoise,
    NoiseKeys,
    Stream,
    _philox,  # pyright: ignore[reportPrivateUsage] - its words must be the kernel's, bit for bit
)
from draftsmith.core.params import SamplingParams
from draftsmith.core.sampling_table import LogitRows, points_of_rows, top_ids_of_rows
from draftsmith.kernels.cpu import library as cpu
from draftsmith.kernels.cpu import sampling

LOADED = cpu.library()
pytestmark = pytest.mark.skipif(LOADED is None, reason="installed without the kernels")
SETS = cpu.instruction_sets()
on_every_set = pytest.mark.parametrize("isa", SETS)
EMPTY = torch.empty(0, dtype=torch.long)
HISTORY = History(EMPTY, EMPTY)
ALMOST_ONE = 1 - 2.0**-53
RULES = [
    SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    for temperature, top_k, top_p, min_p in product(
        (1e-30, 0.7, 1.3), (0, 1, 3, 40), (1.0, 0.9, 0.3), (0.0, 0.1, 1.0)
    )
]


@pytest.fixture(autouse=True)
def use(request: pytest.FixtureRequest) -> None:
    if "isa" in request.fixturenames:
        cpu.set_instruction_set(request.getfixturevalue("isa"))


def logits(kind: str, rows: int, vocab: int, generator: torch.Generator) -> Tensor:
    scores = 3 * torch.randn(rows, vocab, generator=generator)
    if kind == "ties":
        return scores.round()
    if kind == "bans":
        return scores.masked_fill(torch.rand(scores.shape, generator=generator) < 0.5, -torch.inf)
    if kind == "zeros of both signs":
        return torch.randint(-1, 1, scores.shape, generator=generator) * 0.0
    if kind == "no law":
        scores[0, vocab // 2], scores[1, -1], scores[2] = torch.nan, torch.inf, -torch.inf
    return scores


KINDS = ("plain", "ties", "bans", "zeros of both signs", "no law")
COUNTS = (1, 2, 8, 40)
SIZES = (*range(1, 20), 31, 32, 33, 64, 100, 255, 256, 257, 300, 1000)


def cases(seed: int, rules: int) -> Iterator[tuple[Tensor, SamplingParams]]:
    """Every size with every kind of logits, each under some rules."""
    generator, chance = torch.Generator().manual_seed(seed), random.Random(seed)
    for vocab, kind in product(SIZES, KINDS):
        scores = logits(kind, 4, vocab, generator)
        yield from ((scores, params) for params in chance.sample(RULES, rules))


def laws_of(scores: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """The kernel's and the core's."""
    drafted = torch.zeros(len(scores) - 1, dtype=torch.long)
    ours, plain = sampling.sampling_law(params, ()), SamplingLaw(params, ())
    assert isinstance(ours, sampling.CpuSamplingLaw)
    return ours(scores, HISTORY, drafted), plain(scores, HISTORY, drafted)


def noises(
    seed: int, position: int, batch: int = 1
) -> tuple[sampling.CpuCounterNoise, CounterNoise]:
    keys = NoiseKeys(torch.arange(batch) * 2**40 + seed, torch.arange(batch) + 3)
    arguments = keys, torch.arange(batch) + 7, torch.arange(batch) * 2**33 + position
    ours = sampling.counter_noise(*arguments, 1, 5)
    assert isinstance(ours, sampling.CpuCounterNoise)
    return ours, CounterNoise(*arguments, 1, 5)


# --- laws -----------------------------------------------------------------------------------


@on_every_set
def test_laws_are_those_of_the_core(isa: str) -> None:
    for scores, params in cases(SETS.index(isa), 6):
        ours, plain = laws_of(scores, params)
        torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-37)
        assert torch.equal(ours > 0, plain > 0) or params.temperature < 1


@on_every_set
def test_cuts_through_ties_keep_the_lowest_ids(isa: str) -> None:
    scores = torch.zeros(1, 300)
    for top_k, top_p in ((7, 1.0), (0, 0.5), (40, 0.25), (299, 1.0)):
        params = SamplingParams(temperature=1.0, top_k=top_k, top_p=top_p)
        ours, plain = laws_of(scores, params)
        num_kept = int((plain > 0).sum())
        assert (ours[0, :num_kept] > 0).all()
        assert not ours[0, num_kept:].any()


@on_every_set
def test_points_are_those_of_the_core(isa: str) -> None:
    greedy = SamplingParams()
    for scores, _ in cases(10 + SETS.index(isa), 1):
        drafted = torch.zeros(3, dtype=torch.long)
        ours = sampling.sampling_law(greedy, ()).points(scores, HISTORY, drafted)
        assert torch.equal(ours, SamplingLaw(greedy, ()).points(scores, HISTORY, drafted))


def test_bans_and_penalties_come_before_the_kernels() -> None:
    history = History(torch.tensor([1, 2]), torch.tensor([3, 3]))
    drafted = torch.tensor([4, 5])
    params = SamplingParams(
        temperature=0.9,
        top_p=0.9,
        frequency_penalty=1.0,
        repetition_penalty=1.5,
        banned_token_ids=(0,),
        logit_bias={7: 2.0},
    )
    scores = torch.randn(3, 50)
    ours, plain = sampling.sampling_law(params, ()), SamplingLaw(params, ())
    torch.testing.assert_close(ours(scores, history, drafted), plain(scores, history, drafted))


def test_logits_without_rules_are_not_copied() -> None:
    scores = torch.randn(2, 9)
    plain = SamplingLaw(SamplingParams(top_k=3, temperature=1.0), ())
    assert plain.adjusted(scores, HISTORY, EMPTY.new_zeros(1)).data_ptr() == scores.data_ptr()


@on_every_set
def test_rows_that_lie_apart_or_are_short_of_precision_are_read_right(isa: str) -> None:
    wide = torch.randn(3, 2, 70)
    params = SamplingParams(temperature=0.8, top_p=0.8)
    for scores in (wide[:, 1], wide[:, 0, :65], wide[:, 0].bfloat16(), wide[0].T.contiguous().T):
        ours, plain = laws_of(scores, params)
        torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-37)


@on_every_set
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_large_vocabulary(isa: str, scale: float) -> None:
    scores = scale * torch.randn(2, 151936, generator=torch.Generator().manual_seed(1))
    for params in (
        SamplingParams(temperature=0.8, top_p=0.95),
        SamplingParams(temperature=0.8, top_k=50, min_p=0.1),
        SamplingParams(temperature=0.8, top_k=20000, top_p=0.9),
    ):
        ours, plain = laws_of(scores, params)
        # One token at the cut may go either way: a hundred thousand masses are summed there.
        assert (ours - plain).abs().sum(-1).max() < 2e-5
        assert ((ours > 0) != (plain > 0)).sum() <= 8
        assert torch.equal(ours.sum(-1).isclose(torch.ones(2), atol=1e-5), torch.ones(2) > 0)
    fast, core = noises(3, 11)
    full, _ = laws_of(scores, SamplingParams(temperature=0.8))
    for law in (ours, full):
        assert torch.equal(fast.race(1, law[None]), core.race(1, law[None]))


@on_every_set
def test_a_row_does_not_depend_on_other_rows_or_on_threads(isa: str) -> None:
    scores = torch.randn(5, 3000)
    fast, _ = noises(1, 2)
    for params in RULES[::7]:
        cpu.set_num_threads(2)
        together, _ = laws_of(scores, params)
        winners = fast.race(0, together[None])[0].tolist()
        cpu.set_num_threads(1)
        alone = torch.cat([laws_of(row[None], params)[0] for row in scores])
        assert torch.equal(together, alone)
        assert winners == [int(fast.race(i, row[None, None])) for i, row in enumerate(alone)]


# --- noise ----------------------------------------------------------------------------------


@on_every_set
@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 123456789012345])
def test_the_words_are_philox_bit_for_bit(isa: str, seed: int) -> None:
    assert LOADED is not None
    keys = NoiseKeys(torch.tensor([seed]), torch.tensor([5]))
    number, num_blocks = torch.tensor([2**32 - 1]), 37
    blocks = torch.arange(num_blocks).unsqueeze(0)
    plain = _philox(keys, block=blocks, counter=number.unsqueeze(1), stream=Stream.COUPLED)
    words = torch.empty(num_blocks, 4, dtype=torch.int32)
    pointers = [cpu.pointer(tensor) for tensor in (*keys, number)]
    LOADED.ds_philox(*pointers, 1, int(Stream.COUPLED), num_blocks, cpu.pointer(words))
    assert torch.equal(words.long() & 0xFFFFFFFF, torch.stack(plain, -1)[0])


@on_every_set
def test_uniforms_are_those_of_the_core(isa: str) -> None:
    ours, plain = noises(-9, 4, batch=3)
    for stream, count in product((Stream.ACCEPT, Stream.EMIT), (0, 1, 4, 33)):
        assert torch.equal(ours.uniforms(stream, count), plain.uniforms(stream, count))


def random_laws(rows: int, vocab: int, generator: torch.Generator) -> Tensor:
    """Zeros, ties, point masses, and now and then no mass."""
    counts = torch.randint(0, 4, (rows, vocab), generator=generator).float()
    counts *= torch.rand(rows, vocab, generator=generator) < torch.rand(
        rows, 1, generator=generator
    )
    return counts / counts.sum(-1, keepdim=True).clamp(min=1)


@on_every_set
def test_races_have_the_winners_of_the_core(isa: str) -> None:
    generator = torch.Generator().manual_seed(2)
    for number, vocab in enumerate(SIZES * 3):
        ours, plain = noises(number, 100 * number, batch=2)
        laws = random_laws(6, vocab, generator).view(2, 3, vocab)
        assert torch.equal(ours.race(number % 3, laws), plain.race(number % 3, laws))


@on_every_set
def test_arrivals_that_tie_go_to_the_lowest_id(isa: str) -> None:
    ours, plain = noises(8, 8)
    laws = torch.zeros(1, 1, 90)
    laws[..., [3, 70, 89]] = 1e-45  # all arrive at infinity, with those that never start
    assert ours.race(0, laws).tolist() == plain.race(0, laws).tolist() == [[0]]


@on_every_set
def test_draws_are_those_of_the_core(isa: str) -> None:
    assert LOADED is not None
    generator = torch.Generator().manual_seed(3)
    for vocab in SIZES * 2:
        laws = random_laws(6, vocab, generator)
        laws = laws[laws.sum(-1) > 0]
        drawn = torch.rand(len(laws), dtype=torch.float64, generator=generator)
        for uniforms in (drawn, torch.zeros_like(drawn), torch.full_like(drawn, ALMOST_ONE)):
            tokens = torch.empty(len(laws), dtype=torch.long)
            pointers = cpu.pointer(uniforms), cpu.pointer(tokens)
            LOADED.ds_draw(cpu.pointer(laws), *laws.shape, *pointers)
            assert torch.equal(tokens, verdict.draw(laws, uniforms))


@on_every_set
def test_a_noise_draws_at_its_own_uniform(isa: str) -> None:
    ours, plain = noises(6, 0, batch=4)
    laws = torch.rand(4, 500).softmax(-1)
    for column in range(3):
        drawn = ours.draw(Stream.DRAFT, column, laws)
        assert torch.equal(drawn, plain.draw(Stream.DRAFT, column, laws))


@on_every_set
def test_laws_without_mass_are_found(isa: str) -> None:
    generator = torch.Generator().manual_seed(4)
    for vocab in SIZES:
        laws = random_laws(8, vocab, generator)
        laws[0, -1], laws[1] = 1e-45, 0.0
        assert sampling.has_mass(laws).tolist() == (laws > 0).any(-1).tolist()


# --- what the kernels do not take -----------------------------------------------------------


def test_laws_in_double_go_to_the_core() -> None:
    ours, plain = noises(6, 0)
    laws = torch.rand(1, 2, 50).double()
    assert torch.equal(ours.race(0, laws), plain.race(0, laws))
    assert torch.equal(ours.draw(0, 1, laws[:, 0]), plain.draw(0, 1, laws[:, 0]))
    assert torch.equal(ours.exponentials(1, 2, 7), plain.exponentials(1, 2, 7))
    assert sampling.has_mass(laws[0]).tolist() == [True, True]


def test_without_the_library_everything_is_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "library", lambda: None)
    one = torch.tensor([1])
    assert isinstance(sampling.sampling_law(SamplingParams(), ()), SamplingLaw)
    assert isinstance(sampling.counter_noise(NoiseKeys(one, one), one, one), CounterNoise)
    assert sampling.has_mass(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).tolist() == [True, False]


@on_every_set
@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_ids_are_the_plain_ones(isa: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(len(kind))
    for vocab in SIZES:
        scores = logits(kind, 4, vocab, generator)
        # Rows where they lie: of two sequences, in an order of their own, beside what is no id.
        padded = torch.cat([scores, torch.full((4, 3), 99.0)], dim=1).view(2, 2, vocab + 3)
        rows = LogitRows(padded, [(1, 1), (0, 0), (1, 0)], vocab)
        for count in COUNTS:
            ours = sampling.top_ids(rows, count)
            assert torch.equal(ours, top_ids_of_rows(rows, count)), (vocab, count)
            points, ids = sampling.points_and_ids(rows, count)
            assert torch.equal(points, points_of_rows(rows)), (vocab, count)
            assert torch.equal(ids, ours)
            picked = rows.picked().nan_to_num(nan=-torch.inf)
            sorted_ids = picked.sort(dim=-1, descending=True, stable=True).indices
            assert torch.equal(ours, sorted_ids[:, :count]), (vocab, count)


def test_many_likeliest_ids_are_found_by_all_threads() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(1, 24, 50_000, generator=generator).round(decimals=2)
    rows = LogitRows(scores, [(0, place) for place in range(24)], 50_000)
    assert torch.equal(sampling.top_ids(rows, 8), top_ids_of_rows(rows, 8))
