"""What the tracer gives up on runs eagerly and says so, or is refused where that was asked for."""

from __future__ import annotations

from typing import Any

import pytest

import sglc as sgl
from tests.footguns.both_modes import same


def test_what_runs_eagerly_is_loud(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2)

        class _Inside:
            pass

    with pytest.warns(sgl.SglcWarning, match=r"SGLC111.*class(.|\n)*test_graph_breaks.py:\d+"):
        p.run(backend=model)
    full = sgl.program(p.fn, fullgraph=True)
    with pytest.raises(sgl.SglcError, match="SGLC111"):
        full.run(backend=model)
    assert p.compile().graph_breaks == 1 and "SGLC111" in str(p.compile().explain())


def test_fullgraph_refuses_breaks(model: Any) -> None:
    @sgl.program(fullgraph=True)
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2, ignore_eos=True)
        for c in s["a"]:
            s += c

    with pytest.raises(sgl.SglcError, match="SGLC110"):
        p.run(backend=model)


def test_endless_exploration_breaks(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=1, ignore_eos=True)
        n = 0
        while "e" not in s.text() and n < 100:
            s += sgl.gen("a", max_tokens=2, ignore_eos=True)
            n += 1

    same(p, model, (), whole=False)


def test_source_not_available(model: Any) -> None:
    namespace: dict[str, Any] = {"sgl": sgl}
    exec("def f(s, q):\n    s += q + sgl.gen('a', max_tokens=2)\n", namespace)
    p = sgl.program(namespace["f"])
    assert p.compile("x").graph_breaks == 1
    with pytest.warns(sgl.SglcWarning, match="SGLC114"):
        compiled = p.run("x", backend=model, seed=1).text()
    assert compiled == p.run("x", backend=model, seed=1, mode="eager").text()


def test_more_variants_than_are_kept(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglc.lang import variants

    monkeypatch.setattr(variants, "MAX_VARIANTS", 3)

    @sgl.program
    def p(s: Any, n: Any) -> None:
        s += "x" * n + sgl.gen("a", max_tokens=n)

    rows = [(n,) for n in range(1, 7)]
    with pytest.warns(sgl.SglcWarning, match="SGLC115"):
        states = p.run_batch(rows, backend=model, seed=1)
    eager = p.run_batch(rows, backend=model, seed=1, mode="eager")
    assert [s.text() for s in states] == [s.text() for s in eager]
