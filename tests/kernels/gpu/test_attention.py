"""Attention over pages beside its torch twin; on a CPU through Triton's interpreter."""

from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.kernels.gpu import plain
from draftsmith.kernels.gpu.attention import PAGE, Heads, Pages, Parts, Places, attend
from tests.kernels.gpu.device import DEVICE

_HEAD, _HEADS, _KV_HEADS, _NUM_PAGES = 24, 4, 2, 12


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE)


def _pages() -> Pages:
    shape = (_NUM_PAGES, _KV_HEADS, PAGE, _HEAD)
    return Pages(_normal(*shape, seed=1), _normal(*shape, seed=2))


def _places(starts: list[int], widths: list[int], width: int) -> Places:
    # Pages of different sequences lie among each other.
    tables = [[5, 2, 7, 0], [1, 9, 3, 0], [4, 11, 10, 0]][: len(starts)]
    return Places(_ints(starts), _ints(widths), _ints(tables), width)


def _ints(numbers: list[Any]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


def _heads(*, has_norms: bool = False) -> Heads:
    angles = torch.arange(4 * PAGE).unsqueeze(1) * 0.8 ** torch.arange(_HEAD // 2)
    waves = angles.cos().to(DEVICE), angles.sin().to(DEVICE)
    if not has_norms:
        return Heads(*waves)
    return Heads(*waves, _normal(_HEAD, seed=5), _normal(_HEAD, seed=6), 1e-5)


def _attended(
    projected: Tensor,
    pages: Pages,
    places: Places,
    heads: Heads,
    num_parts: int = 3,
    window: int | None = None,
    cap: float | None = None,
) -> Tensor:
    rows = len(projected)
    shape = (num_parts, rows, _HEADS)
    nothing = torch.full((*shape, _HEAD), torch.nan, device=DEVICE)
    parts = Parts(nothing, torch.full((*shape, 2), torch.nan, device=DEVICE))
    attended = torch.full((rows, _HEADS, _HEAD), torch.nan, device=DEVICE)
    attend(
        projected,
        attended,
        pages,
        places,
        heads,
        parts,
        num_parts,
        scale=0.3,
        window=window,
        cap=cap,
    )
    return attended


@pytest.mark.parametrize(
    ("starts", "widths", "width"),
    [
        ([70], [1], 1),
        ([0, 63, 130], [3, 2, 1], 3),
        ([60, 120, 5], [11, 0, 9], 11),
        ([128, 64, 0], [1, 24, 1], 24),
    ],
    ids=["one row", "across pages", "padding and nothing", "a prompt"],
)
@pytest.mark.parametrize("options", [{}, {"window": 17}, {"cap": 2.0}], ids=["", "window", "cap"])
def test_attention_is_its_twins(
    starts: list[int], widths: list[int], width: int, options: dict[str, Any]
) -> None:
    pages, places = _pages(), _places(starts, widths, width)
    twins = Pages(pages.keys.clone(), pages.values.clone())
    projected = _normal(len(starts) * width, _HEADS + 2 * _KV_HEADS, _HEAD)
    heads = _heads(has_norms=not options)
    found = _attended(projected, pages, places, heads, **options)
    want = torch.empty_like(found)
    parts = Parts(torch.empty(0, 0, 0, 0), torch.empty(0, 0, 0, 2))
    plain.attend(projected, want, twins, places, heads, parts, 3, scale=0.3, **options)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pages.keys, twins.keys, rtol=1e-5, atol=1e-5)
    assert torch.equal(pages.values, twins.values)


def test_a_row_has_the_same_bits_whatever_stands_beside_it() -> None:
    projected = _normal(9, _HEADS + 2 * _KV_HEADS, _HEAD)
    alone, pages = [], _pages()
    for row in range(9):
        at = _places([60 + row], [1], 1)
        alone.append(_attended(projected[row : row + 1], pages, at, _heads(), num_parts=2)[0])
    together = _attended(projected, _pages(), _places([60], [9], 9), _heads(), num_parts=3)
    assert torch.equal(torch.stack(alone), together)
    twice = torch.cat((_normal(9, *projected.shape[1:], seed=9), projected))
    places = _places([3, 60], [2, 9], 9)
    places = places._replace(tables=places.tables.flip(0))
    beside = _attended(twice, _pages(), places, _heads(), num_parts=4)
    assert torch.equal(beside[9:], together)


def test_what_is_not_finite_reaches_those_who_see_it_and_no_others() -> None:
    projected = _normal(5, _HEADS + 2 * _KV_HEADS, _HEAD)
    want = _attended(projected, _pages(), _places([62], [5], 5), _heads())
    for bad in (torch.inf, torch.nan):
        poisoned = projected.clone()
        poisoned[2, _HEADS + _KV_HEADS + 1, 3] = bad  # a value of the second key head
        found = _attended(poisoned, _pages(), _places([62], [5], 5), _heads())
        assert torch.equal(found[:2], want[:2])
        assert torch.equal(found[:, :2], want[:, :2])
        assert found[2:, 2:].isnan().all()
    # What another sequence has left in a page is nobody's.
    pages = _pages()
    pages.values[5, :, 63:], pages.keys[5, :, 63:] = torch.nan, torch.nan
    found = _attended(projected[:1], pages, _places([62], [1], 1), _heads())
    assert torch.equal(found, want[:1])
