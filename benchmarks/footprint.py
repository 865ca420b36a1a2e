"""Peak memory and load time of a fresh process that loads a model and writes 64 tokens.

python -m benchmarks.footprint ours smollm2-135m-instruct --threads 2
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NUM_TOKENS = 64
PROMPT = "def fibonacci(n: int) -> int:\n"
_CONTEXT = 512  # llama.cpp reserves its cache at once, so it gets no more than is needed


def measure_footprint(name: str, *, threads: int, rounds: int) -> dict[str, Any]:
    """Ours and llama.cpp's, each in processes of its own, in turn."""
    from benchmarks.ours import gguf_path

    path = gguf_path(name)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "llama.cpp": []}
    for _ in range(rounds):
        for system, records in runs.items():
            records.append(_child(system, name, threads))
    file_bytes, cache_bytes = path.stat().st_size, _cache_bytes(path)
    peaks = {system: max(r["peak_bytes"] for r in records) for system, records in runs.items()}
    return {
        "model": name,
        "file_bytes": file_bytes,
        "cache_bytes": cache_bytes,
        "peak_bytes": peaks,
        "peak_over_file_and_cache": {
            system: round(peak / (file_bytes + cache_bytes), 3) for system, peak in peaks.items()
        },
        "runs": runs,
    }


def main() -> None:
    """Be the fresh process: print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=("ours", "llama.cpp"))
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    run = _run_ours if options.system == "ours" else _run_peer
    print(json.dumps(run(options.model, options.threads)))


def _child(system: str, name: str, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.footprint", system, name]
    done = subprocess.run(
        [*command, "--threads", str(threads)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _run_ours(name: str, threads: int) -> dict[str, Any]:
    start = time.perf_counter()
    from benchmarks.ours import OurConfig, Ours
    from draftsmith import SamplingParams

    imported, base = time.perf_counter(), _memory("VmRSS")
    ours = Ours(name, None, threads=threads)
    loaded = time.perf_counter()
    params = SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True)
    done = ours.complete(ours.encode(PROMPT), OurConfig("plain"), params)
    return {
        "import_s": imported - start,
        "load_s": loaded - imported,
        "load_to_first_token_s": loaded - imported + done.first_s,
        "num_tokens": len(done.token_ids),
        "base_bytes": base,
        "peak_bytes": _memory("VmHWM"),
    }


def _run_peer(name: str, threads: int) -> dict[str, Any]:
    start = time.perf_counter()
    from benchmarks.llamacpp import Peer, PeerConfig, load_xllamacpp
    from draftsmith.models.reference import local_path, resolve

    load_xllamacpp()
    path = local_path(resolve(name))
    assert path is not None
    imported, base = time.perf_counter(), _memory("VmRSS")
    with Peer(path, PeerConfig("plain"), threads=threads, context_length=_CONTEXT) as peer:
        loaded = time.perf_counter()
        done = peer.complete(PROMPT, max_tokens=NUM_TOKENS, ignore_eos=True)
        return {
            "import_s": imported - start,
            "load_s": loaded - imported,
            "load_to_first_token_s": loaded - imported + done.wall_s - done.decode_s,
            "num_tokens": done.num_tokens,
            "base_bytes": base,
            "peak_bytes": _memory("VmHWM"),
        }


def _memory(key: str) -> int:
    """A line of this process's status: resident memory now, or at its highest."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}: memory is measured on Linux only")


def _cache_bytes(path: Path) -> int:
    """Keys and values of the tokens that are written, in two bytes each."""
    import gguf

    reader = gguf.GGUFReader(path)

    def value(key: str) -> Any:
        field = reader.get_field(key)
        return None if field is None else field.contents()

    family = value("general.architecture")
    heads = value(f"{family}.attention.head_count")
    width = value(f"{family}.attention.key_length") or value(f"{family}.embedding_length") // heads
    kv_heads = value(f"{family}.attention.head_count_kv")
    layers = value(f"{family}.block_count")
    return 2 * layers * kv_heads * width * 2 * (NUM_TOKENS + len(PROMPT.split()) * 2)


if __name__ == "__main__":
    main()
