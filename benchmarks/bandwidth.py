"""Read bandwidth of the memory: what a pass over the weights cannot exceed.

A loop in C, compiled when it is run, sums an array far larger than any cache; where there is no
compiler, torch sums it.

    python -m benchmarks.bandwidth --threads 2
"""

import argparse
import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_NUM_WORDS = 1 << 27  # of 8 bytes: 1 GiB

_SOURCE = r"""
#include <stdint.h>
uint64_t sum_words(const uint64_t *data, long count, int threads) {
    uint64_t total = 0;
    #pragma omp parallel for simd reduction(+:total) num_threads(threads) schedule(static)
    for (long i = 0; i < count; i++) total += data[i];
    return total;
}
"""


def measure_bandwidth(threads: int, repeats: int = 9) -> dict[str, Any]:
    """Bytes read per second, in GB (1e9 bytes): the best of several, and all of them."""
    data = torch.ones(_NUM_WORDS, dtype=torch.int64)
    with tempfile.TemporaryDirectory() as folder:
        compiled = _compile(Path(folder))
        read, how = (compiled, "C, OpenMP") if compiled else (_torch_sum, "torch")
        seconds = [_timed(read, data, threads) for _ in range(repeats)]
    speeds = [data.nbytes / value / 1e9 for value in seconds]
    return {
        "how": how,
        "threads": threads,
        "gb_per_s": round(max(speeds), 2),
        "all_gb_per_s": [round(speed, 2) for speed in speeds],
    }


def _timed(read: Callable[[Tensor, int], int], data: Tensor, threads: int) -> float:
    start = time.perf_counter()
    total = read(data, threads)
    seconds = time.perf_counter() - start
    if total != data.numel():
        raise RuntimeError(f"the sum of {data.numel()} ones is {total}")
    return seconds


def _torch_sum(data: Tensor, threads: int) -> int:
    torch.set_num_threads(threads)
    return int(data.sum())


def _compile(folder: Path) -> Callable[[Tensor, int], int] | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source, library = folder / "read.c", folder / "read.so"
    source.write_text(_SOURCE, encoding="utf-8")
    flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
    done = subprocess.run(
        [compiler, *flags, str(source), "-o", str(library)], capture_output=True, check=False
    )
    if done.returncode:
        return None
    function = ctypes.CDLL(str(library)).sum_words
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
    return lambda data, threads: function(data.data_ptr(), data.numel(), threads)


def main() -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    print(measure_bandwidth(parser.parse_args().threads))


if __name__ == "__main__":
    main()
