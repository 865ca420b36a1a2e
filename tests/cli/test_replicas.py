"""`serve --replicas`: what is handed to Ray, and what is refused before it is asked."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from draftsmith.cli.runtime import ModelOptions
from draftsmith.engine.engine import Engine
from draftsmith.serve.settings import ServeSettings
from tests.cli.outcome import Cli

_find = importlib.util.find_spec


def _with_ray(monkeypatch: pytest.MonkeyPatch, *, is_there: bool) -> None:
    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        if name == "ray":
            return ModuleSpec("ray", None) if is_there else None
        return _find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_replicas_without_ray_say_what_to_install(
    cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_ray(monkeypatch, is_there=False)
    told = cli("serve", "-m", tiny, "--replicas", "2").refusal()
    assert "serve needs ray: pip install 'draftsmith[serve,replicas]'" in told


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--replicas 0", "--replicas must be 1 or more, got 0"),
        ("--min-replicas 2", "--min-replicas must be 1 to --replicas 1, got 2"),
        ("--replicas 2 --min-replicas 3", "--min-replicas must be 1 to --replicas 2, got 3"),
        ("--replicas 2 --min-replicas 0", "--min-replicas must be 1 to --replicas 2, got 0"),
        ("--replicas 2 --log-file here.log", "Ray keeps the logs"),
    ],
)
def test_replicas_that_cannot_be_are_refused(
    cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    _with_ray(monkeypatch, is_there=True)
    assert words in cli("serve", "-m", tiny, *line.split()).refusal()


@pytest.mark.parametrize(("given", "least"), [((), 3), (("--min-replicas", "2"), 2)])
def test_every_replica_loads_an_engine_with_its_share_of_the_cores(
    cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], least: int
) -> None:
    _with_ray(monkeypatch, is_there=True)
    monkeypatch.setattr("draftsmith.kernels.cpu.library.physical_cores", lambda: 12)
    threads: list[int | None] = []

    def load(models: ModelOptions, memory: object, max_batch_size: int) -> None:
        threads.append(models.runtime.threads)

    monkeypatch.setattr(ModelOptions, "load", load)
    found: dict[str, Any] = {}

    def serve_replicas(
        make: Callable[[], Engine],
        settings: ServeSettings,
        replicas: dict[str, Any],
        on_ready: Callable[[str], None],
    ) -> None:
        make()
        on_ready("http://127.0.0.1:1")
        found.update(replicas, name=settings.served_model_name)

    name = "draftsmith.serve.replicas.cluster"
    module: Any = SimpleNamespace(Replicas=dict, serve_replicas=serve_replicas)
    monkeypatch.setitem(sys.modules, name, module)
    run = cli("serve", "-m", tiny, "--replicas", "3", "--max-batch-size", "5", *given)
    assert run.status == 0, run
    assert "is ready at http://127.0.0.1:1/v1" in run.stderr
    assert (found["most"], found["least"], found["max_batch_size"]) == (3, least, 5)
    assert Path(found["name"]) == Path(tiny)
    assert threads == [4]
