"""Torch's threads are still while a model with its own threads runs, and come back."""

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.threads import one_torch_thread
from draftsmith.models.contract import Cache, LanguageModel, Rows
from tests import tiny
from tests.wrapped import Wrapped


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


class Counting(Wrapped):
    """Notes with how many torch threads its passes run."""

    def __init__(self, model: LanguageModel, *, uses_torch_threads: bool) -> None:
        super().__init__(model)
        self.uses_torch_threads = uses_torch_threads
        self.seen: set[int] = set()

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        self.seen.add(torch.get_num_threads())
        return super().forward(cache, batch)


def ran_with(target: bool, draft: bool | None) -> set[int]:
    model = Counting(tiny.model("llama"), uses_torch_threads=target)
    helper = Counting(tiny.model("llama"), uses_torch_threads=bool(draft))
    drafter = PromptLookupDrafter() if draft is None else ModelDrafter(helper)
    Engine(model, None, drafter, gamma=2).generate([5, 6, 7], SamplingParams(max_tokens=4))
    assert torch.get_num_threads() == 2
    return model.seen | helper.seen


def test_a_model_with_threads_of_its_own_runs_beside_one_torch_thread() -> None:
    assert ran_with(target=False, draft=None) == {1}
    assert ran_with(target=False, draft=False) == {1}


def test_torch_keeps_its_threads_where_anything_needs_them() -> None:
    assert ran_with(target=True, draft=None) == {2}
    assert ran_with(target=False, draft=True) == {2}
    assert ran_with(target=True, draft=False) == {2}


def broken() -> None:
    with one_torch_thread(True):
        assert torch.get_num_threads() == 1
        raise RuntimeError("broken")


def test_the_threads_come_back_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="broken"):
        broken()
    assert torch.get_num_threads() == 2
