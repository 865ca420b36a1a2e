"""Keep torch's threads off the cores while kernels with threads of their own run.

After an operation that torch splits, its OpenMP threads spin for milliseconds, waiting for the
next one. On a small machine they take the cores from everything else: measured, a pass of
6 ms took 14 (docs/log.md).
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch

__all__ = ["one_torch_thread"]


@contextmanager
def one_torch_thread(is_wanted: bool) -> Generator[None]:
    """Run torch on the calling thread alone, and give it its threads back afterwards."""
    before = torch.get_num_threads()
    if not is_wanted or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
