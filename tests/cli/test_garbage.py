"""What a command has loaded is not looked through again while it decodes."""

from types import SimpleNamespace

import pytest

from draftsmith.cli import garbage
from tests.cli.outcome import Cli


def test_what_is_loaded_is_set_aside_once(
    cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    calls = {name: (lambda name=name: done.append(name)) for name in ("collect", "freeze")}
    monkeypatch.setattr(garbage, "gc", SimpleNamespace(**calls))
    garbage.set_aside.cache_clear()
    for _ in range(2):
        assert cli("generate", "the quick", "-m", tiny, "-n", "2").status == 0
    assert done == ["collect", "freeze"]
