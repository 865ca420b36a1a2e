"""Wrong calls: each is refused in one line that names the argument, the value, the remedy."""

import json
import subprocess
import sys
from pathlib import Path

from tests.wrong_calls import CALLS


def test_every_wrong_call_is_refused_by_name() -> None:
    """All in one process, and one test: it loads the models once, without a type checker."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.wrong_calls"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    outcomes: dict[str, tuple[str, str]] = json.loads(run.stdout)
    assert outcomes.keys() == CALLS.keys()
    for call, (kind, message) in outcomes.items():
        assert kind == "DraftsmithError", (call, kind, message)
        assert message.startswith(CALLS[call]), (call, message)
        assert "\n" not in message, call
        assert len(message) < 1200, call


def test_there_are_more_than_a_hundred_of_them() -> None:
    assert len(CALLS) > 100
