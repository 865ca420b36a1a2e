"""Tiny kernels gain nothing from threads, and test workers share the cores."""

from collections.abc import Generator

import pytest

from draftsmith.kernels.cpu import library as cpu


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None]:
    cpu.set_num_threads(1)
    yield
    cpu.set_num_threads(1)
    if cpu.library() is not None:
        cpu.set_instruction_set(None)
