"""Two documents side by side."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from draftsmith.bench.compare import compare
from draftsmith.bench.document import SCHEMA, VERSION, read_document
from draftsmith.bench.words import verdict
from draftsmith.errors import InvalidRequestError


def _arm(name: str, seconds: float, num_items: int = 3) -> dict[str, Any]:
    batches = [
        {"round": r, "items": [f"i/{n}"], "num_decode_tokens": 10, "decode_s": seconds * (n + 1)}
        for r in range(2)
        for n in range(num_items)
    ]
    return {
        "name": name,
        "draft": None if name == "plain" else "x",
        "statistics": {"num_drafted": 0 if name == "plain" else 40},
        "error": None,
        "is_identical": True,
        "is_promised_identical": True,
        "tokens_per_second": {"decode": 10 / seconds},
        "speedup": {"decode": {"median": 1.0 / seconds, "low": 0.9 / seconds, "high": 2.0}},
        "batches": batches,
    }


def _document(scale: float = 1.0, **environment: Any) -> dict[str, Any]:
    cell = {
        "workload": "w",
        "temperature": 0.0,
        "batch_size": 1,
        "arms": [_arm("plain", 1.0 * scale), _arm("x, gamma 4", 0.5 * scale)],
    }
    about = {"cpu": "c", "num_cpus": 2, "gpu": None, "versions": {"torch": "1"}}
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "is_complete": True,
        "environment": about | environment,
        "settings": {"target": "t", "gammas": [4]},
        "cells": [cell],
    }


def test_a_document_beside_itself_has_ratio_one_and_no_change() -> None:
    found = compare(_document(), _document())
    assert [pair.arm for pair in found.pairs] == ["plain", "x, gamma 4"]
    for pair in found.pairs:
        assert pair.ratio is not None
        assert pair.ratio.median == 1.0
        assert pair.ratio.interval == (1.0, 1.0)
    assert found.changes == {}
    assert found.warnings == []


def test_the_ratio_is_b_over_a() -> None:
    found = compare(_document(2.0), _document(1.0))
    assert [pair.ratio.median for pair in found.pairs if pair.ratio] == [2.0, 2.0]
    assert found.table().rows[0][2:5] == ["5.0", "10.0", "2.00 (2.00 to 2.00)"]


def test_arms_that_only_one_has_are_named_and_not_compared() -> None:
    ours, theirs = _document(), _document()
    ours["cells"][0]["arms"][1]["name"] = "old"
    found = compare(ours, theirs)
    assert len(found.pairs) == 1
    assert found.only_in_a == ["w, temperature 0, batch 1, old"]
    assert found.only_in_b == ["w, temperature 0, batch 1, x, gamma 4"]
    theirs["cells"][0]["workload"] = "v"
    with pytest.raises(InvalidRequestError, match="no arm in common"):
        compare(ours, theirs)


def test_only_prompts_that_both_ran_are_compared() -> None:
    ours, theirs = _document(), _document()
    theirs["cells"][0]["arms"][0] = _arm("plain", 1.0, num_items=1)
    (pair, _) = compare(ours, theirs).pairs
    assert pair.ratio is not None
    assert pair.ratio.median == 1.0
    assert pair.ratio.interval is None


def test_changes_are_named_and_other_machines_warned_of() -> None:
    after = _document(cpu="d", versions={"torch": "2", "numpy": "3"})
    after["settings"]["seed"] = 1
    after["is_complete"] = False
    found = compare(_document(), after)
    assert found.changes == {
        "cpu": ("c", "d"),
        "torch": ("1", "2"),
        "numpy": (None, "3"),
        "seed": (None, 1),
    }
    assert found.warnings[0].startswith("The machines differ: compare the speed-ups")
    assert found.warnings[1] == "B was not finished."
    same_machine = compare(_document(), _document(versions={"torch": "2"}))
    assert same_machine.warnings == []


def test_the_comparison_is_json() -> None:
    document = json.loads(json.dumps(compare(_document(), _document(2.0)).to_dict()))
    assert document["pairs"][0]["ratio"][0] == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a benchmark: give what draftsmith bench --json-file wrote"),
        (
            '{"schema": "draftsmith.passrate"}',
            "is not a benchmark: give what draftsmith bench --json-file wrote",
        ),
        (json.dumps({"schema": SCHEMA, "version": 0}), "has version 0 of the format, and this"),
        (json.dumps({"schema": SCHEMA}), "has version None of the format"),
    ],
)
def test_what_is_no_document_of_ours_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=said):
        read_document(path)
    with pytest.raises(InvalidRequestError, match="cannot be read: No such file"):
        read_document(tmp_path / "nowhere.json")


def test_the_verdict_names_the_fastest_and_doubts_what_may_be_chance() -> None:
    document = _document()
    assert "fastest is x, gamma 4, 2.00 (1.80 to 2.00) times plain decoding." in verdict(document)
    doubtful = copy.deepcopy(document)
    doubtful["cells"][0]["arms"][1]["speedup"]["decode"]["low"] = 0.9
    assert "which may be chance" in verdict(doubtful)
    slow = copy.deepcopy(document)
    slow["cells"][0]["arms"][1]["speedup"]["decode"]["median"] = 0.9
    assert "nothing beats plain decoding" in verdict(slow)
    broken = copy.deepcopy(document)
    broken["cells"][0]["arms"][1]["is_identical"] = False
    assert "1 arm gave another text than plain decoding, and should not" in verdict(broken)
    assert "token for token" in verdict(document)


def test_of_many_cells_the_verdict_is_one_sentence() -> None:
    document = _document()
    document["cells"] = [copy.deepcopy(document["cells"][0]) for _ in range(6)]
    document["cells"][2]["arms"][1]["speedup"]["decode"]["median"] = 0.5
    document["cells"][3]["arms"][1]["speedup"]["decode"]["median"] = 3.0
    document["cells"][3]["workload"] = "edit"
    said = verdict(document)
    assert said.startswith("The fastest arm beats plain decoding in 5 of 6 cells; most in edit,")
    assert "3.00 (1.80 to 2.00) times" in said
