"""CUDA graphs of steps, captured when first needed.

A graph reads everything that differs from step to step from device memory, so one serves every
step of its shape.  What a step computes is not known here.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

_log = logging.getLogger("sglc.runtime")

_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
          896, 1024)
_COARSE = (1, 8, 32, 128, 512, 1024)

Compute = Callable[[], "tuple[Tensor, Tensor | None]"]


def bucket(n: int, *, coarse: bool = False) -> int:
    """The smallest size of graphs that `n` tokens (or, coarse, rows) fit into."""
    sizes = _COARSE if coarse else _SIZES
    return sizes[bisect_left(sizes, n)]


class Graph:
    """One captured step; its results are overwritten by the next replay of any graph."""

    def __init__(self, graph: torch.cuda.CUDAGraph, results: tuple[Tensor, Tensor | None]) -> None:
        self._graph = graph
        self._results = results

    def replay(self) -> tuple[Tensor, Tensor | None]:
        """Let it run, in stream order."""
        self._graph.replay()
        return self._results


class Graphs:
    """The graphs of one model, which share their working memory.  `tokens`: of a step, at most.
    `must`: a graph that cannot be captured is an error.
    """

    tokens = _SIZES[-1]

    def __init__(self, device: torch.device) -> None:
        self.must = False
        self._stream = torch.cuda.Stream(device)
        self._pool: tuple[int, int] | None = None
        self._known: dict[Hashable, Graph | None] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Hashable, compute: Compute) -> Graph | None:
        """The graph of this shape; None if it could not be captured for want of memory.

        `compute` must give the same however often it runs.
        """
        if key not in self._known:
            try:
                self._known[key] = self._capture(compute)
            except torch.OutOfMemoryError:
                if self.must:
                    raise
                _log.warning("no memory for a graph of %s: such steps run without", key)
                self._known[key] = None
        return self._known[key]

    def _capture(self, compute: Compute) -> Graph:
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()  # compiles kernels and makes the libraries take their memory
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            # Not torch.cuda.graph, which collects garbage and empties the allocator's cache.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                results = compute()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        return Graph(graph, results)
