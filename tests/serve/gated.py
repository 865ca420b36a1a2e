"""A model whose passes wait until they are let through, so that a test knows what runs when."""

import threading
import time
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from draftsmith.models.contract import Cache, Rows
from tests.serve import live
from tests.wrapped import Wrapped


class Gated(Wrapped):
    """The tiny model behind a gate, which is open at first."""

    def __init__(self) -> None:
        super().__init__(live.target())
        self.gate = threading.Event()
        self.gate.set()
        self.num_passes = 0
        self.closes_after: int | None = None
        """After so many passes it closes by itself."""

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        self.num_passes += 1
        if self.closes_after is not None and self.num_passes > self.closes_after:
            self.gate.clear()
            self.closes_after = None
        assert self.gate.wait(120), "nobody opened the gate"
        return super().forward(cache, batch)


def until(condition: Callable[[], object]) -> None:
    """Wait for what must come; how long it takes is nobody's matter."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
