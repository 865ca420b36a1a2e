"""A head within rounds that are graphs: the plain path's texts and counts, and plain decoding's.

Without a GPU the rounds run uncaptured, on the twins of the kernels.
"""
# pyright: basic

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
import torch

from draftsmith.drafters.heads import HeadDrafter
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.heads.gpu_head import GpuHead
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.engine.control.auto import AutoGamma
from draftsmith.engine.control.contract import Choice
from draftsmith.engine.engine import Engine
from draftsmith.engine.rounds.graphed import GraphedRounds
from draftsmith.errors import CacheFullError
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.read import read_folder
from tests.drafters.heads import kit
from tests.drafters.heads.bigrams import bigram_head
from tests.engine.test_graphed import GREEDY, PROMPTS, SAMPLED, results, told
from tests.kernels.gpu.device import DEVICE
from tests.models.native.test_decoder import MODELS, TOKENS, lively
from tests.models.native.test_gpu import fast_and_plain

LONG = replace(GREEDY, max_tokens=40)


@cache
def made() -> GpuDecoder:
    plain = fast_and_plain("qwen3, biases, tied")[0]
    return GpuDecoder.on_weights(plain.weights, plain.config, "target")


@cache
def texts() -> Sequence[Sequence[int]]:
    """What the target says by itself."""
    found = results(made(), None, 0, params=LONG, is_graphed=False)
    return [[*prompt, *one.token_ids] for prompt, one in zip(PROMPTS, found, strict=True)]


@pytest.fixture(name="target")
def _target() -> GpuDecoder:
    made().can_be_captured = True
    return made()


def drafter(num_ids: int | None = None) -> HeadDrafter:
    return HeadDrafter(GpuHead(*bigram_head(made(), texts(), num_ids), made()), "head")


@pytest.fixture(name="head")
def _head() -> HeadDrafter:
    return drafter()


def launches() -> mock._patch:
    return mock.patch.object(
        GraphedRounds, "_launch", autospec=True, side_effect=GraphedRounds._launch
    )


@pytest.mark.parametrize(("gamma", "batch"), [(1, 8), (4, 1), (4, 8), (3, 2)])
def test_texts_and_counts_are_those_of_the_plain_path(target, head, gamma, batch) -> None:
    with launches() as launch:
        found = results(target, head, gamma, batch)
    assert launch.called
    assert told(found) == told(results(target, head, gamma, batch, is_graphed=False))
    alone = results(target, None, 0, is_graphed=False)
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]
    assert any(0 < (one.statistics.alpha or 0) < 1 for one in found)


@pytest.mark.parametrize(("gamma", "batch"), [(3, 1), (4, 8)])
@pytest.mark.parametrize("sampling", SAMPLED, ids=str)
def test_seeded_texts_and_counts_are_those_of_the_plain_path(
    target, head, gamma, batch, sampling
) -> None:
    params = replace(GREEDY, seed=5, **sampling)
    with launches() as launch:
        found = results(target, head, gamma, batch, params)
    assert launch.called
    assert told(found) == told(results(target, head, gamma, batch, params, is_graphed=False))
    alone = results(target, None, 0, params=params, is_graphed=False)
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]


@pytest.mark.parametrize("sampling", [{}, SAMPLED[1]], ids=str)
def test_of_fewer_ids_it_drafts_what_the_twin_drafts_in_plain_torch(target, sampling) -> None:
    config, weights = bigram_head(target, texts(), 12)
    params = replace(GREEDY, seed=5, **sampling)
    found = results(target, HeadDrafter(GpuHead(config, weights, target)), 3, params=params)
    twin = HeadDrafter(EagleHead(config, weights, tables_of(target), target.device, None))
    assert told(found) == told(results(target, twin, 3, params=params, is_graphed=False))
    assert any(0 < (one.statistics.alpha or 0) < 1 for one in found)


