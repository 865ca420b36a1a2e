"""What stands in `examples/serving/` is what the server has."""

import configparser
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests.serve import live

_FOLDER = Path(__file__).parents[2] / "examples" / "serving"
_NAME = re.compile(r"\bdraftsmith_\w+")


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    dashboard: dict[str, Any] = json.loads((_FOLDER / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [one["query"]["query"] for one in dashboard["templating"]["list"][1:]]
    with live.serving(live.engine(live.model_draft(), gamma="auto")) as server:
        for seed in range(3):
            server.chat(seed=seed, max_tokens=40)
        server.get("/nothing")
        text = server.get("/metrics").body
    samples = dict(re.findall(r"^(draftsmith_\w+)\{(.*?)\}", text, re.MULTILINE))
    names = {name for expr in asked for name in _NAME.findall(expr)}
    assert len(names) > 20
    # Where nothing was kept yet there is no position.
    assert names - {"draftsmith_spec_decode_num_accepted_tokens_per_pos_total"} <= set(samples)
    for expr in asked:
        for label in re.findall(r"by \((\w+)\)", expr):
            (name, *_) = _NAME.findall(expr)
            assert label == "position" or f"{label}=" in samples[name], expr
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in dashboard["panels"]]
    assert len(set(places)) == len(places)


def _help() -> str:
    command = [sys.executable, "-m", "draftsmith", "serve", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_files_name_options_that_there_are() -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", _help()))
    given = tomllib.loads((_FOLDER / "serve.toml").read_text(encoding="utf-8"))
    assert {f"--{name}" for name in given} <= known
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(_FOLDER / "draftsmith.service")
    command = shlex.split(unit["Service"]["ExecStart"])
    assert command[1:3] == ["serve", "--config"]
    assert float(unit["Service"]["TimeoutStopSec"]) > given["grace"]
    container = (_FOLDER / "Containerfile").read_text(encoding="utf-8")
    entry = json.loads(re.findall(r"^ENTRYPOINT (.*)$", container, re.MULTILINE)[0])
    assert {word for word in entry if word.startswith("--")} <= known


def test_the_container_s_build_copies_files_that_there_are() -> None:
    container = (_FOLDER / "Containerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.*)$", container, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (_FOLDER.parents[1] / source).exists(), source
