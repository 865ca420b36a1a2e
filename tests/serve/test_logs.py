"""What the log says of a request, and what it does not."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from draftsmith.serve.logs import JsonLines, log_to
from draftsmith.serve.settings import ServeSettings
from tests.serve import live

_PROMPT = "a secret of the quick brown fox"


def _logged(path: Path, settings: ServeSettings) -> tuple[str, list[dict[str, Any]]]:
    with log_to(path), live.serving(live.engine(gamma=3), settings) as server:
        assert server.complete(_PROMPT, seed=1, max_tokens=9, ignore_eos=True).status == 200
        assert server.complete(_PROMPT, stop="\x1b[31m", temprature=1).status == 400
    text = path.read_text(encoding="ascii")
    lines = [json.loads(line) for line in text.splitlines()]
    return text, [line for line in lines if line["event"] == "request"]


def test_a_request_is_a_line_of_numbers_without_its_text(tmp_path: Path) -> None:
    text, lines = _logged(tmp_path / "log", ServeSettings(port=0))
    assert "secret" not in text
    assert [line["status"] for line in lines] == [200, 400]
    first = lines[0]
    assert first["path"] == "/v1/completions"
    assert first["completion_tokens"] == 9
    assert first["finish_reasons"] == ["length"]
    assert first["id"].startswith("req_")
    assert "texts" not in first


def test_texts_are_logged_where_that_was_asked_for(tmp_path: Path) -> None:
    _, lines = _logged(tmp_path / "log", ServeSettings(port=0, log_prompts=True))
    assert lines[0]["prompts"] == [_PROMPT]
    assert isinstance(lines[0]["texts"][0], str)


def test_a_stream_that_cannot_be_written_to_loses_lines_and_counts_them() -> None:
    with Path("/dev/full").open("w", encoding="ascii") as full:
        handler = JsonLines(full)
        record = logging.LogRecord("draftsmith.serve", logging.INFO, "", 0, "x", None, None)
        for _ in range(3):
            handler.handle(record)
        assert handler.num_lost == 3
        with pytest.raises(OSError, match="No space left"):
            full.close()
