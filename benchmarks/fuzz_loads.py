"""Damaged checkpoints, each loaded whole: every one loads, or is refused with a line of ours.

Each mutant of a tiny GGUF file or folder is loaded in a process of its own, forked from one that
has imported everything, with limits on memory and time: the model, its tokenizer, and two tokens
of text. What is neither a load nor a `DraftsmithError` of one line (another exception, a crash, a
limit that was hit) is a fault, and is kept with the number that makes it again. The counts are
written after each part.

    nice python -m benchmarks.fuzz_loads [--mutants 5000] [--again PART:NUMBER]
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import environment, write_result
from benchmarks.fuzz_mutants import mutate_folder, mutate_gguf
from benchmarks.fuzz_seeds import write_folders, write_ggufs
from draftsmith import Engine, SamplingParams
from draftsmith.errors import DraftsmithError
from draftsmith.models.gguf.header import check_gguf
from draftsmith.models.hf.load import describe
from draftsmith.models.load import ModelSettings, load_model, load_tokenizer

_MEMORY_BYTES = 1 << 30
"""Beyond what the process has when it begins."""
_TIMEOUT_S = 60
_PER_PART = 250
_MOST_KEPT = 200
Mutate = Callable[[int, Path], tuple[str, Path]]
"""Makes a mutant by its number, in a folder; says how it was damaged, and where it lies."""


def main() -> None:
    """Run all mutants, or one again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutants", type=int, default=5000)
    parser.add_argument("--again", help="one mutant, such as gguf:17, with its traceback")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="draftsmith-fuzz-") as name:
        place = Path(name)
        kinds = {"gguf": _of_files(write_ggufs(place / "gguf"))}
        kinds["safetensors"] = _of_folders(write_folders(place / "safetensors"))
        _warm_up(place)
        if options.again:
            kind, _, number = options.again.partition(":")
            how, path = kinds[kind](int(number), place / "again")
            print(how, path, flush=True)
            _load(path)
            return
        _run(kinds, options.mutants, place)


def _run(kinds: dict[str, Mutate], num_mutants: int, place: Path) -> None:
    document: dict[str, Any] = {"environment": environment(), "parts": {}, "faults": []}
    document["limits"] = {"memory_bytes": _MEMORY_BYTES, "timeout_s": _TIMEOUT_S}
    started, done = time.monotonic(), 0
    for kind, mutate in kinds.items():
        part: dict[str, Any] = {"mutants": 0, "outcomes": Counter(), "damage": {}}
        document["parts"][kind] = part
        for number in range(num_mutants // len(kinds)):
            _try(kind, number, mutate, place, part, document["faults"])
            done += 1
            if done % _PER_PART == 0:
                left = (time.monotonic() - started) * (num_mutants - done) / done
                print(
                    f"{done} of {num_mutants}, {dict(part['outcomes'])}, {left / 60:.0f} min left"
                )
                write_result("fuzz_loads", document)
    document["seconds"] = round(time.monotonic() - started)
    print(write_result("fuzz_loads", document))


def _try(
    kind: str, number: int, mutate: Mutate, place: Path, part: dict[str, Any], faults: list[Any]
) -> None:
    folder = place / "mutant"
    how, path = mutate(number, folder)
    outcome, detail = _in_a_child(path)
    shutil.rmtree(folder)
    part["mutants"] += 1
    part["outcomes"][outcome] += 1
    damage = part["damage"].setdefault(how, Counter())
    damage[outcome] += 1
    if outcome == "fault":
        print(f"{kind}:{number} ({how}): {detail}", flush=True)
        if len(faults) < _MOST_KEPT:
            faults.append({"mutant": f"{kind}:{number}", "damage": how, "fault": detail})


# --- mutants ----------------------------------------------------------------------------------


def _of_files(seeds: list[Path]) -> Mutate:
    def mutate(number: int, folder: Path) -> tuple[str, Path]:
        folder.mkdir()
        how, data = mutate_gguf(
            seeds[number % len(seeds)].read_bytes(), random.Random(f"gguf {number}")
        )
        path = folder / "mutant.gguf"
        path.write_bytes(data)
        return how, path

    return mutate


def _of_folders(seeds: list[Path]) -> Mutate:
    def mutate(number: int, folder: Path) -> tuple[str, Path]:
        shutil.copytree(seeds[number % len(seeds)], folder)
        return mutate_folder(folder, random.Random(f"safetensors {number}")), folder

    return mutate


# --- loads ------------------------------------------------------------------------------------


def _load(path: Path) -> None:
    """All of a checkpoint, and a little text of it; raises what it raises."""
    reference = str(path) if path.is_file() else f"{path}/"
    failed: DraftsmithError | None = None
    with contextlib.suppress(DraftsmithError):  # what `models show` reads
        check_gguf(path) if path.is_file() else describe(reference)
    try:
        model = load_model(reference, ModelSettings(device="cpu"))
        params = SamplingParams(max_tokens=2, ignore_eos=True)
        Engine(model).generate([1, 2], params)
    except DraftsmithError as error:
        failed = error
    tokenizer = load_tokenizer(reference)
    tokenizer.decode(tokenizer.encode("the quick ab"))
    if failed is not None:
        raise failed


def _in_a_child(path: Path) -> tuple[str, str]:
    """How a load ended: loaded, refused or fault, and the fault in words."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _report(path, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return "fault", f"no end in {_TIMEOUT_S} s" if name == "SIGALRM" else f"killed by {name}"
    if not said:
        return "fault", f"ended with status {os.WEXITSTATUS(status)}"
    outcome, detail = json.loads(said)
    return outcome, detail


def _report(path: Path, writer: int) -> None:
    """In the child: load, tell, end."""
    found = ["fault", ""]
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + _MEMORY_BYTES, own + _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(_TIMEOUT_S)
        found = _outcome(path)
    finally:
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(found).encode())
        os._exit(0)


def _outcome(path: Path) -> list[str]:
    try:
        _load(path)
    except DraftsmithError as error:
        line = str(error)
        is_line = "\n" not in line and 0 < len(line) < 1200
        return ["refused", ""] if is_line else ["fault", f"no line: {line[:300]!r}"]
    except BaseException as error:  # whatever it is, it is what we look for
        return ["fault", f"{type(error).__name__}: {error}"[:300]]
    return ["loaded", ""]


def _warm_up(place: Path) -> None:
    """Import all that a load imports, once; the seeds themselves must load."""
    for path in (*sorted((place / "gguf").iterdir()), *sorted((place / "safetensors").iterdir())):
        try:
            _load(path)
        except DraftsmithError as error:
            if "no tokenizer" not in str(error):
                sys.exit(f"the seed {path.name} does not load: {error}")


if __name__ == "__main__":
    main()
