# Triton has no types:
# pyright: basic
"""The kernels of products beside their torch twins; on a CPU through Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from draftsmith.kernels.gpu import plain
from draftsmith.kernels.gpu.products import Plan, Scratch, Stream, embed, plan_for, product
from tests.kernels.gpu.device import DEVICE

_PLANS = {
    "one program a tile": Plan(16, 64, 1, 4, 3),
    "three that share": Plan(16, 32, 3, 4, 3),
    "a last step that is not whole": Plan(32, 128, 1, 4, 3),
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE)


def _scratch() -> Scratch:
    return Scratch(DEVICE, 100_000, 1000)


@pytest.mark.parametrize("plan", _PLANS.values(), ids=_PLANS)
@pytest.mark.parametrize("rows", [1, 5, 17])
def test_a_product_is_its_twins(plan: Plan, rows: int) -> None:
    x, weight = _normal(rows, 192), _normal(40, 192, seed=1) / 8
    bias, before = _normal(40, seed=2), _normal(rows, 40, seed=3)
    norm = _normal(40, seed=4)
    tiles = -(-40 // plan.outputs)
    to = Stream(before.clone(), torch.empty_like(before), torch.empty(rows, tiles, device=DEVICE))
    product(
        x,
        weight,
        to.values,
        plan,
        bias=bias,
        residual=to.values,
        scale=0.5,
        norm=norm,
        to=to,
        scratch=_scratch(),
    )
    want = Stream(*(torch.empty_like(one) for one in to))
    options = {"bias": bias, "residual": before, "scale": 0.5, "norm": norm, "to": want}
    plain.product(x, weight, want.values, plan, **options)
    for one, other in zip(to, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gate", ["silu", "gelu"])
def test_a_gate_and_a_norm_are_their_twins(gate: str) -> None:
    values, norm = _normal(3, 96), _normal(96, seed=1)
    stream = plain.stream_of(values, norm, 16)
    weight, bias = _normal(2 * 24, 96, seed=2) / 8, _normal(2 * 24, seed=3)
    out = torch.full((3, 24), torch.nan, device=DEVICE)
    options = {"squares": stream.squares, "epsilon": 1e-5, "bias": bias, "gate": gate}
    plan, want = Plan(16, 32, 1, 4, 3), torch.empty_like(out)
    product(stream.weighted, weight, out, plan, **options)
    plain.product(stream.weighted, weight, want, plan, **options)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-5)
    root = torch.rsqrt(values.square().mean(1, keepdim=True) + 1e-5)
    plain.product(values * root * norm, weight, want, plan, bias=bias, gate=gate)
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)


def test_an_embedding_begins_a_stream_as_its_twin() -> None:
    tokens = torch.tensor([3, 0, 3], dtype=torch.int32, device=DEVICE)
    embedding, norm = _normal(5, 40), _normal(40, seed=1)
    to, want = (Stream(*(torch.empty(3, n, device=DEVICE) for n in (40, 40, 3))) for _ in range(2))
    embed(tokens, embedding, norm, to, 16, 2.0)
    plain.embed(tokens, embedding, norm, want, 16, 2.0)
    for one, other in zip(to, want, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("plan", _PLANS.values(), ids=_PLANS)
def test_a_row_has_the_same_bits_whatever_stands_beside_it(plan: Plan) -> None:
    x, weight = _normal(40, 192), _normal(40, 192, seed=1)
    found = []
    for rows, tile_rows in ((1, 16), (2, 16), (16, 16), (17, 16), (40, 32)):
        out = torch.empty(rows, 40, device=DEVICE)
        product(x[:rows].contiguous(), weight, out, plan, scratch=_scratch(), tile_rows=tile_rows)
        found.append(out[0])
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_plan_is_a_function_of_the_matrix_alone() -> None:
    for shape in ((2048, 1536), (1536, 8960), (151_936, 896), (576, 576), (49, 96)):
        plan = plan_for(*shape, is_gated=False)
        assert plan == plan_for(*shape, is_gated=False)
        assert plan.outputs >= 16
        assert plan.inputs >= 16
