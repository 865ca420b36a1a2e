"""Ties: what a draft picks is what a check picks, the lowest id, at every size of vocabulary.

`torch.topk(x, k)` on a CPU keeps the first of tied values only from 64 k values on (seen in torch
2.13), so no token may be chosen by it; `argmax` and our kernel keep the first at every size.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import draftsmith
from draftsmith.core.laws import History, SamplingLaw, best_tokens, point_masses
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import ModelDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.hierarchical import SpeculativeDrafter
from draftsmith.kernels.cpu.sampling import sampling_law
from draftsmith.models.contract import Cache, CountedCache, LanguageModel, ModelTraits, Rows

SIZES = (2, 5, 31, 63, 64, 65, 127, 129, 1000, 32_768, 152_064)
NONE = torch.empty(0, dtype=torch.long)
READS_VALUES_OR_REPORTS = {
    "core/beam.py",  # the smallest value that is kept; ids are sorted stably
    "core/laws.py",  # thresholds and masses, no ids
    "core/sampling_table.py",  # what drafters learn; ties, at the cut too, by the lower id
    "engine/requests/traces.py",  # a report of alternatives
    "audit/attribution.py",  # a margin
    "audit/assisted.py",  # a threshold
}


def tied(size: int, seed: int, rows: int = 1) -> Tensor:
    """Scores of two values, the larger one rare enough to stand anywhere."""
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(rows, size, generator=generator) < 4 / size).float()
    scores[:, size - 1] = 1.0
    return scores


class Tied(LanguageModel):
    """Its logits are tied, and depend on the last token and the place."""

    uses_torch_threads = False

    def __init__(self, size: int) -> None:
        self.traits = ModelTraits(f"tied-{size}", size, (), None)
        self.device = torch.device("cpu")

    def open_cache(self) -> Cache:
        return CountedCache()

    def forward(self, cache: Cache, batch: Rows) -> Tensor:
        assert isinstance(cache, CountedCache)
        logits = torch.zeros(len(batch.rows), batch.width, self.traits.vocab_size)
        for index, (row, tokens) in enumerate(zip(batch.rows, batch.tokens, strict=True)):
            for place, token in enumerate(tokens):
                seed = 1000 * (cache.length(row) + place) + token
                logits[index, place] = tied(self.traits.vocab_size, seed)[0]
            cache.append(row, len(tokens))
        return logits

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        assert isinstance(cache, CountedCache)
        cache.append(row, len(tokens))

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        raise AssertionError("it has no encoder")


@pytest.mark.parametrize("size", SIZES)
def test_every_way_to_the_likeliest_token_takes_the_lowest_id(size: int) -> None:
    scores = tied(size, 0, rows=16)
    first = [line.index(1.0) for line in scores.tolist()]
    history = History(NONE, NONE)
    assert best_tokens(scores).tolist() == first
    assert point_masses(scores).argmax(-1).tolist() == first
    for options in ({}, {"temperature": 0.7, "top_k": 1}, {"temperature": 0.7, "top_p": 1e-9}):
        params = SamplingParams.from_options(**options)
        for law in (SamplingLaw(params, ()), sampling_law(params, ())):
            assert law(scores, history, NONE).argmax(-1).tolist() == first
            if params.is_greedy:
                assert law.points(scores, history, NONE).tolist() == first


@pytest.mark.parametrize("size", [5, 63, 64, 129, 32_768])
def test_a_draft_of_the_target_itself_is_kept_whole_where_all_is_tied(size: int) -> None:
    model = Tied(size)
    options = SamplingParams(max_tokens=12)
    plain = Engine(model).generate([1], options)[0]
    inner = SpeculativeDrafter(model, ModelDrafter(model), inner_gamma=2)
    for draft in (ModelDrafter(model), inner):
        found = Engine(model, draft=draft, gamma=3).generate([1], options)[0]
        assert found.token_ids == plain.token_ids
        assert found.statistics.num_accepted == found.statistics.num_tested > 0


def test_no_token_is_chosen_by_topk() -> None:
    source = Path(draftsmith.__file__).parent
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if re.search(r"\btopk\(", path.read_text())
    }
    assert found <= READS_VALUES_OR_REPORTS, "argmax, or topk's values alone"
