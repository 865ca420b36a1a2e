"""A model over two GPUs beside the same model on one."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.errors import ParallelError
from draftsmith.models.contract import Rows
from draftsmith.models.native.gpu import GpuDecoder
from draftsmith.models.native.gpu_parallel import load_on_ranks
from draftsmith.models.native.read import read_folder
from draftsmith.parallel.group import Group
from draftsmith.parallel.processes import end_group, start_group
from tests.models.native.test_decoder import MODELS, TOKENS, lively
from tests.parallel.objects import Tally

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
_PROMPTS = [TOKENS[:5], TOKENS[9:12], TOKENS[3:4]]
_KINDS = {
    "greedy": SamplingParams(max_tokens=24, ignore_eos=True),
    "cut off": SamplingParams(
        max_tokens=24, ignore_eos=True, temperature=1.1, top_k=9, top_p=0.9, seed=8
    ),
    "penalties": SamplingParams(
        max_tokens=24, ignore_eos=True, temperature=0.9, seed=3, frequency_penalty=0.5
    ),
}


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    yield start_group(2, torch.device("cuda"))
    end_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, changes = MODELS["qwen3, biases, tied"]
    path = tmp_path_factory.mktemp("model")
    lively(kind, **changes).save_pretrained(path)
    return path


def over_ranks(folder: Path, group: Group, dtype: torch.dtype = torch.float32) -> GpuDecoder:
    return load_on_ranks(folder, folder.name, dtype, group)


def test_texts_are_one_gpus_with_and_without_drafts(folder: Path, group: Group) -> None:
    config, weights = read_folder(folder)
    one = GpuDecoder.from_weights(weights, config, torch.device("cuda:0"), torch.float32)
    target, draft = over_ranks(folder, group), over_ranks(folder, group)
    whole = load_on_ranks(folder, folder.name, torch.float32, group, "whole")
    engines = {
        "plain": Engine(target),
        "a cut draft": Engine(target, draft=ModelDrafter(draft), gamma=3),
        "a whole draft": Engine(target, draft=ModelDrafter(whole), gamma="auto"),
        "prompt lookup": Engine(target, draft=PromptLookupDrafter(), gamma=2),
    }
    for kind, params in _KINDS.items():
        want = [x.token_ids for x in Engine(one).generate(_PROMPTS, params)]
        for name, engine in engines.items():
            found = [x.token_ids for x in engine.generate(_PROMPTS, params)]
            assert found == want, (kind, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tokens_logits_have_the_same_bits_in_every_pass(
    dtype: torch.dtype, folder: Path, group: Group
) -> None:
    model, ids = over_ranks(folder, group, dtype), TOKENS[:12]
    alone, beside, prompt = model.open_cache(), model.open_cache(), model.open_cache()
    row = alone.add()
    want = [model.forward(alone, Rows([row], [[token]]))[0, 0] for token in ids]
    other, row = beside.add(), beside.add()
    found = model.forward(beside, Rows([other, row], [TOKENS[20:25], ids]))[1]
    assert torch.equal(found, torch.stack(want))
    row = prompt.add()
    model.extend(prompt, row, ids[:-1])
    assert torch.equal(model.forward(prompt, Rows([row], [ids[-1:]]))[0, 0], want[-1])


def test_a_rank_that_is_killed_in_a_text_is_told_at_once(folder: Path, group: Group) -> None:
    assert group.orders is not None
    process = group.orders.ask(group.orders.make(Tally), "process")[1]
    engine = Engine(over_ranks(folder, group))
    params = SamplingParams(max_tokens=90, ignore_eos=True)
    events = engine.stream([_PROMPTS[0]], params)
    next(iter(events))
    os.kill(process, signal.SIGKILL)
    # A signal takes its time where a device must be given back, and a small model's rounds do not.
    until = time.monotonic() + 60
    while is_running(process) and time.monotonic() < until:
        time.sleep(0.05)
    # A library's collective would wait for minutes.
    with pytest.raises(ParallelError, match=r"rank 1.*SIGKILL"):
        engine.generate(_PROMPTS, params)


def is_running(process: int) -> bool:
    """Whether it is there, and more than its end that nobody has heard of yet."""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
