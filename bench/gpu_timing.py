"""Times GPU work by replaying graphs of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch


def microseconds(call: Callable[[int], object], variants: int = 1, repeats: int = 15,
                 least: float = 300.0) -> float:
    """Median time of one `call(i)`, device time alone.

    Calls are captured into a graph, i going around 0 .. variants - 1 (so that inputs too large
    for the cache together stay out of it), and replays are timed by events.  `least`: how long a
    replay is, at least, in microseconds.
    """
    for i in range(variants):
        call(i)
    torch.cuda.synchronize()
    count = max(variants, 8)
    while True:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(count):
                call(i % variants)
        graph.replay()
        took = _replay(graph)
        if took >= least or count >= 256:
            break
        count = min(256, variants * -(-int(count * 1.3 * least / max(took, 1.0)) // variants))
    return statistics.median(_replay(graph) for _ in range(repeats)) / count


def _replay(graph: torch.cuda.CUDAGraph) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    graph.replay()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) * 1e3


def copies(make: Callable[[], torch.Tensor], beyond: int = 256 << 20) -> list[torch.Tensor]:
    """So many tensors that together they are larger than `beyond` bytes: far more than a cache."""
    first = make()
    return [first] + [make() for _ in range(beyond // first.nbytes)]
