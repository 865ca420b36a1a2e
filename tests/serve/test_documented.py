"""docs/serve.md lists every field of every request, and tests that there are."""

import re
from pathlib import Path

from draftsmith.serve.schemas.chat import ChatRequest
from draftsmith.serve.schemas.completions import CompletionRequest
from draftsmith.serve.schemas.responses import ResponseRequest

_HERE = Path(__file__).parent
_PAGE = (_HERE.parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
_TABLE = _PAGE.partition("<!-- fields -->")[2].partition("<!-- end -->")[0]
_ROWS = [line.split("|")[1:-1] for line in _TABLE.splitlines() if line.startswith("| `")]


def test_every_field_is_in_the_table_and_nothing_else() -> None:
    told = {name for row in _ROWS for name in re.findall(r"`(\w+)`", row[0])}
    known = {
        name
        for body in (ChatRequest, CompletionRequest, ResponseRequest)
        for name in body.model_fields
    }
    assert told == known


def test_every_test_that_is_named_is_there() -> None:
    named = {name for row in _ROWS for name in re.findall(r"`(test_\w+)`", row[4])}
    assert named
    assert all((_HERE / f"{name}.py").exists() for name in named), named
