"""Engines that share a process: with each other, with children, and with whoever writes to files.

What can end or hang a process runs in one of its own.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from draftsmith import Engine, SamplingParams
from draftsmith.errors import ModelFormatError
from draftsmith.kernels.cpu import library as cpu
from draftsmith.models.load import ModelSettings, load_model
from draftsmith.models.native.cpu import CpuDecoder
from tests import tiny

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="installed without the kernels")

PRELUDE = """
import faulthandler, os, resource, signal, sys, threading, time
import torch
from draftsmith import Engine, SamplingParams
from draftsmith.kernels.cpu import library as cpu
from draftsmith.models.load import ModelSettings, load_model

faulthandler.enable()
torch.set_num_threads(1)
folder = sys.argv[1]
def engine(threads):
    return Engine(load_model(folder, ModelSettings(device="cpu", dtype="int8", threads=threads)))
def text(engine, first=5, max_tokens=60):
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, temperature=0.8, seed=3)
    result = engine.generate([first, 6, 7], params)[0]
    assert result.error is None, result.error
    return result.token_ids
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("model"), tie_word_embeddings=False)


def run(program: str, *arguments: object, timeout: float = 120) -> str:
    """What a program prints that ends well, in time."""
    command = [sys.executable, "-c", PRELUDE + program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return done.stdout


def test_models_loaded_while_another_generates_do_not_touch_its_threads(folder: Path) -> None:
    """Its scratch is laid out for the threads that it runs on, whatever others ask for."""
    program = """
one = engine(1)
want, done, wrong = text(one), False, 0
def load():
    for count in (16, 1, 3, 8) * 3:
        engine(count)
        for count in (16, 1) * 400:
            cpu.set_num_threads(count)
loading = threading.Thread(target=load)
loading.start()
while loading.is_alive():
    wrong += text(one) != want
loading.join()
print(wrong, one.target.num_threads)
"""
    assert run(program, folder).split() == ["0", "1"]


def test_engines_of_all_sizes_run_side_by_side(folder: Path) -> None:
    program = """
sys.setswitchinterval(1e-4)
engines = [engine(count) for count in (1, 1, 2, 3)]
want = {first: text(engines[0], first, 16) for first in range(5, 9)}
wrong = []
def go(one):
    for first in (*range(5, 9),) * 2:
        if text(one, first, 16) != want[first]:
            wrong.append(first)
threads = [threading.Thread(target=go, args=(one,)) for one in (*engines, engines[2])]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(wrong), *(one.target.num_threads for one in engines))
"""
    assert run(program, folder).split() == ["0", "1", "1", "2", "3"]


def test_threads_that_cannot_be_made_are_done_without(folder: Path) -> None:
    program = """
want = text(engine(1), max_tokens=3)
with open("/proc/self/status") as status:
    size = next(int(line.split()[1]) for line in status if line.startswith("VmSize:"))
room = (size << 10) + (200 << 20)  # for some stacks, but not for a thousand
resource.setrlimit(resource.RLIMIT_AS, (room, room))
many = engine(1024)
assert text(many, max_tokens=3) == want
print(many.target.num_threads)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    assert run(program, folder).strip() == "1024"


@pytest.mark.long
def test_a_child_that_is_forked_in_the_middle_of_a_pass_generates(folder: Path) -> None:
    program = """
one, two = engine(2), engine(2)
want = text(two)
done = threading.Event()
def go():
    while not done.is_set():
        text(one)
busy = threading.Thread(target=go)
busy.start()
failed = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        os._exit(0 if text(two) == want else 3)
    end = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
        time.sleep(0.005)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        failed.append("hangs")
        break
    if ended[1]:
        failed.append(ended[1])
done.set()
busy.join()
assert text(one) == want
print(failed)
"""
    if not hasattr(__import__("os"), "fork"):
        pytest.skip("no fork")
    assert run(program, folder).strip() == "[]"


@pytest.mark.parametrize("change", ["replaced", "removed", "truncated", "written"])
def test_a_file_that_changes_under_an_engine_is_no_signal(change: str, tmp_path: Path) -> None:
    folder = tiny.save_checkpoint(tmp_path / "model", tie_word_embeddings=False)
    program = """
from pathlib import Path
from draftsmith import DraftsmithError
one = Engine(load_model(folder, ModelSettings(device="cpu")))
assert one.target.weights.embedding.is_in_file
want, path = text(one), Path(folder) / "model.safetensors"
if sys.argv[2] == "replaced":
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)
if sys.argv[2] == "removed":
    path.unlink()
if sys.argv[2] == "truncated":
    os.truncate(path, 64)
if sys.argv[2] == "written":
    size = path.stat().st_size
    path.write_bytes(bytes(size))
    os.utime(path, (1, 1))
try:
    print(text(one) == want)
except DraftsmithError as error:
    print(error)
"""
    said = run(program, folder, change)
    expected = {
        "truncated": "model.safetensors is truncated: it ends within tensor",
        "written": "model.safetensors was written to while its model was in use",
    }
    assert expected.get(change, "True") in said
    assert len(said.strip().splitlines()) == 1


def test_the_default_is_that_of_models_made_later(folder: Path) -> None:
    settings = ModelSettings(device="cpu")
    before, before_torch = cpu.num_threads(), torch.get_num_threads()
    try:
        cpu.set_num_threads(2)
        early = load_model(str(folder), settings)
        late = load_model(str(folder), ModelSettings(device="cpu", threads=3))
        cpu.set_num_threads(1)
        assert isinstance(early, CpuDecoder)
        assert isinstance(late, CpuDecoder)
        assert (early.num_threads, late.num_threads) == (2, 3)
    finally:
        cpu.set_num_threads(before)
        torch.set_num_threads(before_torch)


def test_threads_can_be_asked_for_here_and_for_now() -> None:
    outside = cpu.num_threads()
    with cpu.using_threads(3):
        assert (cpu.num_threads(), cpu.num_threads(2)) == (3, 3)
        with cpu.using_threads(4):
            assert cpu.num_threads(2) == 4
        assert cpu.num_threads() == 3
    assert (cpu.num_threads(), cpu.num_threads(2)) == (outside, 2)


def test_an_engine_says_that_its_file_has_changed(tmp_path: Path) -> None:
    folder = tiny.save_checkpoint(tmp_path / "model", tie_word_embeddings=False)
    engine = Engine(load_model(str(folder), ModelSettings(device="cpu")))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFormatError, match="is truncated"):
        engine.generate([5, 6, 7], SamplingParams(max_tokens=2))
