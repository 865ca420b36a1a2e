"""Norm, rotary embedding, activation and attention beside plain torch."""

import ctypes
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from draftsmith.kernels.cpu import library as cpu

LOADED = cpu.library()
pytestmark = pytest.mark.skipif(LOADED is None, reason="installed without the kernels")
SETS = cpu.instruction_sets()


def close(ours: Tensor, theirs: Tensor, tolerance: float = 2e-6) -> bool:
    return float((ours.double() - theirs.double()).abs().max()) <= tolerance * max(
        1.0, float(theirs.abs().max())
    )


@pytest.mark.parametrize(("isa", "size"), [*product(SETS, (5, 16, 47, 64, 576))])
def test_the_norm(isa: str, size: int) -> None:
    assert LOADED is not None
    cpu.set_instruction_set(isa)
    x, weight, out = torch.randn(3, size), torch.randn(size), torch.empty(3, size)
    LOADED.ds_rms_norm(cpu.pointer(x), cpu.pointer(weight), 3, size, 1e-6, cpu.pointer(out))
    wide = x.double()
    assert close(out, weight * wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt())


@pytest.mark.parametrize(("isa", "half"), [*product(SETS, (1, 4, 16, 40, 64))])
def test_the_rotary_embedding(isa: str, half: int) -> None:
    assert LOADED is not None
    cpu.set_instruction_set(isa)
    x, angles = torch.randn(3, 2 * half), torch.randn(3, half)
    cosine, sine = angles.cos(), angles.sin()
    out = x.clone()
    LOADED.ds_rotate(cpu.pointer(out), cpu.pointer(cosine), cpu.pointer(sine), 3, 2 * half)
    one, two = x.chunk(2, -1)
    assert close(out, torch.cat((one * cosine - two * sine, two * cosine + one * sine), -1))


@pytest.mark.parametrize("isa", SETS)
def test_the_activation(isa: str) -> None:
    assert LOADED is not None
    cpu.set_instruction_set(isa)
    gate = torch.cat((torch.linspace(-120, 120, 997), torch.tensor([-0.0, 0.0, 1e-30])))
    up, out = torch.randn(1000), torch.empty(1000)
    LOADED.ds_swiglu(cpu.pointer(gate), cpu.pointer(up), 1000, cpu.pointer(out))
    assert close(out, silu(gate.double()) * up)


def attended(
    queries: Tensor, keys: Tensor, values: Tensor, spans: list[tuple[int, int]], is_half: bool
) -> Tensor:
    """The kernel's answer, over a cache that it wrote itself."""
    assert LOADED is not None
    dtype = torch.float16 if is_half else torch.float32
    length, size = keys.shape
    capacity, stride = -(-length // 16) * 16, -(-size // 16) * 16
    held_keys = torch.zeros(capacity // 16, size, 16, dtype=dtype)
    held_values = torch.zeros(capacity, stride, dtype=dtype)
    for position in range(length):
        key, value = keys[position].contiguous(), values[position].contiguous()
        LOADED.ds_store(
            *(cpu.pointer(key), cpu.pointer(value), size, stride, position, is_half),
            *(cpu.pointer(held_keys), cpu.pointer(held_values)),
        )
    first = (ctypes.c_int32 * len(spans))(*(span[0] for span in spans))
    last = (ctypes.c_int32 * len(spans))(*(span[1] for span in spans))
    out = torch.empty_like(queries)
    LOADED.ds_attend(
        *(cpu.pointer(queries), ctypes.addressof(first), ctypes.addressof(last), len(spans)),
        *(size, stride, size**-0.5, is_half, cpu.pointer(held_keys), cpu.pointer(held_values)),
        cpu.pointer(out),
    )
    return out


@pytest.mark.parametrize(
    ("isa", "size", "is_half"), [*product(SETS, (2, 8, 24, 64), (False, True))]
)
def test_attention(isa: str, size: int, is_half: bool) -> None:
    cpu.set_instruction_set(isa)
    spans = [(0, 1), (0, 16), (3, 17), (0, 61), (40, 61), (15, 33), (0, 60), (17, 18), (5, 61)]
    queries, keys, values = (torch.randn(n, size) for n in (len(spans), 61, 61))
    out = attended(queries, keys, values, spans, is_half)
    if is_half:
        keys, values = keys.half().float(), values.half().float()
    for query, (first, last), ours in zip(queries, spans, out, strict=True):
        scores = (keys[first:last] @ query).double() * size**-0.5
        assert close(ours, scores.softmax(-1) @ values[first:last].double(), 1e-5)


@pytest.mark.parametrize("isa", SETS)
def test_attention_does_not_depend_on_the_queries_beside_it(isa: str) -> None:
    cpu.set_instruction_set(isa)
    spans = [(0, 40 + i) for i in range(17)]
    queries, keys, values = (torch.randn(n, 24) for n in (17, 61, 61))
    together = attended(queries, keys, values, spans, True)
    for i, span in enumerate(spans):
        # Later keys are not even written when the query is alone.
        alone = attended(queries[i : i + 1], keys[: span[1]], values[: span[1]], [span], True)
        assert torch.equal(alone[0], together[i])
