"""What compiling costs, as `bench/compile_time.py` measures it: far from the goals in any run,
within them in the slow one (on a machine that does nothing else)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import sglc as sgl

SLACK = 8.0  # for busy machines


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(sgl.__file__).parent.parent / "bench" / "compile_time.py"
    spec = importlib.util.spec_from_file_location("bench_compile_time", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_thousand_operations_compile_soon(bench: ModuleType) -> None:
    found = bench.measure(2)
    assert found["ops"] >= 1000
    for name, goal in bench.GOALS.items():
        assert found[name] < SLACK * goal, (name, found[name])


@pytest.mark.slow
def test_a_thousand_operations_compile_within_the_goals(bench: ModuleType) -> None:
    found = bench.measure(20)
    for name, goal in bench.GOALS.items():
        assert found[name] < goal, (name, found[name])


def test_large_programs_take_time_in_proportion(bench: ModuleType) -> None:
    """No part is quadratic: ten times the program takes much less than a hundred times as long."""
    import time

    def seconds(n: int) -> float:
        @sgl.program
        def program(s) -> None:  # type: ignore[no-untyped-def]
            for i in range(n):
                s += "a" + sgl.gen(f"v{i}", max_tokens=1)

        start = time.process_time()
        assert program.compile().graph_breaks == 0
        return time.process_time() - start

    seconds(10)
    assert seconds(3000) < 40 * min(seconds(300) for _ in range(3))
