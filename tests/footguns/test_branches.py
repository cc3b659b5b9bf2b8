"""Branches and loops on what a model chose: arms that rejoin, and those explored path by path."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import sglc as sgl
from tests.footguns.both_modes import same


def tool(x: Any) -> str:
    return f"<{x}>"


def test_branch_on_a_choice(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += q + sgl.select("tool", ["calc", "search", "none"])
        if s["tool"] == "calc":
            s += "1" + sgl.gen("x", max_tokens=3)
        elif s["tool"] == "search":
            s += "2" + sgl.gen("y", max_tokens=3)
        s += "." + sgl.gen("z", max_tokens=2)

    got = same(p, model, *((c,) for c in "abcdefgh"), whole=True)
    assert len({frozenset(g[4]) for g in got}) > 1  # different branches were taken


def test_match_statements(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> None:
        s += "x" + q + sgl.select("c", ["one", "two", "three", "four"])
        match s["c"]:
            case "one":
                s += "1" + sgl.gen("a", max_tokens=2)
            case "two" | "three" if q != "b":
                s += "23"
            case other if q == "c":
                s += "c" + other
            case rest:
                s += rest + "!"
        match q:
            case "a" | None:
                s += "A"
            case _:
                s += "_"

    same(p, model, ("a",), ("b",), ("c",), ("d",), ("e",), whole=True)


def test_while_loops_on_generated_values(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x"
        n = 0
        while n < 4:
            s += sgl.select("go", ["on", "stop"])
            if s["go"] == "stop":
                break
            n += 1
        s += f"{n} rounds" + sgl.gen("a", max_tokens=2)

    same(p, model, (), whole=True)


def test_a_loop_over_generated_text_with_gens(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=3, ignore_eos=True)
        for i, c in enumerate(s["a"]):
            s += c.upper() + f"{i}" + sgl.gen("b", max_tokens=2)

    same(p, model, ())


def test_twelve_branches_in_a_row(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "x" + q
        n = "none"
        for i in range(12):
            s += sgl.select("c", ["yes", "no"])
            if s["c"] == "yes":
                s += "1" + sgl.gen(f"g{i}", max_tokens=1, temperature=1.0)
                n = s[f"g{i}"] + "!"
            s += "." + sgl.gen("z", max_tokens=1, temperature=1.0)
        return n

    same(p, model, ("a",), ("b",), ("c",), whole=True)
    compiled = p.compile("a")
    assert compiled.paths == 1
    assert sum(1 for _ in compiled.stages["prompt"].walk()) < 12 * 20  # linear


def test_arms_that_rejoin(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        word, kind, late = "w", None, "late"
        s += q + sgl.select("c", ["a", "b", "c"])
        if s["c"] == "a":
            with s.user():
                s += "A" + sgl.gen("x", max_tokens=2)
            word = s["x"]
        elif s["c"] == "b":
            s += sgl.user("B")
            word, kind = "b" + word, "K"
        else:
            s += sgl.user("other")
            temporary = s["c"] + "t"
            s += temporary
        s += sgl.assistant(word + sgl.gen("y", max_tokens=2))
        forks = s.fork(2)
        if "e" in s["y"]:
            forks[0] += "e"
            s += "e" + sgl.select("d", ["1", "2"])
        forks += sgl.gen("f", max_tokens=2, temperature=1.0)
        s += forks[0]["f"] + forks[1]["f"] + sgl.gen("z", max_tokens=2, temperature=1.0)
        if kind is None:
            s += late
        return word, kind

    same(p, model, *((c,) for c in "abcdefghijkl"), whole=True)


def test_arms_that_do_not_rejoin(model: Any) -> None:
    @sgl.program
    def lists(s: Any) -> Any:
        out = []
        s += "x" + sgl.select("c", ["a", "b"])
        if s["c"] == "a":
            out.append("one")
        else:
            out += ["two"]
        s += "".join(out) + sgl.gen("a", max_tokens=2)
        return out

    @sgl.program
    def hosts(s: Any) -> Any:
        s += "x" + sgl.select("c", ["a", "b"])
        if s["c"] == "a":
            s += tool("A")
        else:
            s += tool("B")
        s += tool("C") + sgl.gen("a", max_tokens=2)

    @sgl.program
    def unbound(s: Any) -> Any:
        s += "x" + sgl.select("c", ["a", "b"])
        if s["c"] == "zz":
            word = "bound"
        s += word

    @sgl.program
    def one_arm(s: Any) -> Any:
        s += "x" + sgl.select("c", ["a", "b"])
        if s["c"] == "zz":
            s += sgl.gen("only", max_tokens=2)
        s += "only" if "only" in s else "none"

    same(lists, model, (), whole=True)
    same(hosts, model, (), whole=True)
    same(one_arm, model, ())
    for mode in ("eager", "compiled"):
        with pytest.raises(UnboundLocalError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unbound.run(backend=model, mode=mode)


def test_paths_that_no_choice_takes_are_not_explored(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "x" + q + sgl.select("c", ["a", "b", "c"])
        if s["c"] == "a":
            s += sgl.gen("word", max_tokens=2)
        elif not s["c"] != "b":
            s["word"] = "B"
        elif "c" == s["c"]:
            s["word"] = "C"
        if s["c"] == "zz":
            return "never"
        return s["word"]

    same(p, model, *((c,) for c in "abcdef"), whole=True)

    @sgl.program
    def returns(s: Any, q: Any) -> Any:
        s += "x" + q + sgl.select("c", ["a", "b", "c"])
        if s["c"] == "a":
            return "A"
        if s["c"] == "b":
            return "B"
        if s["c"] == "c":
            return "C"
        return s["never"]

    same(returns, model, *((c,) for c in "abcdef"), whole=True)
    assert returns.compile("x").paths == 3


def test_reads_inside_arms(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "x" + q + sgl.select("c", ["yes", "no"]) + sgl.gen("v", max_tokens=2)
        with s.user():
            if s["c"] == "yes":
                s += sgl.gen("w", max_tokens=2)
                s += s.text()[:2]
                s += "a" + str(s.get_meta_info("c") is None)
                s.sync()
        s += tool("after")
        s += sgl.gen("z", max_tokens=2)

    same(p, model, *((c,) for c in "abcdef"), whole=True)


def test_a_merged_branch_before_an_explored_one(model: Any) -> None:
    @sgl.program
    def p(s: Any, q: Any) -> Any:
        s += "Q" + q + sgl.select("c", ["a", "b"])
        kept = s
        if s["c"] == "a":
            s += sgl.select("d", ["p", "q"])
        if s["c"] == "a":
            s += sgl.assistant(q)
            with s.var_scope("z"):
                s += sgl.select("e", ["A" + s["c"], "B"])
        kept += sgl.gen("end", max_tokens=2, temperature=1.0)
        return s.text()

    same(p, model, *((c,) for c in "abcdefgh"), whole=True)
