"""Residual streams of the decoder of a GPU: the plain decoder's, and at no cost to the logits."""
# pyright: basic

import pytest
import torch
from torch import Tensor

from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.models.native.gpu import GpuDecoder
from tests.models.native.test_decoder import TOKENS
from tests.models.native.test_gpu import FAMILIES, fast_and_plain

EVERY = (0, 1, 2)


def streams(model: LanguageModel, boundaries: tuple[int, ...] = EVERY) -> list[Tensor]:
    """Of two rows in pieces, one of them rolled back on the way."""
    cache = model.open_cache()
    first, second = cache.add(), cache.add()
    found = [model.extend_with_states(cache, first, TOKENS[:9], boundaries)]
    batch = Rows([second, first], [TOKENS[:1], TOKENS[9:12]])
    _, states = model.forward_with_states(cache, batch, boundaries)
    found += [states[0, :1], states[1, :3]]
    cache.rollback(first, 10)
    batch = Rows([first, second], [TOKENS[10:12], TOKENS[1:5]])
    _, states = model.forward_with_states(cache, batch, boundaries)
    return [*found, states[0, :2], states[1, :4]]


@pytest.mark.parametrize("name", FAMILIES)
def test_streams_are_those_of_the_plain_decoder(name: str) -> None:
    fast, plain = fast_and_plain(name)
    assert (fast.num_boundaries, fast.hidden_size) == (plain.num_boundaries, plain.hidden_size)
    for one, other in zip(streams(fast), streams(plain), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_boundaries_come_in_the_order_in_which_they_are_asked_for() -> None:
    model = fast_and_plain("yarn")[0]
    for one, other in zip(streams(model, (2, 0, 2)), streams(model), strict=True):
        assert torch.equal(one, other[:, [2, 0, 2]])


def test_logits_keep_their_bits_beside_streams() -> None:
    model = fast_and_plain("qwen3, biases, tied")[0]
    batch = Rows([0, 1], [TOKENS[:4], TOKENS[5:7]])
    caches = [model.open_cache() for _ in range(2)]
    for cache in caches:
        assert [cache.add(), cache.add()] == [0, 1]
    logits, _ = model.forward_with_states(caches[0], batch, EVERY)
    alone = model.forward(caches[1], batch)
    assert torch.equal(logits[0], alone[0])
    assert torch.equal(logits[1, :2], alone[1, :2])


def test_a_long_pass_hands_out_the_streams_of_all_its_parts(monkeypatch) -> None:
    model = fast_and_plain("yarn")[0]
    batch = Rows([0, 1], [TOKENS[:30], TOKENS[5:25]])
    cache = model.open_cache()
    assert [cache.add(), cache.add()] == [0, 1]
    whole = model.forward_with_states(cache, batch, EVERY)
    long = model.extend_with_states(cache, cache.add(), TOKENS[:30], EVERY)
    monkeypatch.setattr("draftsmith.models.native.gpu.MOST_ROWS", 16)
    cache = model.open_cache()
    assert [cache.add(), cache.add()] == [0, 1]
    parts = model.forward_with_states(cache, batch, EVERY)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one[0], other[0])
        torch.testing.assert_close(one[1, :20], other[1, :20])
    in_parts = model.extend_with_states(cache, cache.add(), TOKENS[:30], EVERY)
    torch.testing.assert_close(in_parts, long)
    assert model.extend_with_states(cache, 0, [], EVERY).shape == (0, 3, model.hidden_size)


def test_nothing_is_kept_where_nobody_asks() -> None:
    model = fast_and_plain("yarn")[0]
    shape = model._bucket(1, 1, 1)
    found = model.runner.launch_once([0, 1, 0, 0], shape._replace(batch=1, width=1), True)
    assert found.states is None


def test_a_part_of_a_model_hands_out_nothing() -> None:
    whole = fast_and_plain("yarn")[0]
    whole_runner = whole.runner
    part = type(whole_runner)(whole.weights, whole.config)
    part.told = object()  # type: ignore[assignment]
    assert GpuDecoder(part, whole.config).num_boundaries == 0