@pytest.mark.parametrize("name", ["reduced", "fed-back-normed", "normed-residual"])
def test_the_drafts_themselves_are_those_of_plain_torch(target, name) -> None:
    """Of a head whose every draft hangs on all that it has read: right or wrong does not matter."""
    sizes = target.config.hidden_size, target.config.vocab_size
    config = kit.config(
        name,
        boundaries=(0, 1, 2),
        target_hidden_size=sizes[0],
        hidden_size=sizes[0],
        target_vocab_size=sizes[1],
        vocab_size=24 if name == "reduced" else sizes[1],
    )
    weights = kit.weights(config)
    twin = HeadDrafter(EagleHead(config, weights, tables_of(target), target.device, None))
    head = HeadDrafter(GpuHead(config, weights, target))
    params = replace(GREEDY, temperature=2.0, seed=5)
    traces = [
        [one.completions[0].trace for one in results(target, each, 4, 8, params, is_graphed=way)]
        for each, way in ((head, True), (twin, False))
    ]
    assert traces[0] == traces[1]


@pytest.mark.parametrize(("sampling", "kept"), [({}, 8192), (SAMPLED[1], 10)], ids=str)
def test_auto_changes_its_mind_between_graphs(target, head, sampling, kept, monkeypatch) -> None:
    """Any sequence of draft lengths gives the text; what rounds did not hand on is read again."""
    monkeypatch.setattr("draftsmith.engine.rounds.graphed._MOST_STATES", kept)
    params = replace(LONG, seed=5, **sampling)
    want = results(target, None, 0, params=params, is_graphed=False)
    engine = Engine(target, draft=head, gamma="auto")
    turn = iter([0, 4, 4, 2, 2, 1, 3, 0, 3, 3, *[0] * 20, 2, 1, 4, 0, 3] * 9)

    def choose(self: AutoGamma, samples) -> Choice:
        longest = next(turn)
        return Choice([min(longest, max(0, one.room - 1)) for one in samples])

    with (
        mock.patch.object(AutoGamma, "choose", choose),
        mock.patch.object(AutoGamma, "observe", return_value=None),
        launches() as launch,
    ):
        found = engine.generate(PROMPTS, params)
    assert {0, 1, 2, 3, 4} <= {call.args[5] for call in launch.call_args_list}
    assert [one.token_ids for one in found] == [one.token_ids for one in want]
    assert any(one.statistics.num_accepted for one in found)


def test_auto_learns_what_it_is_worth(target, head) -> None:
    want = results(target, None, 0, params=LONG, is_graphed=False)
    engine = Engine(target, draft=head, gamma="auto")
    for _ in range(3):
        found = engine.generate(PROMPTS, LONG)
        assert [one.token_ids for one in found] == [one.token_ids for one in want]
    ledger = engine.controller.ledger
    assert ledger is not None
    assert 0 < ledger.num_plain_rounds < ledger.num_rounds


def test_sequences_join_and_leave_between_rounds(target, head) -> None:
    engine = Engine(target, draft=head, gamma=3)
    streams = [
        engine.stream(prompt, replace(GREEDY, max_tokens=9 + 4 * k))
        for k, prompt in enumerate(PROMPTS)
    ]
    ids: list[list[int]] = [[], [], []]
    alive = dict(enumerate(streams))
    while alive:
        for k, stream in list(alive.items()):
            event = next(stream, None)
            if event is None:
                del alive[k]
            else:
                ids[k] += [token.token_id for token in event.tokens]
    for k, text in enumerate(texts()):
        assert ids[k] == text[len(PROMPTS[k]) :][: 9 + 4 * k]
    target.pool.check_integrity([])
    head.head.pool.check_integrity([])


@pytest.mark.parametrize(
    "params",
    [
        replace(GREEDY, stop_token_ids=(TOKENS[3],), ignore_eos=False),
        replace(GREEDY, max_tokens=1),
        replace(GREEDY, max_tokens=2),
        replace(GREEDY, repetition_penalty=1.3),
        replace(GREEDY, logprobs=2),
        replace(GREEDY, temperature=0.8, seed=5, verifier="rejection"),
    ],
    ids=["stop", "1 token", "2 tokens", "penalty", "logprobs", "rejection"],
)
def test_what_graphs_cannot_do_the_plain_path_does(target, head, params) -> None:
    found = results(target, head, 3, params=params)
    assert told(found) == told(results(target, head, 3, params=params, is_graphed=False))


