"""Prompts that the target invents: kept where they end, and the same after a kill."""

from pathlib import Path

import pytest

from draftsmith.api import load_engine
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.train import TimeLimit
from draftsmith.train.invented import invented
from draftsmith.train.options import TrainOptions
from tests import tiny
from tests.train.kit import save_easy_target

USER, BOT = 2, 3


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load_engine(str(save_easy_target(tmp_path_factory.mktemp("target"))))


def test_a_turn_is_kept_that_ends_and_is_new(engine: Engine, tmp_path: Path) -> None:
    words = engine.tokenizer
    assert words is not None
    found = invented(engine, 30, ["fox", "def"], 40, 5, tmp_path / "prompts.jsonl")
    assert len(found) > 10
    assert len({tuple(prompt) for prompt in found}) == len(found)
    for prompt in found:
        assert (prompt[0], prompt[-1]) == (USER, BOT)
        assert BOT not in prompt[1:-1]
        assert any(character.isalnum() for character in words.decode(prompt))
    for opening in ("fox", "def"):
        assert any(words.decode(prompt).startswith(opening) for prompt in found)


def test_a_cut_file_is_gone_on_with(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    whole = invented(engine, 20, [], 40, 5, path)
    written = path.read_text()
    path.write_text(written[: len(written) // 2])
    assert invented(engine, 20, [], 40, 5, path) == whole
    assert path.read_text() == written
    assert invented(engine, 20, [], 40, 6, tmp_path / "others.jsonl") != whole
    with pytest.raises(DraftsmithError, match="with another seed"):
        invented(engine, 20, [], 40, 6, path)


def test_the_time_ends_it_when_there_are_some(engine: Engine, tmp_path: Path) -> None:
    late = TimeLimit(1.0, iter([0.0, *[59.0] * 99]).__next__)
    found = invented(engine, 500, [], 40, 5, tmp_path / "prompts.jsonl", limit=late)
    assert 0 < len(found) < 100


def test_a_target_without_a_template_is_refused(tmp_path: Path) -> None:
    folder = tiny.save_checkpoint(tmp_path / "target")
    (folder / "chat_template.jinja").unlink()
    engine = load_engine(str(folder))
    with pytest.raises(DraftsmithError, match="chat template alone"):
        invented(engine, 4, [], 40, 5, tmp_path / "prompts.jsonl")


def test_greedy_texts_lie_evenly_among_the_others() -> None:
    options = TrainOptions(greedy_share=0.25)
    assert [options.temperature_of(number) for number in range(8)] == [0.8, 0.8, 0.8, 0.0] * 2
    assert {TrainOptions().temperature_of(number) for number in range(50)} == {0.8}
    assert {TrainOptions(greedy_share=1.0).temperature_of(n) for n in range(9)} == {0.0}
