"""The race on a GPU beside the plain one."""

import torch
from torch import Tensor

from draftsmith.core.noise import CounterNoise, NoiseKeys
from draftsmith.kernels.gpu.noise import GpuCounterNoise, race
from tests.kernels.gpu.device import DEVICE

VOCAB = 5003  # two programs, and a last block that is not whole


def _noise(kind: type[CounterNoise]) -> CounterNoise:
    seeds = torch.tensor([7, -3, 2**40 + 1], device=DEVICE)
    samples = torch.tensor([0, 2, 1], device=DEVICE)
    positions = torch.tensor([11, 0, 40_000], device=DEVICE)
    return kind(NoiseKeys(seeds, samples), positions // 2, positions)


def _laws(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    laws = (2 * torch.randn(3, rows, VOCAB, generator=generator)).softmax(-1)
    laws[1, :, ::3] = 0.0
    return laws.to(DEVICE)


def test_winners_are_those_of_the_plain_race() -> None:
    found, want = _noise(GpuCounterNoise), _noise(CounterNoise)
    laws = _laws(8)
    for first in (0, 5):
        assert found.race(first, laws).tolist() == want.race(first, laws).tolist()


def test_a_law_without_mass_has_its_first_id_and_harms_no_other() -> None:
    laws = _laws(2)
    laws[1, 0] = 0.0
    found, want = _noise(GpuCounterNoise).race(0, laws), _noise(CounterNoise).race(0, laws)
    assert int(found[1, 0]) == 0
    found[1, 0] = want[1, 0] = 0
    assert found.tolist() == want.tolist()


def test_a_certain_token_wins() -> None:
    laws = torch.zeros(3, 2, VOCAB, device=DEVICE)
    certain = torch.tensor([[0, 5002], [4095, 4096], [17, 3]], device=DEVICE)
    laws.scatter_(-1, certain.unsqueeze(-1), 1.0)
    assert _noise(GpuCounterNoise).race(0, laws).tolist() == certain.tolist()


def test_the_other_numbers_are_the_plain_ones() -> None:
    found, want = _noise(GpuCounterNoise), _noise(CounterNoise)
    assert torch.equal(found.uniforms(1, 3), want.uniforms(1, 3))
    assert torch.equal(found.exponentials(2, 2, 9), want.exponentials(2, 2, 9))


def test_a_sequence_has_its_winner_in_any_batch() -> None:
    laws, noise = _laws(4), _noise(GpuCounterNoise)
    together = noise.race(0, laws)
    for one in range(3):
        keys = NoiseKeys(noise.keys.seeds[one : one + 1], noise.keys.samples[one : one + 1])
        at = noise.positions[one : one + 1]
        for row in range(4):
            alone = race(laws[one : one + 1, row : row + 1], keys, at + row)
            assert int(alone) == int(together[one, row])
