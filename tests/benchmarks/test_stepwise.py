"""A benchmark that was cut off goes on, and its committed JSON is what its defaults measure."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from benchmarks.common import RESULTS
from benchmarks.cpu import as_parts, read_options, steps_of
from benchmarks.cpu_report import goals
from benchmarks.stepwise import Kept, Step, outlook, run_steps

KEY = {"settings": {"threads": 2}, "commit": "abc"}


def steps(log: list[str], *, fails: str = "") -> list[Step]:
    """Three measurements that say when they run; one may be cut off."""

    def measure(name: str) -> dict[int, str]:
        if name == fails:
            raise KeyboardInterrupt
        log.append(name)
        return {1: name}

    return [Step(name, lambda name=name: measure(name)) for name in ("one", "two", "three")]


def test_a_run_that_was_cut_off_goes_on_and_gives_the_same(tmp_path: Path) -> None:
    path, log = tmp_path / "cpu.partial.json", []
    with pytest.raises(KeyboardInterrupt):
        run_steps(steps(log, fails="two"), Kept(path, KEY), {}, lambda line: None)
    said: list[str] = []
    kept = Kept(path, KEY)
    run_steps(steps(log), kept, {}, said.append)
    assert log == ["one", "two", "three"]
    assert said[0] == "one (1 of 3, kept from the run before)"
    whole = Kept(tmp_path / "other.json", KEY)
    run_steps(steps([]), whole, {}, lambda line: None)
    results = [{name: one["result"] for name, one in run.steps.items()} for run in (kept, whole)]
    assert results[0] == results[1] == {name: {"1": name} for name in ("one", "two", "three")}
    kept.close()
    assert not path.exists()


def test_each_step_is_on_the_disk_before_the_next_begins(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    seen: list[list[str]] = []

    def look() -> None:
        known = json.loads(path.read_text())["steps"] if path.exists() else {}
        seen.append(list(known))

    run_steps([Step(name, look) for name in "abc"], Kept(path, KEY), {}, lambda line: None)
    assert seen == [[], ["a"], ["a", "b"]]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": {}, "steps": {"one": 1}}'])
def test_a_file_of_another_run_or_a_damaged_one_is_begun_anew(text: str, tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text(text)
    assert Kept(path, KEY).steps == {}
    Kept(path, KEY).put("one", 1, 2.0, 0.0)
    assert Kept(path, KEY).steps["one"]["result"] == 1
    assert Kept(path, {**KEY, "commit": "other"}).steps == {}


def test_the_estimate_follows_the_pace_so_far(tmp_path: Path) -> None:
    kept, every = Kept(tmp_path / "kept.json", KEY), steps([])
    expected = {"one": 60.0, "two": 120.0, "three": 180.0}
    assert outlook(every, kept, expected) == "about 6 min left"
    kept.put("one", None, 120.0, 0.0)  # twice as slow as there
    assert outlook(every, kept, expected) == "about 10 min left"


def test_the_committed_json_was_measured_with_the_defaults() -> None:
    settings = json.loads((RESULTS / "cpu.json").read_text())["settings"]
    defaults = vars(read_options([]))
    for name in ("parts", "models", "threads", "rounds", "prompts", "new_tokens", "quick"):
        assert settings[name] == defaults[name], name


def test_the_goals_can_be_read_off_the_committed_json() -> None:
    document = json.loads((RESULTS / "cpu.json").read_text())
    found = {goal.name: goal.value for goal in goals(document["parts"])}
    wanted = {goal["name"]: goal["value"] for goal in document["goals"]}
    assert found.keys() == wanted.keys()
    assert all(math.isclose(found[name], wanted[name]) for name in wanted)


def test_every_step_has_its_place_in_the_result(tmp_path: Path) -> None:
    options, kept = read_options([]), Kept(tmp_path / "kept.json", KEY)
    every = steps_of(options)
    for step in every:
        kept.put(step.name, step.name, 1.0, 0.0)
    parts: dict[str, Any] = as_parts(options, kept)
    assert list(parts) == ["bandwidth", "rows", "decode", "prompt", "memory"]
    committed = json.loads((RESULTS / "cpu.json").read_text())["parts"]
    assert [one["target"] for one in parts["decode"]] == [
        one["target"] for one in committed["decode"]
    ]
    for ours, theirs in zip(parts["decode"], committed["decode"], strict=True):
        assert ours["workloads"].keys() == theirs["workloads"].keys()
    assert len(every) == 1 + 3 * 3 + sum(len(one["workloads"]) for one in committed["decode"])
