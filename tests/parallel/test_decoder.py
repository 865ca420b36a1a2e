"""A model over two processes on a CPU beside the same model in one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.rounds import graphed
from draftsmith.errors import InvalidRequestError, ParallelError
from draftsmith.models.contract import Rows
from draftsmith.models.native import gpu_parallel
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_parallel import load_on_ranks
from draftsmith.models.native.gpu_runner import GpuRunner
from draftsmith.models.native.read import read_folder
from draftsmith.parallel.group import Group
from draftsmith.parallel.processes import end_group, start_group
from tests.models.native.test_decoder import MODELS, TOKENS, lively
from tests.parallel.objects import off_by_one

pytestmark = pytest.mark.xdist_group("ranks")  # a process has one group of ranks

_CPU = torch.device("cpu")
_NAMES = ("llama, biases", "qwen3, biases, tied", "mistral")
_KINDS = {
    "greedy": SamplingParams(max_tokens=10, ignore_eos=True),
    "seeded": SamplingParams(max_tokens=10, ignore_eos=True, temperature=0.9, seed=4),
    "cut off": SamplingParams(
        max_tokens=10, ignore_eos=True, temperature=1.1, top_k=9, top_p=0.9, seed=8
    ),
}


@pytest.fixture(scope="module", autouse=True)
def no_group_left() -> Iterator[None]:
    yield
    end_group()


@pytest.fixture
def group() -> Group:
    """The one that runs, or a new one where a test has ended it: starting one takes seconds."""
    return start_group(2, _CPU)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in _NAMES:
        kind, changes = MODELS[name]
        found[name] = tmp_path_factory.mktemp("model")
        lively(kind, **changes).save_pretrained(found[name])
    return found


def alone(folder: Path) -> GpuDecoder:
    config, weights = read_folder(folder)
    return GpuDecoder.from_weights(weights, config, _CPU, torch.float32)


def over_ranks(folder: Path, group: Group, placement: str | None = "cut") -> GpuDecoder:
    return load_on_ranks(folder, folder.name, torch.float32, group, placement)  # type: ignore[arg-type]


def logits(model: GpuDecoder) -> list[Tensor]:
    """Of two rows in pieces, one of them rolled back on the way."""
    cache = model.open_cache()
    first, second = cache.add(), cache.add()
    model.extend(cache, first, TOKENS[:9])
    found = [model.forward(cache, Rows([second, first], [TOKENS[:1], TOKENS[9:12]]))]
    cache.rollback(first, 10)
    found.append(model.forward(cache, Rows([first, second], [TOKENS[10:12], TOKENS[1:5]])))
    return [found[0][0, :1], found[0][1, :3], found[1][0, :2], found[1][1, :4]]


@pytest.mark.parametrize("name", _NAMES)
def test_ranks_have_the_logits_of_one_process(
    name: str, group: Group, folders: dict[str, Path]
) -> None:
    one, ranks = alone(folders[name]), over_ranks(folders[name], group)
    for found, want in zip(logits(ranks), logits(one), strict=True):
        assert found.shape[-1] == one.traits.vocab_size
        # Float32 sums in another order.
        torch.testing.assert_close(found, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("placement", ["cut", "whole"])
@pytest.mark.parametrize("is_graphed", [False, True])
def test_texts_are_those_of_one_process_with_and_without_a_draft(
    is_graphed: bool, placement: str, group: Group, folders: dict[str, Path]
) -> None:
    folder = folders["qwen3, biases, tied"]
    plain = Engine(alone(folder))
    target, draft = over_ranks(folder, group), over_ranks(folder, group, placement)
    # On a CPU nothing is captured; the rounds are the same.
    target.can_be_captured = draft.can_be_captured = is_graphed
    engines = [
        Engine(target),
        Engine(target, draft=ModelDrafter(draft), gamma=3),
        Engine(target, draft=PromptLookupDrafter(), gamma=2),
    ]
    prompts = [TOKENS[:5], TOKENS[9:12]]
    for kind, params in _KINDS.items():
        want = [one.token_ids for one in plain.generate(prompts, params)]
        for place, engine in enumerate(engines):
            found = engine.generate(prompts, params)
            assert [one.token_ids for one in found] == want, (kind, place)
            if place == 1:
                assert all(one.statistics.alpha == 1 for one in found)


def test_a_draft_lies_where_its_passes_are_faster(
    group: Group, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for cut_s, whole_s, want in (
        (0.001, 0.002, "cut over 2 ranks: 1.00 ms a pass, 2.00 whole on each"),
        (0.003, 0.002, "whole on each of 2 ranks: 2.00 ms a pass, 3.00 cut"),
    ):
        times = iter((cut_s, whole_s))

        def next_time(runner: GpuRunner, times: Iterator[float] = times) -> float:
            del runner
            return next(times)

        monkeypatch.setattr(gpu_parallel, "pass_seconds", next_time)
        draft = over_ranks(folders["mistral"], group, None)
        assert draft.placed == want
        assert (draft.runner.config == draft.config) == (whole_s < cut_s)


def test_a_rank_that_comes_to_other_tokens_is_found_out(
    group: Group, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphed, "_AGREED", 2)
    target = over_ranks(folders["mistral"], group)
    target.can_be_captured = True
    assert group.orders is not None
    group.orders.make(off_by_one)
    with pytest.raises(ParallelError, match="rank 1 has come to other tokens than rank 0"):
        Engine(target).generate([TOKENS[:5]], SamplingParams(max_tokens=20, ignore_eos=True))
    # It is not run on.
    with pytest.raises(ParallelError, match="rank 1 has come to other tokens than rank 0: load"):
        Engine(target).generate([TOKENS[:5]], SamplingParams(max_tokens=1))


def test_a_model_that_so_many_ranks_cannot_share_is_refused(folders: dict[str, Path]) -> None:
    end_group()
    group = start_group(3, _CPU)
    with pytest.raises(InvalidRequestError, match="num_heads is 4, which 3 ranks cannot share"):
        over_ranks(folders["mistral"], group)
    # A draft is whole there.
    draft = over_ranks(folders["mistral"], group, None)
    assert draft.runner.whole == draft.runner.config
    end_group()