def test_texts_go_up_to_the_context(target, head) -> None:
    params = replace(GREEDY, max_tokens=target.config.context_length - 60)
    with mock.patch("tests.engine.test_graphed.PROMPTS", [TOKENS[:60]]):
        found = results(target, head, 4, params=params)
        assert told(found) == told(results(target, head, 4, params=params, is_graphed=False))
    assert [len(one.token_ids) for one in found] == [params.max_tokens]


def test_who_makes_way_says_the_same_later(target, head) -> None:
    prompts = [[*text[:20], *text[:20]] for text in texts()]
    with mock.patch("tests.engine.test_graphed.PROMPTS", prompts):
        want = results(target, None, 0, params=LONG, is_graphed=False)
    engine = Engine(target, draft=head, gamma=3, cache_tokens=192)
    found = engine.generate(prompts, LONG)
    assert engine.cache_statistics().num_preemptions > 0
    assert [one.token_ids for one in found] == [one.token_ids for one in want]
    assert all(one.statistics.num_accepted for one in found)


def test_without_memory_for_its_rows_texts_are_plain(target, head) -> None:
    with mock.patch.object(head.head.pool, "take_pages", side_effect=CacheFullError("full")):
        found = results(target, head, 3)
    assert [one.token_ids for one in found] == [
        one.token_ids for one in results(target, None, 0, is_graphed=False)
    ]
    assert not any(one.statistics.num_drafted for one in found)


def test_an_error_that_is_kept_keeps_no_pages(target, head) -> None:
    engine = Engine(target, draft=head, gamma=3)
    free = target.pool.num_free_pages, head.head.pool.num_free_pages
    kept = None
    with mock.patch.object(GraphedRounds, "_launch", side_effect=KeyboardInterrupt):
        try:
            engine.generate(PROMPTS, GREEDY)
        except KeyboardInterrupt as error:
            kept = error
    assert kept is not None
    again = engine.generate(PROMPTS, GREEDY)
    assert told(again) == told(results(target, head, 3, is_graphed=False))
    del kept
    assert (target.pool.num_free_pages, head.head.pool.num_free_pages) == free


def test_a_round_reads_no_state_twice_while_a_batch_stays(target, head) -> None:
    engine = Engine(target, draft=head, gamma=3)
    with mock.patch.object(GpuDecoder, "forward_with_states", side_effect=AssertionError):
        [found] = engine.generate(PROMPTS[:1], LONG)
    assert found.token_ids == tuple(texts()[0][len(PROMPTS[0]) :])
    assert found.statistics.num_accepted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sampling", [{}, SAMPLED[1]], ids=str)
def test_in_bfloat16_texts_and_counts_are_the_same_in_any_company(sampling) -> None:
    """Bits of rows depend on nothing beside them: so neither do drafts."""
    kind, changes = MODELS["qwen3, biases, tied"]
    with TemporaryDirectory() as folder:
        lively(kind, **changes).save_pretrained(folder)
        config, weights = read_folder(Path(folder))
    model = GpuDecoder.from_weights(weights, config, DEVICE, torch.bfloat16)
    params = replace(LONG, seed=5, **sampling)
    want = Engine(model).generate(PROMPTS, params)
    said = [[*prompt, *one.token_ids] for prompt, one in zip(PROMPTS, want, strict=True)]
    head = HeadDrafter(GpuHead(*bigram_head(model, said), model), "head")
    found = [results(model, head, 3, batch, params) for batch in (1, 8)]
    found.append(results(model, head, 3, 8, params, is_graphed=False))
    assert all(told(one) == told(found[0]) for one in found)
    auto = Engine(model, draft=head, gamma="auto").generate(PROMPTS, params)
    for one in (*found, auto):
        assert [each.token_ids for each in one] == [each.token_ids for each in want]
    assert any(each.statistics.num_accepted for each in found[0])
