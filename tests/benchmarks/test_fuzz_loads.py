"""The fuzzer sees every way that a load can go wrong, and makes a mutant again by its number."""
# the tests stand in for what the fuzzer keeps to itself:
# pyright: basic

import ctypes
import faulthandler
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.fuzz_mutants import mutate_folder, mutate_gguf

from benchmarks import fuzz_loads
from draftsmith.errors import ModelFormatError
from tests import tiny
from tests.models.gguf.files import write_gguf


def _raises(error: BaseException) -> Callable[[Path], None]:
    def load(path: Path) -> None:
        raise error

    return load


def _crash(path: Path) -> None:
    faulthandler.disable()  # pytest's own, which would print
    ctypes.string_at(0)


def _hog(path: Path) -> None:
    parts: list[bytes] = []
    while True:
        parts.append(bytes(1 << 26))


@pytest.mark.parametrize(
    ("load", "outcome", "said"),
    [
        (lambda path: None, "loaded", ""),
        (_raises(ModelFormatError("bad.gguf is cut off")), "refused", ""),
        (_raises(ModelFormatError("two\nlines")), "fault", "no line: 'two\\nlines'"),
        (_raises(ModelFormatError("x" * 5000)), "fault", "no line: 'xxx"),
        (_raises(ZeroDivisionError("by zero")), "fault", "ZeroDivisionError: by zero"),
        (_raises(SystemExit(0)), "fault", "SystemExit"),
        (lambda path: os._exit(4), "fault", "ended with status 4"),
        (lambda path: time.sleep(60), "fault", "no end in 1 s"),
        (_crash, "fault", "killed by SIGSEGV"),
        (_hog, "fault", "MemoryError"),
    ],
)
def test_every_end_of_a_load_is_told(
    load: Callable[[Path], None], outcome: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_loads, "_load", load)
    monkeypatch.setattr(fuzz_loads, "_TIMEOUT_S", 1 if "1 s" in said else 60)
    found, detail = fuzz_loads._in_a_child(Path("mutant"))
    assert found == outcome
    assert detail.startswith(said)


def test_gguf_mutants_are_made_again_and_reach_the_block_count(tmp_path: Path) -> None:
    path = tmp_path / "seed.gguf"
    write_gguf(path, tiny.raw_model("llama"))
    data = path.read_bytes()
    place = data.index(b"llama.block_count") + len(b"llama.block_count") + 4
    hows: set[str] = set()
    counts: set[bytes] = set()
    for number in range(400):
        how, mutant = mutate_gguf(data, random.Random(f"gguf {number}"))
        assert (how, mutant) == mutate_gguf(data, random.Random(f"gguf {number}"))
        hows.add(how)
        if how == "sizes":
            counts.add(mutant[place : place + 4])
    assert hows == {"header bytes", "any bytes", "cut", "counts", "sizes"}
    assert len(counts) > 4


def test_folder_mutants_are_made_again(tmp_path: Path) -> None:
    seed = tiny.save_checkpoint(tmp_path / "seed")
    for number in range(40):
        found: list[tuple[str, dict[str, bytes]]] = []
        for name in ("one", "two"):
            copied = Path(shutil.copytree(seed, tmp_path / name))
            how = mutate_folder(copied, random.Random(f"safetensors {number}"))
            found.append((how, {path.name: path.read_bytes() for path in copied.iterdir()}))
            shutil.rmtree(copied)
        assert found[0] == found[1]
