"""Wrong calls: each is refused in one line that names the argument, the value, the remedy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wrong_calls import CALLS


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, str]]:
    """What every call came to, all in one process without a type checker."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.wrong_calls"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    return json.loads(run.stdout)


@pytest.mark.xdist_group("wrong calls")
@pytest.mark.parametrize(("call", "said"), CALLS.items())
def test_a_wrong_call_is_refused_by_name(
    outcomes: dict[str, tuple[str, str]], call: str, said: str
) -> None:
    kind, message = outcomes[call]
    assert kind == "DraftsmithError", (kind, message)
    assert message.startswith(said), message
    assert "\n" not in message
    assert len(message) < 1200


def test_there_are_more_than_sixty_of_them() -> None:
    assert len(CALLS) > 100
