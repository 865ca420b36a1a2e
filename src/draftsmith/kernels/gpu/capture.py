"""Kernels that are launched once, and from then on replayed as one graph."""

from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["GraphPool"]

_Found = TypeVar("_Found")


class GraphPool:
    """Graphs of one device that run one after the other, and so share memory.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._memory = device, torch.cuda.graph_pool_handle()
        # The default of torch 2.11 is made once in a process, on the device of the first capture,
        # and makes that device the current one in every later capture, too.
        self._stream = torch.cuda.Stream(device)

    def captured(self, launch: Callable[[], _Found]) -> tuple[torch.cuda.CUDAGraph, _Found]:
        """Launch once, so that kernels are compiled, and once more into a graph.

        Args:
            launch: Launches; nothing in it waits for the host.

        Returns:
            The graph, and what `launch` gave for it; the next replay of any writes over that.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            launch()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._memory, self._stream, capture_error_mode="thread_local"):
            found = launch()
        return graph, found
