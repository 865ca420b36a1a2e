"""Each known fault of assisted generation is found where it is, and ours has none of them."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import pytest
import torch

from draftsmith.audit import assisted_faults
from draftsmith.audit.assisted_faults import FAULTS, faults_record

TRIED = [fault for fault in FAULTS if fault.name != "scikit-learn"]


def test_the_record_names_every_fault_and_the_version() -> None:
    record = faults_record()
    assert record.status == "info"
    assert f"transformers {version('transformers')} has " in record.summary
    assert set(record.figures["faults"]) == {fault.name for fault in FAULTS}
    for fault in TRIED:
        assert record.figures["faults"][fault.name]["is_present"] is True, fault.name


def test_without_scikit_learn_its_fault_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assisted_faults.importlib.util, "find_spec", lambda _: None)
    (fault,) = (one for one in FAULTS if one.name == "scikit-learn")
    assert fault.probe().is_present is None


@pytest.mark.parametrize("name", ["guidance", "state", "filled-cache"])
def test_our_generation_in_its_place_has_no_fault(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from draftsmith.transformers import generate

    own: Any = assisted_faults._generate

    def ours(model: Any, **options: Any) -> Any:
        drafts = {"assistant_model", "prompt_lookup_num_tokens"} & options.keys()
        return own(model, **options, **({"custom_generate": generate} if drafts else {}))

    monkeypatch.setattr(assisted_faults, "_generate", ours)
    (fault,) = (one for one in FAULTS if one.name == name)
    has_state = name != "filled-cache"
    with pytest.warns(UserWarning, match="may keep a state") if has_state else nullcontext():
        finding = fault.probe()
    assert finding.is_present is False, finding.detail
    assert torch.is_grad_enabled()
