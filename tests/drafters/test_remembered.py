"""The file of a memory: what comes back, and what is refused in one line."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from draftsmith.drafters import FreeDrafter
from draftsmith.drafters.contract import CheckedText
from draftsmith.drafters.memory import Bounds, Memory
from draftsmith.drafters.native_memory import NativeMemory, has_native
from draftsmith.drafters.plain_memory import PlainMemory
from draftsmith.drafters.remembered import Identity, identity_of, load_memory, save_memory
from draftsmith.errors import (
    DraftsmithError,
    InvalidRequestError,
    ModelFormatError,
    VocabularyMismatchError,
)
from tests.drafters.test_free import LONG, ask, view
from tests.engine.kit import target, text_model, text_tokenizer

WHO = Identity("a-model", 200, "digest")
SMALL = Bounds(tokens=50)


@pytest.fixture(params=["plain", "native"])
def empty(request: pytest.FixtureRequest) -> Callable[[], Memory]:
    """Makes memories of one twin."""
    if request.param == "plain":
        return lambda: PlainMemory(SMALL)
    if not has_native():
        pytest.skip("without the library")
    return lambda: NativeMemory(SMALL)


def taught() -> PlainMemory:
    memory = PlainMemory(SMALL)
    shared = memory.shared
    for start in range(6):
        shared.add([start, *LONG[start:]])
    assert shared.older is not None
    shared.table.note(1, 2, [3, 4])
    shared.table.note(-1, 5, list(range(8)))
    for _ in range(20):
        shared.odds.learn((1, 2, 3), is_right=False)
    return memory


def parts(memory: Memory) -> list[object]:
    return [one.tolist() for one in memory.contents()]


def test_what_was_saved_comes_back_to_either_twin(
    empty: Callable[[], Memory], tmp_path: Path
) -> None:
    memory, path, again = taught(), tmp_path / "memory", tmp_path / "again"
    save_memory(memory, path, WHO)
    found = empty()
    load_memory(found, path, WHO)
    assert parts(found) == parts(memory)
    drafted = found.open_text(()).propose(LONG[5:9], 4, 0.0, is_tree=False)
    assert drafted.tokens == LONG[9:13]
    save_memory(found, again, WHO)
    assert again.read_bytes() == path.read_bytes()
    again.unlink()
    assert os.listdir(tmp_path) == ["memory"]


def test_a_file_that_is_not_there_is_an_empty_memory(
    empty: Callable[[], Memory], tmp_path: Path
) -> None:
    found = empty()
    load_memory(found, tmp_path / "memory", WHO)
    assert parts(found) == parts(PlainMemory())


def one_line(error: pytest.ExceptionInfo[DraftsmithError], *words: str) -> None:
    told = str(error.value)
    assert "\n" not in told
    assert all(word in told for word in words), told


def test_another_models_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    save_memory(taught(), path, WHO)
    for other in (WHO._replace(digest="other"), Identity("another", 300, "other")):
        with pytest.raises(VocabularyMismatchError) as error:
            load_memory(PlainMemory(), path, other)
        one_line(error, str(path), "a-model", other.name, "name another file")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    save_memory(taught(), path, WHO)
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        found = PlainMemory()
        with pytest.raises(ModelFormatError) as error:
            load_memory(found, path, WHO)
        one_line(error, str(path), "not whole")
        assert parts(found) == parts(PlainMemory()), "nothing of it is taken"


def test_a_file_with_wrong_bytes_is_refused_or_was_padding(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    memory = taught()
    save_memory(memory, path, WHO)
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        found = PlainMemory(SMALL)
        try:
            load_memory(found, path, WHO)
        except (ModelFormatError, VocabularyMismatchError):
            continue
        assert parts(found) == parts(memory)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("newer", np.array([1, 200], dtype=np.int32)),
        ("older", np.array([-2], dtype=np.int32)),
        ("older", np.array([[1]], dtype=np.int32)),
        ("newer", np.zeros(70_000, dtype=np.int32)),
        ("pair_rows", np.array([[0] * 7 + [300]], dtype=np.int32)),
        ("pairs", np.array([1, 2, 3, 4], dtype=np.int64)),
        ("weights", np.array([1.0])),
        ("squares", np.zeros(150)),
        ("format", np.array(2)),
    ],
)
def test_what_no_memory_says_is_refused(tmp_path: Path, name: str, value: np.ndarray) -> None:
    path = tmp_path / "memory"
    memory = taught()
    save_memory(memory, path, WHO)
    with np.load(path) as arrays:
        parts = dict(arrays)
    if name == "squares":
        value = np.zeros_like(parts["squares"])
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **(parts | {name: value}))
    with pytest.raises(ModelFormatError) as error:
        load_memory(PlainMemory(), path, WHO)
    one_line(error, str(path), "name another file")


@pytest.mark.parametrize("content", [b"", b"GGUF\x03\0\0\0", b"hello\n" * 50])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "memory"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError) as error:
        load_memory(PlainMemory(), path, WHO)
    one_line(error, str(path), "is none, or not whole")
    with pytest.raises(ModelFormatError):
        load_memory(PlainMemory(), tmp_path, WHO)


def test_a_disk_that_fills_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memory"
    save_memory(taught(), path, WHO)
    before = path.read_bytes()

    def fills(file: object, **_: object) -> None:
        file.write(b"half")  # type: ignore
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fills)
    with pytest.raises(InvalidRequestError) as error:
        save_memory(PlainMemory(), path, WHO)
    one_line(error, str(path), "No space left on device")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["memory"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    drafter = FreeDrafter(tmp_path / "no" / "memory")
    with pytest.raises(InvalidRequestError) as before:
        drafter.meet(text_model(), None)
    one_line(before, "no folder", str(tmp_path / "no"))
    with pytest.raises(InvalidRequestError) as error:
        save_memory(taught(), tmp_path / "no" / "memory", WHO)
    one_line(error, "cannot be written", "No such file")


def test_a_file_is_bounded(tmp_path: Path) -> None:
    memory = PlainMemory()
    for start in range(0, 120_000, 4_000):
        memory.shared.add(range(start, start + 4_000))
    for token in range(33_000):
        memory.shared.table.note(token, token, range(token, token + 8))
    path = tmp_path / "memory"
    save_memory(memory, path, WHO._replace(vocab_size=2**31))
    assert path.stat().st_size < 4 << 20
    load_memory(PlainMemory(), path, WHO._replace(vocab_size=2**31))


def test_a_drafter_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    first = FreeDrafter(path)
    first.meet(text_model(), text_tokenizer())
    state = first.open()
    text = list(range(10, 40))
    ask(state, view(text, 4))
    state.learn([CheckedText(0, [text[-1]], [-1], [[7, 8]])])
    state.release(0)
    first.save()
    second = FreeDrafter(path)
    second.meet(text_model(), text_tokenizer())
    second.meet(text_model(), text_tokenizer())
    state = second.open()
    assert ask(state, view([3, *text[:6]], 4))[0].tokens == text[6:10]
    assert ask(state, view([3, text[-1]], 1, id=1))[0].tokens == [7]
    second.forget()
    assert ask(state, view([3, text[-1]], 1, id=2))[0].tokens == [7], "the file is known still"


def test_a_memory_belongs_to_one_target(tmp_path: Path) -> None:
    drafter = FreeDrafter(tmp_path / "memory")
    with pytest.raises(InvalidRequestError) as error:
        drafter.open()
    one_line(error, "memory", "load_engine")
    drafter.save()
    assert not os.listdir(tmp_path), "what belongs to nobody is not written"
    drafter.meet(text_model(), text_tokenizer())
    with pytest.raises(VocabularyMismatchError) as mismatch:
        drafter.meet(target("qwen2"), None)
    one_line(mismatch, "make another drafter")


def test_an_identity_is_of_name_size_and_words() -> None:
    one = identity_of(text_model(), text_tokenizer())
    assert one == identity_of(text_model(), text_tokenizer())
    others = {identity_of(text_model(), None), identity_of(target("llama"), None)}
    assert len({one, *others}) == 3
