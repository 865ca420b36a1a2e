"""Single stages on the kernels beside plain torch."""

import pytest
import torch
from torch.nn.functional import rms_norm as torch_rms_norm
from torch.nn.functional import silu

from draftsmith.kernels.cpu import pieces
from draftsmith.kernels.cpu.library import library

ON_CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(library() is None, reason="installed without the kernels")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [5, 32, 576])
def test_the_norm_is_torchs(width: int) -> None:
    states, weight = random(3, 2, width), random(width, seed=1)
    wanted = torch_rms_norm(states, (width,), weight, 1e-5)
    torch.testing.assert_close(pieces.rms_norm(states, weight, 1e-5), wanted)
    torch.testing.assert_close(pieces.rms_norm(states[:, 1:], weight, 1e-5), wanted[:, 1:])
    wide = pieces.rms_norm(states.double(), weight.double(), 1e-5)
    torch.testing.assert_close(wide.float(), wanted)


def test_the_activation_is_torchs() -> None:
    joined = random(4, 2 * 37)
    wanted = silu(joined[:, :37]) * joined[:, 37:]
    torch.testing.assert_close(pieces.swiglu(joined), wanted)
    torch.testing.assert_close(pieces.swiglu(joined.double()).float(), wanted)


def test_the_rotation_is_that_of_the_plain_twin() -> None:
    angles = random(3, 8)
    states = random(3, 2, 16)
    wanted = pieces.rotate(states.double(), angles.cos().double(), angles.sin().double())
    turned = pieces.rotate(states.clone(), angles.cos(), angles.sin())
    torch.testing.assert_close(turned, wanted.float())


@pytest.mark.parametrize("head_size", [8, 16, 40, 64])
def test_rows_gather_what_plain_attention_gathers(head_size: int) -> None:
    heads, kv_heads = 6, 2
    held = pieces.KeyValues(2, kv_heads, head_size)
    keys, values = random(400, kv_heads, head_size), random(400, kv_heads, head_size, seed=1)
    query = random(400, heads, head_size, seed=2)
    start = 0
    # The last steps write over rows that were dropped.
    for stop, kept in ((5, 5), (250, 250), (290, 260), (261, 261), (400, 400)):
        held.length = start
        held.reserve(stop - start)
        for layer in range(2):
            new = slice(start, stop)
            factor = layer + 1.0
            got = held.attend(layer, query[new], factor * keys[new], values[new])
            wanted = pieces.plain_attention(query[new], factor * keys[:stop], values[:stop])
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        start = kept
