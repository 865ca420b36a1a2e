"""Residual streams: those of transformers, in both decoders, with the same bits in any company."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.kernels.cpu import library as cpu
from draftsmith.models.contract import Rows
from draftsmith.models.native.decoder import TorchDecoder
from tests.models.native import test_decoder
from tests.models.native.test_cpu import TOKENS, difference, fast, plain
from tests.models.native.test_trees import BUSH
from tests.models.trees import way_to

needs_library = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")
FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "yarn"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    if cpu.library() is not None:
        cpu.set_num_threads(1)
    yield
    if cpu.library() is not None:
        cpu.set_num_threads(1)
        cpu.set_instruction_set(None)


def streams_of(model: Any, chunks: list[int], boundaries: list[int]) -> Tensor:
    """Streams of the first tokens, fed in chunks of these sizes; every second without logits."""
    cache = model.open_cache()
    row, at, parts = cache.add(), 0, []
    for number, size in enumerate(chunks):
        new = TOKENS[at : at + size]
        if number % 2:
            parts.append(model.extend_with_states(cache, row, new, boundaries))
        else:
            batch = Rows([row], [new])
            parts.append(model.forward_with_states(cache, batch, boundaries)[1][0])
        at += size
    return torch.cat(parts)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["plain", pytest.param("fast", marks=needs_library)])
def test_streams_are_those_of_transformers(name: str, kind: str) -> None:
    model = plain(name) if kind == "plain" else fast(name)
    assert model.num_boundaries == model.config.num_layers + 1
    assert model.hidden_size == model.config.hidden_size
    theirs = test_decoder.theirs(name).model
    with torch.inference_mode():
        found = theirs(torch.tensor([TOKENS[:40]]), output_hidden_states=True)
    every = list(range(model.num_boundaries))
    ours = streams_of(model, [40], every)
    for boundary in every[:-1]:
        assert difference(ours[:, boundary], found.hidden_states[boundary][0]) < 1e-4, boundary
    # Theirs is normed behind the last layer.
    with torch.inference_mode():
        normed = theirs.norm(ours[:, -1])
    assert difference(normed, found.last_hidden_state[0]) < 1e-4
    assert torch.equal(streams_of(model, [40], [1, 0, 1]), ours[:, [1, 0, 1]])


@pytest.mark.parametrize("name", [*FAMILIES, "qwen2, sliding in one layer", "capped"])
def test_whole_texts_have_the_streams_of_chunks(name: str) -> None:
    model = plain("llama" if name == "capped" else name)
    if name == "capped":
        scales = replace(model.config.scales, attention_cap=0.5)
        model = TorchDecoder(replace(model.config, scales=scales), model._weights, name)
    every = list(range(model.num_boundaries))
    texts = torch.tensor([TOKENS[:40], [*TOKENS[5:30], *[0] * 15]])
    found = model.states_of(texts, every)
    assert not found.is_inference()
    assert difference(found[0], streams_of(model, [20, 20], every)) < 1e-5
    assert difference(found[1, :25], model.states_of(texts[1:, :25], every)[0]) < 1e-5


@needs_library
@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize("format", [None, "Q8_0", "Q4_1"])
def test_streams_have_the_same_bits_in_every_pass(isa: str, format: str | None) -> None:
    cpu.set_instruction_set(isa)
    model = fast("wide qwen2", format)
    alone = streams_of(model, [1] * 30, [0, 1, 2])
    for threads in (1, 2, 3):
        model.num_threads = threads
        for chunks in ([30], [16, 14], [2, 3, 4, 5, 6, 7, 3]):
            assert torch.equal(streams_of(model, chunks, [0, 1, 2]), alone), (threads, chunks)


@needs_library
def test_logits_are_the_same_beside_streams_in_a_ragged_batch_with_a_tree() -> None:
    model = fast("wide qwen2", "Q8_0")
    caches = [model.open_cache(), model.open_cache()]
    for cache in caches:
        for length in (17, 3):
            model.extend(cache, cache.add(), TOKENS[:length])
    batch = Rows([0, 1], [BUSH.tokens, TOKENS[3:6]], [BUSH.parents, [-1, 0, 1]])
    logits, states = model.forward_with_states(caches[0], batch, [2, 0])
    expected = model.forward(caches[1], batch)
    assert torch.equal(logits[0], expected[0])
    assert torch.equal(logits[1, :3], expected[1, :3])
    assert torch.equal(states[1, :3], streams_of(model, [6], [2, 0])[3:])
    for index in range(len(BUSH.tokens)):
        cache = model.open_cache()
        way = [BUSH.tokens[i] for i in way_to(BUSH.parents, index)]
        alone = model.extend_with_states(cache, cache.add(), [*TOKENS[:17], *way], [2, 0])
        assert torch.equal(states[0, index], alone[-1]), index


@needs_library
def test_a_long_prompt_hands_out_the_streams_of_all_its_parts() -> None:
    model = fast("llama, roomy")
    tokens = [TOKENS[i % 97] for i in range(600)]  # more than one call of the kernels
    cache = model.open_cache()
    rows = [cache.add(), cache.add()]
    long = model.extend_with_states(cache, rows[0], tokens, [0, 2])
    batch = Rows(rows[1:], [tokens])
    assert torch.equal(model.forward_with_states(cache, batch, [0, 2])[1][0], long)
    # Several calls for several sequences.
    more = Rows(rows, [tokens[:300], tokens[:300]])
    both = model.forward_with_states(cache, more, [1])[1]
    assert torch.equal(both[0], both[1])
