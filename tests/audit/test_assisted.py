"""transformers' assisted generation: what is exact passes, what is not fails."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from draftsmith.audit.assisted import AssistedPair, certify_assisted, load_pair
from draftsmith.audit.law import Power
from draftsmith.errors import InvalidRequestError
from draftsmith.models.hf.load import wrap_model
from tests import tiny

PROMPTS = [[5, 6, 7, 5, 6], [20, 21, 22, 23]]
POWER = Power(detects=0.4, false_fail_rate=1e-6)


def pair(assistant: Any = None) -> AssistedPair:
    return AssistedPair(wrap_model(tiny.lively_model("llama")), assistant, PROMPTS)


def statuses(one: AssistedPair) -> list[str]:
    certificate = certify_assisted(one, "a pair", POWER, max_tokens=12)
    *tested, faults = certificate.records
    assert faults.name == "assisted-faults"
    return [record.status for record in tested]


@pytest.mark.long
def test_a_model_that_assists_itself_or_a_twin_is_exact() -> None:
    target = tiny.lively_model("llama")
    assert statuses(pair(tiny.near_twin(target, 0.1))) == ["pass", "pass"]


def test_prompt_lookup_is_exact() -> None:
    assert statuses(pair()) == ["pass", "pass"]


def test_a_biased_acceptance_fails_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every drafted token is kept, whatever the target says."""
    from transformers.generation import utils

    def keep_all(ids, logits, length, new_logits, *rest, **options):
        bonus = new_logits[:, -1].softmax(-1).multinomial(1)
        return torch.cat([ids[:, -length:], bonus], dim=-1), torch.tensor(length)

    monkeypatch.setattr(utils, "_speculative_sampling", keep_all)
    assert statuses(pair(tiny.near_twin(tiny.lively_model("llama"), 0.5))) == ["pass", "fail"]


def test_a_pair_is_loaded_as_transformers_does(tmp_path: Path) -> None:
    folder = str(tiny.save_checkpoint(tmp_path / "one"))
    twin = str(tiny.save_checkpoint(tmp_path / "two", seed=1))
    loaded = load_pair(folder, twin, ["the fox", [{"role": "user", "content": "jumps"}]])
    assert loaded.assistant is not None
    assert loaded.raw.dtype == torch.float32
    assert all(loaded.prompts)
    with pytest.raises(InvalidRequestError, match="needs a native decoder"):
        load_pair(folder, twin, ["the fox"], "int8")


@pytest.fixture(autouse=True)
def _their_warnings():
    """What transformers warns of in its own assistant is not ours to fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_texts_in_which_nothing_was_drafted_are_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

    def nothing(self, input_ids, *args, **kwargs):
        return input_ids, None

    monkeypatch.setattr(PromptLookupCandidateGenerator, "get_candidates", nothing)
    one = pair()
    certificate = certify_assisted(one, "a pair", POWER, max_tokens=6)
    assert [record.status for record in certificate.records[:2]] == ["untested", "untested"]
    assert not any(one.checked)
    assert "nothing was drafted in 2 of 2 texts" in certificate.verdict


def test_assisted_drafts_are_seen_by_the_width_of_the_passes() -> None:
    target = tiny.lively_model("llama")
    one = pair(tiny.near_twin(target, 0.1))
    one.generate(PROMPTS[0], {"max_new_tokens": 6, "do_sample": False}, is_assisted=True)
    one.generate(PROMPTS[0], {"max_new_tokens": 6, "do_sample": False}, is_assisted=False)
    assert one.checked == [True]
